"""Parquet files, through pyarrow: columns with types, read a block of rows at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from longspan.data.disk import near
from longspan.data.table import Row, Table, fields
from longspan.errors import DataError

BLOCK = 1024
"""Rows that are read at once."""


@dataclass(frozen=True)
class Parquet(Table, name="parquet"):
    """Fields are columns, or have dotted names where columns hold structures. Rows are counted
    from 0.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".parquet",)
    unit: ClassVar[str] = "row"

    def rows(self, names: Sequence[str]) -> Iterator[Row]:
        file = self._file()
        number = 0
        for batch in file.iter_batches(BLOCK):
            for record in batch.to_pylist():
                yield number, fields(record, names, self.place(number))
                number += 1
        if not number:
            raise DataError(f"{self.path}: there are no rows")

    def _file(self) -> Any:
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError as error:
            raise DataError(
                f"{self.path}: needs the library pyarrow; pip install 'longspan[parquet]'"
            ) from error
        path = os.path.expanduser(self.path)
        if not os.path.lexists(path):
            raise DataError(f"{self.path}: there is no such file{near(path)}")
        try:
            return parquet.ParquetFile(path)
        except (OSError, pyarrow.ArrowException) as error:
            raise DataError(f"{self.path}: is no sound Parquet file ({error})") from error
