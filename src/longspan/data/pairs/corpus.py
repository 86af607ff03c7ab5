"""Pairs as token ids."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from longspan.data.corpus import dtype
from longspan.data.pairs.config import Location
from longspan.data.pairs.records import Record, Records
from longspan.data.tokenizer import Codec
from longspan.errors import DataError

GROUP = 1 << 19
"""Characters that are encoded together."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """N pairs of sequences of token ids, both without the start symbol.

    Attributes:
        tokens: (K,) uint16 or uint32, read-only: the ids of all.
        begins: (N, 2) int64, where source and target begin in `tokens`.
        lengths: (N, 2) int64, how many ids source and target have.
        numbers: (N,) int64, line or row of each record where it was read.
        references: texts of each record's targets, for scoring; None where they are not kept
            (in training).
        records: where they were read.
        codec: what the ids mean.
    """

    tokens: NDArray[Any]
    begins: NDArray[np.int64]
    lengths: NDArray[np.int64]
    numbers: NDArray[np.int64]
    references: tuple[tuple[str, ...], ...] | None
    records: Records
    codec: Codec

    def __len__(self) -> int:
        """N: records."""
        return len(self.lengths)

    def source(self, index: int) -> NDArray[Any]:
        """The ids of a source (a view), counted from 0."""
        return self._ids(index, 0)

    def target(self, index: int) -> NDArray[Any]:
        """The ids of a target (a view); of several, the first."""
        return self._ids(index, 1)

    def name(self, index: int) -> str:
        """What an error calls a record: file and line."""
        return self.records.place(int(self.numbers[index]))

    def select(self, rows: NDArray[Any]) -> Pairs:
        """The pairs of some records: indices, or one truth for each."""
        rows = np.arange(len(self))[rows]
        return replace(
            self,
            begins=self.begins[rows],
            lengths=self.lengths[rows],
            numbers=self.numbers[rows],
            references=self.references and tuple(self.references[row] for row in rows),
        )

    def _ids(self, index: int, side: int) -> NDArray[Any]:
        begin = self.begins[index, side]
        return self.tokens[begin : begin + self.lengths[index, side]]

    @staticmethod
    def of(texts: Iterable[tuple[str, str | Sequence[str]]], codec: Codec) -> Pairs:
        """Pairs in memory.

        Args:
            texts: a source and its target, or its targets, each.
            codec: encodes them.

        Raises:
            DataError: there are none, one is empty, or the codec cannot encode them.
        """
        origin = Records("")
        records = (origin.record(number, *sides) for number, sides in enumerate(texts))
        return gather(records, origin, codec)


def read(
    path: Location,
    codec: Codec,
    source: str | tuple[str, ...] = "source",
    target: str = "target",
    separator: str = "\n",
) -> Pairs:
    """The pairs that `path` names, in memory and unsplit: for evaluation.

    Args:
        path: as `PairsConfig.path`.
        codec: encodes them.
        source: field of a table that is read, or several, one after the other.
        target: field that is written about it.
        separator: what stands between several fields.

    Raises:
        DataError: there is nothing to read, or it cannot be read or encoded.
    """
    records = Records(path, source, target, separator)
    return gather(records, records, codec)


def gather(chosen: Iterable[Record], origin: Records, codec: Codec) -> Pairs:
    """The pairs of `chosen`, in memory.

    Raises:
        DataError: there are none, or the codec cannot encode them.
    """
    blocks: list[NDArray[Any]] = []
    numbers, references = [], []
    for record, source, target in encoded(chosen, origin, codec):
        blocks += [source, target]
        numbers.append(record.number)
        references.append(record.targets)
    if not numbers:
        raise DataError("there are no records")
    lengths = np.array([len(ids) for ids in blocks])
    return assemble(
        np.concatenate(blocks), lengths, np.array(numbers), tuple(references), origin, codec
    )


def encoded(
    records: Iterable[Record], origin: Records, codec: Codec
) -> Iterator[tuple[Record, NDArray[Any], NDArray[Any]]]:
    """Each record with the ids of its source and of its first target, as they are stored.

    Raises:
        DataError: the codec cannot encode them, or finds nothing in them.
    """
    stored = dtype(codec)
    for group in _groups(records):
        texts = (text.encode() for one in group for text in (one.source, one.targets[0]))
        ids = codec.each(texts)
        for record in group:
            try:
                source, target = next(ids), next(ids)
            except DataError as error:
                raise DataError(f"{origin.place(record.number)}: {error}") from error
            if not (len(source) and len(target)):
                side = "target" if len(source) else "source"
                raise DataError(f"{origin.place(record.number)}: the {side} has no tokens")
            yield record, codec.source(source).astype(stored), target.astype(stored)


def _groups(records: Iterable[Record]) -> Iterator[list[Record]]:
    group, size = [], 0
    for record in records:
        group.append(record)
        size += len(record.source) + len(record.targets[0])
        if size >= GROUP:
            yield group
            group, size = [], 0
    yield group


def assemble(
    tokens: NDArray[Any],
    lengths: NDArray[Any],
    numbers: NDArray[Any],
    references: tuple[tuple[str, ...], ...] | None,
    origin: Records,
    codec: Codec,
) -> Pairs:
    """The pairs that lie in `tokens` one after the other: source, target, source, target, …

    Args:
        lengths: (2N,) of all sequences.
    """
    tokens.flags.writeable = False
    begins = np.cumsum(lengths) - lengths
    return Pairs(
        tokens,
        begins.reshape(-1, 2).astype(np.int64),
        lengths.reshape(-1, 2).astype(np.int64),
        numbers.astype(np.int64),
        references,
        origin,
        codec,
    )
