"""A dataset of the Hugging Face Hub, or one on this disk, through the `datasets` library.

hf:NAME/config@split        as in `readers/hf.py`, without a column
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from longspan.data import hub
from longspan.data.table import Row, Table, fields


@dataclass(frozen=True)
class HF(Table, name="hf"):
    """Fields are columns, or have dotted names: `translation.de`. Rows are counted from 0."""

    unit: ClassVar[str] = "row"

    def rows(self, names: Sequence[str]) -> Iterator[Row]:
        path, _, split = self.path.removeprefix("hf:").partition("@")
        dataset, _ = hub.rows(path, split, self.path)
        for number, row in enumerate(hub.streamed(dataset, self.path)):
            yield number, fields(row, names, self.place(number))
