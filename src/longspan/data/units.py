"""Units: what makes the ids of a text independent of the pieces in which it arrives.

A tokenizer that looks at its neighbourhood (byte-level BPE, words) gives other ids where the text
is cut elsewhere. So the cuts are fixed: a unit is a line up to and including its newline, or the
first `LONGEST` bytes of a line that is longer than that, less what belongs to a character (for
words: to a word) that goes on. Where a unit ends is decided by its own bytes alone, and each unit
is encoded on its own.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from longspan.data.tokenizer import Codec
from longspan.errors import DataError

LONGEST = 8192
"""Bytes of the longest unit."""

BLOCK = 1 << 19
"""Bytes that are encoded at a time."""


def units(
    data: bytes, start: int, stop: int, *, final: bool, words: bool
) -> Iterator[tuple[int, int]]:
    """Begin and end of each complete unit of data[start:stop].

    Args:
        data: the bytes.
        start: where the first unit begins.
        stop: where the bytes that may be looked at end.
        final: the text ends at `stop`; otherwise the last, unfinished unit is left out.
        words: cut long lines after a space or tab where there is one.
    """
    while start < stop:
        limit = min(start + LONGEST, stop)
        newline = data.find(b"\n", start, limit)
        if newline >= 0:
            end = newline + 1
        elif limit - start == LONGEST:
            end = _cut(data, start, limit, words)
        elif final:
            end = stop
        else:
            return
        yield start, end
        start = end


def _cut(data: bytes, start: int, limit: int, words: bool) -> int:
    if words:
        space = max(data.rfind(b" ", start, limit), data.rfind(b"\t", start, limit))
        if space >= 0:
            return space + 1
    for back in range(1, 5):
        lead = data[limit - back]
        if lead & 0xC0 != 0x80:  # the first byte of the last character: it says the length
            length = 1 if lead < 0x80 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
            return limit if length <= back else limit - back
    return limit  # no character at all: decoding it will say so


PIECE = 1 << 22
"""Bytes that `pieces` aims at."""


def pieces(content: bytes, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
    """content[start:stop] cut between lines, with the place of each piece: units stay whole."""
    while start < stop:
        end = min(start + PIECE, stop)
        if end < stop:
            newline = content.rfind(b"\n", start, end)
            newline = newline if newline >= 0 else content.find(b"\n", end, stop)
            end = newline + 1 if newline >= 0 else stop
        yield start, content[start:end]
        start = end


class NotUTF8(DataError):
    """Bytes that are no text, where a tokenizer needs text."""

    def __init__(self, offset: int, byte: int, tokenizer: str) -> None:
        super().__init__(
            f"byte {offset} (0x{byte:02x}) is not UTF-8, which tokenizer '{tokenizer}' needs; "
            "use tokenizer 'bytes', or convert the text to UTF-8"
        )
        self.offset, self.byte, self.tokenizer = offset, byte, tokenizer

    def later(self, start: int) -> NotUTF8:
        """The same, counted from `start` bytes before."""
        return NotUTF8(start + self.offset, self.byte, self.tokenizer)


def texts(document: bytes, *, name: str, words: bool) -> Iterator[str]:
    """The units of a whole document as text; `name` is the tokenizer's, for the error.

    Raises:
        DataError: it is not UTF-8.
    """
    for begin, end in units(document, 0, len(document), final=True, words=words):
        yield _text(document, begin, end, name)


def _text(data: bytes, begin: int, end: int, name: str) -> str:
    try:
        return data[begin:end].decode("utf-8")
    except UnicodeDecodeError as error:
        offset = begin + error.start
        raise NotUTF8(offset, data[offset], name) from error


class UnitCodec(Codec):
    """A codec that encodes unit by unit.

    Attributes:
        whole_words: a unit of a long line ends after a space or tab, where there is one.
    """

    whole_words: ClassVar[bool] = False

    @abstractmethod
    def unit_ids(self, texts: list[str]) -> Iterable[list[int]]:
        """The ids of each unit."""

    def blocks(
        self, document: bytes, start: int = 0, stop: int | None = None
    ) -> Iterator[NDArray[Any]]:
        stop = len(document) if stop is None else stop
        waiting: list[str] = []
        first = start
        for begin, end in units(document, start, stop, final=True, words=self.whole_words):
            waiting.append(_text(document, begin, end, self.kind))
            if end - first >= BLOCK:
                yield self._ids(waiting)
                waiting, first = [], end
        yield self._ids(waiting)

    def feed(self, pending: bytes, more: bytes, final: bool) -> tuple[list[int], bytes]:
        data = pending + more
        spans = list(units(data, 0, len(data), final=final, words=self.whole_words))
        ids = self.unit_ids([_text(data, begin, end, self.kind) for begin, end in spans])
        return list(chain.from_iterable(ids)), data[spans[-1][1] if spans else 0 :]

    def each(self, documents: Iterable[bytes]) -> Iterator[NDArray[np.int64]]:
        waiting: list[bytes] = []
        size = 0
        for document in documents:
            waiting.append(document)
            size += len(document)
            if size >= BLOCK:
                yield from self._together(waiting)
                waiting, size = [], 0
        yield from self._together(waiting)

    def _together(self, documents: list[bytes]) -> Iterable[NDArray[np.int64]]:
        try:
            cut = [
                list(texts(document, name=self.kind, words=self.whole_words))
                for document in documents
            ]
            ids = iter(list(self.unit_ids(list(chain.from_iterable(cut)))))
        except DataError:  # one by one, so that the error comes in its place
            return map(self.encode, documents)
        return (np.fromiter(chain.from_iterable(islice(ids, len(own))), np.int64) for own in cut)

    def _ids(self, texts: list[str]) -> NDArray[np.int64]:
        return np.fromiter(chain.from_iterable(self.unit_ids(texts)), np.int64)
