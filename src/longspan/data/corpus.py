"""A corpus: documents as token ids, one after the other, each stored as [start, ids…]."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from longspan.data.reader import documents as find
from longspan.data.tokenizer import Codec
from longspan.errors import DataError

Contents = Iterable[bytes] | Iterable[tuple[str, bytes]]
"""Documents in memory, without or with names."""


@dataclass(frozen=True)
class Entry:
    """A document's place in a corpus.

    Attributes:
        name: its name.
        start: index of its start symbol.
        tokens: how many it has, the start symbol among them.
        bytes: how many its content has.
    """

    name: str
    start: int
    tokens: int
    bytes: int


@dataclass(frozen=True, eq=False)
class Corpus:
    """Documents as token ids.

    Attributes:
        tokens: (N,) uint16 or uint32, read-only: [start, ids…] of every document.
        offsets: (D,) int64, where each document begins in `tokens`.
        names: of the documents.
        document_bytes: (D,) int64, bytes of each document's content.
        codec: what the ids mean.
    """

    tokens: NDArray[Any]
    offsets: NDArray[np.int64]
    names: tuple[str, ...]
    document_bytes: NDArray[np.int64]
    codec: Codec

    def __len__(self) -> int:
        """N: tokens, start symbols among them."""
        return len(self.tokens)

    @property
    def bytes(self) -> int:
        """Bytes of content that the tokens stand for."""
        return int(self.document_bytes.sum())

    def document(self, index: int) -> NDArray[Any]:
        """[start, ids…] of one document (a view), counted from 0."""
        last = index + 1 == len(self.offsets)
        return self.tokens[self.offsets[index] : None if last else self.offsets[index + 1]]

    @staticmethod
    def of(contents: Contents, codec: Codec, documents: bool = True) -> Corpus:
        """A corpus in memory.

        Args:
            contents: bytes, or pairs of a name and bytes.
            codec: encodes them.
            documents: False: all are one stream, with one start symbol.

        Raises:
            DataError: there is nothing in them, or the codec cannot encode them.
        """
        blocks: list[NDArray[Any]] = []
        tape = Tape(codec, blocks.append, documents)
        for index, content in enumerate(contents):
            name, content = content if isinstance(content, tuple) else (str(index), content)
            tape.add(name, content, 0, len(content))
        if not any(entry.bytes for entry in tape.entries):
            raise DataError("there is nothing to read: every document is empty")
        return assemble(np.concatenate(blocks), tape.entries, codec)


def assemble(tokens: NDArray[Any], entries: list[Entry], codec: Codec) -> Corpus:
    """The corpus whose documents lie in `tokens` as `entries` say."""
    tokens.flags.writeable = False
    return Corpus(
        tokens,
        np.array([entry.start for entry in entries], np.int64),
        tuple(entry.name for entry in entries),
        np.array([entry.bytes for entry in entries], np.int64),
        codec,
    )


def read(path: str | tuple[str, ...], codec: Codec, documents: bool = True) -> Corpus:
    """The corpus that `path` names, in memory and unsplit: for evaluation.

    Args:
        path: as `DataConfig.path`.
        codec: encodes it.
        documents: False: all is one stream, with one start symbol.

    Raises:
        DataError: there is nothing to read, or it cannot be read or encoded.
    """
    blocks: list[NDArray[Any]] = []
    tape = Tape(codec, blocks.append, documents)
    for document in find(path):
        content = document.read()
        tape.add(document.name, content, 0, len(content), document.origin)
    if not any(entry.bytes for entry in tape.entries):
        raise DataError(f"{path}: every document is empty")
    return assemble(np.concatenate(blocks), tape.entries, codec)


class Tape:
    """Writes documents one after the other and notes where each begins.

    Args:
        codec: encodes them.
        write: takes the ids, block by block, as `dtype(codec)`.
        documents: False: all are one stream, with one start symbol.
    """

    def __init__(self, codec: Codec, write: Callable[[NDArray[Any]], Any], documents: bool) -> None:
        self.entries: list[Entry] = []
        self.length = 0
        self._codec, self._write, self._documents = codec, write, documents
        self._dtype = dtype(codec)

    def add(self, name: str, content: bytes, start: int, stop: int, origin: str = "") -> None:
        """Writes content[start:stop] as the next document.

        Raises:
            DataError: the codec cannot encode it; `origin`, or else the name, is named.
        """
        before = self.entries.pop() if self.entries and not self._documents else None
        begin = before.start if before else self.length
        if before is None:
            self._put(np.array([self._codec.start]))
        try:
            for block in self._codec.blocks(content, start, stop):
                self._put(block)
        except DataError as error:
            raise DataError(f"{origin or name}: {error}") from error
        name = f"{before.name.split(' … ')[0]} … {name}" if before else name
        size = stop - start + (before.bytes if before else 0)
        self.entries.append(Entry(name, begin, self.length - begin, size))

    def _put(self, ids: NDArray[Any]) -> None:
        self._write(ids.astype(self._dtype))
        self.length += len(ids)


def dtype(codec: Codec) -> str:
    """What ids are stored as, in numpy's letters: two bytes where they suffice, else four."""
    return "<u2" if codec.size <= 1 << 16 else "<u4"
