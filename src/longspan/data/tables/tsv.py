"""Tab-separated values: a row a line. Quotes are text like any other. Empty lines are
passed over.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from longspan.data.lines import lines
from longspan.data.table import Row, Table, chosen, columns


@dataclass(frozen=True)
class TSV(Table, name="tsv"):
    """Fields are columns, named by a header or, if there are two, `source` and `target`."""

    suffixes: ClassVar[tuple[str, ...]] = (".tsv",)

    def rows(self, names: Sequence[str]) -> Iterator[Row]:
        at: list[int] = []
        width = 0
        for number, line in lines(self.path):
            if not line:
                continue
            cells = line.split("\t")
            if not width:
                width = len(cells)
                at, header = columns(cells, names, self.place(number))
                if header:
                    continue
            yield number, chosen(cells, width, at, self.place(number))
