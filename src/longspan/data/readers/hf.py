"""A dataset of the Hugging Face Hub, or one on this disk, through the `datasets` library.

    hf:NAME                 hf:owner/name           a path, if one is there: hf:./rows.jsonl
    hf:NAME/config          a subset
    hf:…@split              the split; "train" if there is one, else the only one
    hf:…#column             the column that holds the text; "text"

Rows are streamed, each is a document. The library is an extra: `pip install longspan[hf]`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from longspan.data.reader import Document, Reader
from longspan.errors import DataError, did_you_mean

FORMATS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet", ".txt": "text"}


@dataclass(frozen=True)
class HF(Reader, name="hf"):
    """Documents are rows, named `split/00000000`, counted from 0. They can be read once."""

    def documents(self) -> Iterator[Document]:
        path, _, column = self.path.partition("#")
        path, _, split = path.partition("@")
        column = column or "text"
        if not path:
            raise DataError(
                f"hf:{self.path}: name a dataset after the prefix, such as hf:owner/name"
            )
        rows, split = self._rows(path, split)
        index = -1
        for index, row in enumerate(self._streamed(rows)):
            if column not in row:
                raise DataError(
                    f"hf:{self.path}: there is no column '{column}'"
                    f"{did_you_mean(column, row)}; write it after a #"
                )
            yield self._document(f"{split}/{index:08d}", row[column], column)
        if index < 0:
            raise DataError(f"hf:{self.path}: the split '{split}' has no rows")

    def _streamed(self, rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        try:
            yield from rows
        except Exception as error:  # whatever the network or the format may raise
            raise self._failed(error) from error

    def _document(self, name: str, value: Any, column: str) -> Document:
        content = value.encode() if isinstance(value, str) else value
        if not isinstance(content, bytes):
            raise DataError(
                f"hf:{self.path}: column '{column}' holds {type(value).__name__}, not text "
                f"(row {name}); write a column of text after a #"
            )
        return Document(name, lambda: content, f"hf:{self.path} row {name}", once=True)

    def _rows(self, path: str, split: str) -> tuple[Any, str]:
        splits = self._load(path)
        if split and split not in splits:
            raise DataError(
                f"hf:{self.path}: there is no split '{split}'{did_you_mean(split, splits)}"
            )
        if not split:
            if "train" not in splits and len(splits) > 1:
                names = ", ".join(splits)
                raise DataError(f"hf:{self.path}: choose a split after an @: {names}")
            split = "train" if "train" in splits else next(iter(splits))
        return splits[split], split

    def _load(self, path: str) -> dict[str, Any]:
        try:
            datasets = import_module("datasets")
        except ImportError as error:
            raise DataError(
                f"hf:{self.path}: needs the datasets library; pip install longspan[hf]"
            ) from error
        try:
            suffix = os.path.splitext(path)[1]
            if os.path.isfile(path) and suffix in FORMATS:
                return datasets.load_dataset(FORMATS[suffix], data_files=path, streaming=True)
            if os.path.exists(os.path.join(path, "dataset_dict.json")):
                return datasets.load_from_disk(path)
            if os.path.exists(os.path.join(path, "state.json")):
                return {"train": datasets.load_from_disk(path)}
            name, config = _name(path)
            try:
                return datasets.load_dataset(name, config, streaming=True)
            except datasets.exceptions.DatasetNotFoundError:
                if config or "/" not in name or os.path.exists(name):
                    raise
                return datasets.load_dataset(*name.split("/"), streaming=True)
        except Exception as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> DataError:
        reason = " ".join(str(error).split()) or type(error).__name__
        return DataError(f"hf:{self.path}: {reason[:300]}")


def _name(path: str) -> tuple[str, str | None]:
    """`owner/name/config` in two; a path on this disk and `owner/name` as they are."""
    if os.path.exists(path) or path.count("/") != 2:
        return path, None
    name, _, config = path.rpartition("/")
    return name, config
