"""Rows with named fields: files of records, and data sets of the Hub. The name says which:

    train.jsonl  train.json     a JSON object a line
    train.tsv                   tab-separated, with a header or of exactly two columns
    train.csv                   the same, comma-separated, with quotes as in RFC 4180
    train.parquet               columns with types
    hf:NAME/config@split        a dataset of the Hub, or one on this disk

Files may be compressed (`lines.py`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from longspan.data.lines import suffix
from longspan.errors import DataError, did_you_mean
from longspan.registry import Component

Row = tuple[int, tuple[Any, ...]]
"""A row's number, and its values in the fields that were asked for."""

HEADLESS = ("source", "target")
"""What the columns are called where no header names them."""


@dataclass(frozen=True)
class Table(Component, kind="table", folder="longspan.data.tables"):
    """A source of rows.

    Attributes:
        path: as the recipe gives it.
        suffixes: endings of the files that it reads.
        unit: what a row's number counts.
    """

    suffixes: ClassVar[tuple[str, ...]] = ()
    unit: ClassVar[str] = "line"

    path: str = ""

    @abstractmethod
    def rows(self, names: Sequence[str]) -> Iterator[Row]:
        """The rows, always in the same order, as often as they are asked for.

        Args:
            names: of the fields that are wanted.

        Raises:
            DataError: there are none, they cannot be read, or one has no such field.
        """

    def place(self, number: int) -> str:
        """What an error calls a row."""
        return f"{self.path} {self.unit} {number}"


def kind(path: str) -> type[Table] | None:
    """What reads `path`; None if its name does not say."""
    prefix, colon, _ = path.partition(":")
    for name, member in Table.all().items():
        if (colon and prefix == name) or suffix(path) in member.suffixes:
            return member
    return None


def endings() -> str:
    """The endings of files that are tables."""
    return ", ".join(suffix for member in Table.all().values() for suffix in member.suffixes)


def unknown(path: str) -> str:
    """What to say of a path whose name does not say how it is read."""
    return (
        f"{path!r} does not say what it is; name a table ({endings()}, also compressed: .gz, .xz, "
        ".bz2), 'hf:NAME', or two parallel text files, [sources, targets]"
    )


def fields(record: Mapping[str, Any], names: Sequence[str], where: str) -> tuple[Any, ...]:
    """The wanted fields of a record. A dotted name that is no field leads into a field:
    `translation.de`.

    Raises:
        DataError: one is missing; `where` it is.
    """
    values = []
    for name in names:
        value: Any = record
        for key in [name] if name in record else name.split("."):
            if not isinstance(value, Mapping) or key not in value:
                raise DataError(
                    f"{where}: there is no field '{name}'{did_you_mean(name, _paths(record))}"
                )
            value = value[key]
        values.append(value)
    return tuple(values)


def _paths(record: Mapping[str, Any], above: str = "") -> Iterator[str]:
    for key, value in record.items():
        if isinstance(value, Mapping) and value:
            yield from _paths(value, f"{above}{key}.")
        else:
            yield f"{above}{key}"


def columns(row: Sequence[str], names: Sequence[str], where: str) -> tuple[list[int], bool]:
    """Which columns of a table without types are wanted, and whether `row` is its header.

    A table whose first row names none of them and has two columns has no header; its columns
    are called `HEADLESS`.

    Args:
        row: the first one.
        names: of the fields that are wanted.
        where: what an error calls it.

    Raises:
        DataError: a column is missing.
    """
    header = len(row) != len(HEADLESS) or any(name in row for name in names)
    known = list(row) if header else list(HEADLESS)
    for name in names:
        if name not in known:
            has = "the header has no column" if header else "there is no header with a column"
            raise DataError(f"{where}: {has} '{name}'{did_you_mean(name, known)}")
        if known.count(name) > 1:
            raise DataError(f"{where}: the header has the column '{name}' twice")
    return [known.index(name) for name in names], header


def chosen(cells: Sequence[str], width: int, at: Sequence[int], where: str) -> tuple[str, ...]:
    """The wanted cells of a row.

    Raises:
        DataError: it has more or fewer than the first row.
    """
    if len(cells) != width:
        raise DataError(f"{where}: {len(cells)} columns, where the first line has {width}")
    return tuple(cells[index] for index in at)
