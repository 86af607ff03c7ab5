"""A dataset of the Hugging Face Hub, or one on this disk, through the `datasets` library.

    hf:NAME                 hf:owner/name           a path, if one is there: hf:./rows.jsonl
    hf:NAME/config          a subset
    hf:…@split              the split; "train" if there is one, else the only one
    hf:…#column             the column that holds the text; "text"

Rows are streamed, each is a document. The library is an extra: `pip install longspan[hf]`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from longspan.data import hub
from longspan.data.reader import Document, Reader
from longspan.errors import DataError, did_you_mean


@dataclass(frozen=True)
class HF(Reader, name="hf"):
    """Documents are rows, named `split/00000000`, counted from 0. They can be read once."""

    def documents(self) -> Iterator[Document]:
        shown = f"hf:{self.path}"
        path, _, column = self.path.partition("#")
        path, _, split = path.partition("@")
        column = column or "text"
        rows, split = hub.rows(path, split, shown)
        index = -1
        for index, row in enumerate(hub.streamed(rows, shown)):
            if column not in row:
                raise DataError(
                    f"{shown}: there is no column '{column}'"
                    f"{did_you_mean(column, row)}; write it after a #"
                )
            yield self._document(f"{split}/{index:08d}", row[column], column)
        if index < 0:
            raise DataError(f"{shown}: the split '{split}' has no rows")

    def _document(self, name: str, value: Any, column: str) -> Document:
        content = value.encode() if isinstance(value, str) else value
        if not isinstance(content, bytes):
            raise DataError(
                f"hf:{self.path}: column '{column}' holds {type(value).__name__}, not text "
                f"(row {name}); write a column of text after a #"
            )
        return Document(name, lambda: content, f"hf:{self.path} row {name}", once=True)
