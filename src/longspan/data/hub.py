"""Datasets of the Hugging Face Hub, or on this disk, row by row.

The library is an extra: `pip install longspan[hf]`. Whatever it raises becomes a DataError.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from importlib import import_module
from typing import Any

from longspan.errors import DataError, did_you_mean

FORMATS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet", ".txt": "text"}


def rows(path: str, split: str, shown: str) -> tuple[Any, str]:
    """The rows of a split, as often as they are asked for, and the split's name.

    Args:
        path: `owner/name`, with `/config` or not, or a path on this disk.
        split: "" for "train" if there is one, else the only one.
        shown: what an error calls all this.

    Raises:
        DataError: there is no such dataset or split, or the library is missing.
    """
    if not path:
        raise DataError(f"{shown}: name a dataset after the prefix, such as hf:owner/name")
    splits = _load(path, shown)
    if split and split not in splits:
        raise DataError(f"{shown}: there is no split '{split}'{did_you_mean(split, splits)}")
    if not split:
        if "train" not in splits and len(splits) > 1:
            names = ", ".join(splits)
            raise DataError(f"{shown}: choose a split after an @: {names}")
        split = "train" if "train" in splits else next(iter(splits))
    return splits[split], split


def streamed(rows: Iterable[dict[str, Any]], shown: str) -> Iterator[dict[str, Any]]:
    """Row by row.

    Raises:
        DataError: whatever the network or the format may raise.
    """
    try:
        yield from rows
    except Exception as error:
        raise _failed(error, shown) from error


def _load(path: str, shown: str) -> dict[str, Any]:
    try:
        datasets = import_module("datasets")
    except ImportError as error:
        raise DataError(f"{shown}: needs the datasets library; pip install longspan[hf]") from error
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
        raise _failed(error, shown) from error


def _failed(error: Exception, shown: str) -> DataError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return DataError(f"{shown}: {reason[:300]}")


def _name(path: str) -> tuple[str, str | None]:
    """`owner/name/config` in two; a path on this disk and `owner/name` as they are."""
    if os.path.exists(path) or path.count("/") != 2:
        return path, None
    name, _, config = path.rpartition("/")
    return name, config
