"""A table with a column of contents and one of classes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from longspan.data.labelled.collection import Collection
from longspan.data.labelled.item import Item
from longspan.data.pairs.sources import sources
from longspan.data.table import kind
from longspan.errors import DataError


@dataclass(frozen=True)
class Rows(Collection, name="table"):
    """Records are rows. A class is a text or a whole number, which is the text of its digits."""

    @classmethod
    def holds(cls, path: str) -> bool:
        return kind(path) is not None

    def items(self) -> Iterator[Item]:
        found = kind(self.path)
        assert found is not None
        table = found(self.path)
        for number, (content, label) in table.rows((self.source, self.label)):
            place = table.place(number)
            yield Item(place, content, self._class(place, label), columns=(self.source, self.label))

    def contents(self) -> Iterator[Item]:
        return (Item(place, text) for place, (text,) in sources(self.path, [self.source]))

    def _class(self, place: str, value: Any) -> str:
        label = str(value) if type(value) is int else value
        if not isinstance(label, str):
            held = "null" if value is None else f"{value!r} ({type(value).__name__})"
            raise DataError(
                f"{place}: field '{self.label}' holds {held}, no class; write a word or a whole "
                "number"
            )
        if not label.strip():
            raise DataError(
                f"{place}: field '{self.label}' is empty; remove the record or name its class"
            )
        return label.strip()
