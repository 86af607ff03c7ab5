"""Comma-separated values with quotes as in RFC 4180; a field may go over several lines."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from longspan.data.lines import lines
from longspan.data.table import Row, Table, chosen, columns
from longspan.errors import DataError

LONGEST = 2**31 - 1
"""Characters of a field; the library's own 131,072 are less than a book."""


@dataclass(frozen=True)
class CSV(Table, name="csv"):
    """Fields are columns, named by a header or, if there are two, `source` and `target`. A row's
    number is that of its first line. Empty lines are passed over.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".csv",)

    def rows(self, names: Sequence[str]) -> Iterator[Row]:
        csv.field_size_limit(LONGEST)
        reader = csv.reader((f"{line}\n" for _, line in lines(self.path)), strict=True)
        at: list[int] = []
        width = 0
        while True:
            number = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise DataError(f"{self.place(number)}: not CSV ({error})") from error
            if not cells:
                continue
            if not width:
                width = len(cells)
                at, header = columns(cells, names, self.place(number))
                if header:
                    continue
            yield number, chosen(cells, width, at, self.place(number))
