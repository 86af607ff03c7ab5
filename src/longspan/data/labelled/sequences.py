"""Labelled records as sequences of tokens or vectors, in memory, and their batches."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from longspan.data.inputs.text import TextEncoding
from longspan.data.labelled.collection import collection
from longspan.data.labelled.config import EVALUATED, LabelledConfig, Paths
from longspan.data.labelled.item import Item
from longspan.data.labelled.reading import Reading, learnt
from longspan.data.plan import Plan
from longspan.data.split import SPLITS, assign
from longspan.data.tokenizer import Codec
from longspan.errors import DataError

log = logging.getLogger(__name__)


class SequenceBatch(NamedTuple):
    """B sequences, of T tokens or vectors at most, right-padded with 0.

    Attributes:
        x: (B, T) int64 tokens, or (B, T, F) float32 vectors.
        valid: (B, T) bool, what is no padding.
        classes: (B,) int64; -1 where nobody knows.
        records: (B,) int64, which these are.
    """

    x: Tensor
    valid: Tensor
    classes: Tensor
    records: Tensor


@dataclass(frozen=True, eq=False)
class Sequences:
    """N sequences and their classes.

    Attributes:
        values: each (T,) tokens or (T, F) vectors, as the encoding keeps them.
        classes: (N,) int64, places in `reading.classes`; -1 where nobody asks.
        places: what errors call the records.
        reading: how they were read.
    """

    values: tuple[NDArray[Any], ...]
    classes: NDArray[np.int64]
    places: tuple[str, ...]
    reading: Reading

    def __len__(self) -> int:
        """N: records."""
        return len(self.values)

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """(N,) int64, T of each."""
        return np.fromiter((len(each) for each in self.values), np.int64, len(self))

    @cached_property
    def tokens(self) -> NDArray[np.uint8]:
        """The bytes of all that is learnt from: what tells whether it is the same."""
        digest = hashlib.sha256(self.classes.tobytes())
        for each in self.values:
            digest.update(str(each.shape).encode())
            digest.update(np.ascontiguousarray(each).tobytes())
        return np.frombuffer(digest.digest(), np.uint8)

    def select(self, records: NDArray[Any]) -> Sequences:
        """Some of them: indices, or one truth for each."""
        rows = np.arange(len(self))[records].tolist()
        return Sequences(
            tuple(self.values[row] for row in rows),
            self.classes[records],
            tuple(self.places[row] for row in rows),
            self.reading,
        )

    def rows(
        self, records: NDArray[np.int64], draw: np.random.Generator | None = None
    ) -> SequenceBatch:
        """A batch of the records given, in that order.

        Args:
            records: their numbers.
            draw: of what varies where they are learnt (`Encoding.varied`); None for nothing.
        """
        lengths = self.lengths[records]
        first = self.values[int(records[0])]
        shape = (len(records), int(lengths.max()), *first.shape[1:])
        x = np.zeros(shape, first.dtype)
        for row, record in enumerate(records.tolist()):
            x[row, : lengths[row]] = self.values[record]
        valid = np.arange(shape[1]) < lengths[:, None]
        encoding = self.reading.encoding
        return SequenceBatch(
            encoding.model_input(x if draw is None else encoding.varied(x, draw)),
            torch.from_numpy(valid),
            torch.from_numpy(self.classes[records]),
            torch.from_numpy(records.copy()),
        )

    def alike(self, tokens: int) -> Iterator[NDArray[np.int64]]:
        """Every record once, those of like length together, within a budget of tokens; at least
        one a batch.
        """
        order = np.argsort(self.lengths, kind="stable")
        low = 0
        for high in range(1, len(order) + 1):
            if high == len(order) or (high + 1 - low) * self.lengths[order[high]] > tokens:
                yield order[low:high]
                low = high


def batches(sequences: Sequences, tokens: int, seed: int) -> Plan:
    """Batches for training, each a function of the step.

    Args:
        sequences: what to read.
        tokens: rows times length of a batch, padding among it.
        seed: of all shuffles.

    Raises:
        DataError: one is longer than `tokens`.
    """
    longest = int(sequences.lengths.argmax())
    if sequences.lengths[longest] > tokens:
        raise DataError(
            f"{sequences.places[longest]}: is {sequences.lengths[longest]} long, more than "
            f"train.tokens={tokens}; use more, or data.longest: {tokens} to leave such records out "
            "of training"
        )
    return Plan(sequences.lengths, tokens, seed)


@dataclass(frozen=True)
class SequenceSplits:
    """What `prepare` gives: three parts, and how they were read, learnt of `train`."""

    train: Sequences
    valid: Sequences
    test: Sequences
    codec: Reading


def read(paths: Paths, config: LabelledConfig) -> list[Item]:
    """The records of a path, or of several one after the other, with their classes.

    Raises:
        DataError: there are none, one has no class, or they cannot be read.
    """
    several = (paths,) if isinstance(paths, str) else paths
    found = [
        item for path in several for item in collection(path, config.source, config.label).items()
    ]
    if not found:
        raise DataError(f"{' and '.join(several)}: there are no records")
    return found


def gather(items: Iterable[Item], reading: Reading, first: int | None = None) -> Sequences:
    """Records as sequences.

    Args:
        items: in memory from now on.
        reading: how they are read.
        first: of longer ones only so many tokens or vectors are read; None for all.

    Raises:
        DataError: a content is none, or of a class that training has not seen.
    """
    kept = list(items)
    classes = np.fromiter(map(reading.number, kept), np.int64, len(kept))
    values = tuple(reading.encoding.encode(kept))
    if first is not None and (cut := sum(len(each) > first for each in values)):
        log.warning(
            "%d of %d records are longer than data.first: %d; what follows is not read",
            cut,
            len(values),
            first,
        )
        values = tuple(each[:first] for each in values)
    return Sequences(values, classes, tuple(item.place for item in kept), reading)


def prepare(config: LabelledConfig, known: Reading | Codec | None = None) -> SequenceSplits:
    """Reads, splits and encodes; everything stays in memory.

    Args:
        config: what to prepare.
        known: how a run reads, instead of learning it; or a tokenizer for texts instead of fitting
            one.

    Raises:
        DataError: there is nothing to read, it cannot be read, or training has one class alone.
    """
    found = read(config.path, config)
    fractions = config.fraction("valid"), config.fraction("test")
    if any(fractions):
        split = assign([item.digest for item in found], *fractions)
    else:
        split = ["train"] * len(found)
    parts = {part: [i for i, s in zip(found, split, strict=True) if s == part] for part in SPLITS}
    for part in EVALUATED:
        paths = getattr(config, part)
        if isinstance(paths, str | tuple) and paths:
            parts[part] = read(paths, config)
    if not isinstance(known, Reading):
        classes = learnt(parts["train"], _named(config.path))
        encoding = config.input.fit(parts["train"]) if known is None else TextEncoding(known)
        known = Reading(config.input.name, encoding, classes)
    made = {part: gather(parts[part], known, config.first) for part in SPLITS}
    splits = SequenceSplits(**made, codec=known)
    return splits if config.longest is None else _shorter(splits, config.longest)


def _named(paths: Paths) -> str:
    return paths if isinstance(paths, str) else ", ".join(paths)


def _shorter(splits: SequenceSplits, longest: int) -> SequenceSplits:
    lengths = splits.train.lengths
    fits = lengths <= longest
    if not fits.any():
        raise DataError(
            f"data.longest: {longest} leaves nothing to train on; the shortest record is "
            f"{lengths.min()} long"
        )
    if fits.all():
        return splits
    log.warning(
        "%d of %d records of training are longer than data.longest: %d and are left out",
        (~fits).sum(),
        len(fits),
        longest,
    )
    return replace(splits, train=splits.train.select(fits))


def limited(sequences: Sequences, limit: int | None, position: str) -> None:
    """Refuses what is longer than the model has places.

    Args:
        sequences: what it is to read.
        limit: its places; None for no limit.
        position: what has them.

    Raises:
        DataError: one is longer.
    """
    if limit is None or not len(sequences) or sequences.lengths.max() <= limit:
        return
    longest = int(sequences.lengths.argmax())
    raise DataError(
        f"{sequences.places[longest]}: is {sequences.lengths[longest]} long, more than the {limit} "
        f"places of position='{position}'; split it, set data.first: {limit} to read no more, or "
        "train with a position without a limit and, where records are long, a window or a memory"
    )
