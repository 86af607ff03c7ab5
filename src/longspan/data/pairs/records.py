"""Records: pairs of texts, from a table or from two parallel text files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from longspan.data.lines import lines
from longspan.data.pairs.config import Location
from longspan.data.table import kind, unknown
from longspan.errors import DataError


@dataclass(frozen=True)
class Record:
    """A source and what is written about it.

    Attributes:
        number: of its line or row.
        source: text.
        targets: texts; the first is learnt, all are references.
    """

    number: int
    source: str
    targets: tuple[str, ...]


@dataclass(frozen=True)
class Records:
    """The records of a path.

    Attributes:
        path: a table, or two parallel text files.
        source: field of a table that is read, or several, one after the other.
        target: field that is written about it.
        separator: what stands between several fields.
    """

    path: Location
    source: str | tuple[str, ...] = "source"
    target: str = "target"
    separator: str = "\n"

    def __iter__(self) -> Iterator[Record]:
        """Every record, always in the same order.

        Raises:
            DataError: there is none, one has no source or no target, or a file cannot be read.
        """
        record = None
        for record in self._tabled(self.path) if isinstance(self.path, str) else self._parallel():
            yield record
        if record is None:
            raise DataError(f"{self.name}: there are no records")

    @property
    def name(self) -> str:
        """What an error calls all of them."""
        return self.path if isinstance(self.path, str) else " and ".join(self.path)

    def place(self, number: int) -> str:
        """What an error calls one of them."""
        if not isinstance(self.path, str):
            return f"{self.name} line {number}"
        table = kind(self.path)
        return table(self.path).place(number) if table else f"record {number}"

    def record(self, number: int, source: Any, target: Any) -> Record:
        """A record of what its fields hold; of several sources a list.

        Raises:
            DataError: they are no text, or empty.
        """
        texts = target if isinstance(target, list | tuple) else [target]
        if not texts:
            raise DataError(f"{self.place(number)}: field '{self.target}' is an empty list")
        parts = [source] if isinstance(self.source, str) else source
        read = zip(self._read, parts, strict=True)
        return Record(
            number,
            self.separator.join(self._text(number, name, part) for name, part in read),
            tuple(self._text(number, self.target, text) for text in texts),
        )

    def _tabled(self, path: str) -> Iterator[Record]:
        table = kind(path)
        if table is None:
            raise DataError(unknown(path))
        for number, (*sources, target) in table(path).rows((*self._read, self.target)):
            yield self.record(
                number, sources[0] if isinstance(self.source, str) else sources, target
            )

    @property
    def _read(self) -> tuple[str, ...]:
        return (self.source,) if isinstance(self.source, str) else self.source

    def _parallel(self) -> Iterator[Record]:
        ours, theirs = self.path
        number = 0
        for number, (source, target) in enumerate(zip_longest(lines(ours), lines(theirs)), 1):
            if source is None or target is None:
                raise DataError(_unequal(ours, theirs))
            for path, (_, text) in ((ours, source), (theirs, target)):
                if not text.strip():
                    raise DataError(f"{path} line {number}: is empty; remove it from both files")
            yield Record(number, source[1], (target[1],))

    def _text(self, number: int, field: str, value: Any) -> str:
        if not isinstance(value, str):
            held = "null" if value is None else type(value).__name__
            raise DataError(f"{self.place(number)}: field '{field}' holds {held}, not text")
        if not value.strip():
            raise DataError(
                f"{self.place(number)}: field '{field}' is empty; remove the record or fill it"
            )
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"{self.place(number)}: field '{field}' has half a character "
                f"(\\u{ord(value[error.start]):04x} in place {error.start}), which is no text"
            ) from error
        return value


def _unequal(ours: str, theirs: str) -> str:
    count: Callable[[str], int] = lambda path: sum(1 for _ in lines(path))  # noqa: E731
    return (
        f"{ours} has {count(ours)} lines and {theirs} has {count(theirs)}; line n of one must "
        "belong to line n of the other"
    )
