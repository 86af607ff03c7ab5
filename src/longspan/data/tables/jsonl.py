"""JSON lines: an object a line. Empty lines between them are passed over."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from longspan.data.lines import lines
from longspan.data.table import Row, Table, fields
from longspan.errors import DataError


@dataclass(frozen=True)
class JSONL(Table, name="jsonl"):
    """Rows are objects. A field of an object in a field has a dotted name."""

    suffixes: ClassVar[tuple[str, ...]] = (".jsonl", ".json")

    def rows(self, names: Sequence[str]) -> Iterator[Row]:
        for number, line in lines(self.path):
            if line.strip():
                record = self._record(number, line)
                yield number, fields(record, names, self.place(number))

    def _record(self, number: int, line: str) -> dict[str, Any]:
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            reason = f"not JSON ({error.msg} in column {error.colno})"
        except RecursionError:
            reason = "JSON that is nested too deep"
        else:
            if isinstance(record, dict):
                return record
            reason = f"must be an object with fields, not {type(record).__name__}"
        hint = "; write one object a line (jq -c '.[]' does so with a list)"
        whole = number == 1 and line.lstrip()[0] in "[{"
        raise DataError(f"{self.place(number)}: {reason}{hint if whole else ''}")
