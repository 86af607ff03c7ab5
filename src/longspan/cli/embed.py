"""`longspan embed`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from cyclopts import Parameter
from numpy.typing import NDArray

from longspan.cli.bar import counter
from longspan.cli.options import Checkpoint, Device, DType, Threads, open_run
from longspan.data.input import Input
from longspan.data.labelled.contents import contents
from longspan.data.labelled.item import Item
from longspan.data.labelled.reading import Reading
from longspan.errors import ConfigError, DataError
from longspan.measure.embedding import embed as vectors
from longspan.task import Answering
from longspan.training.run import Run, section

ENDINGS = (".npy", ".parquet")


def embed(
    run: str,
    path: Annotated[str, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    out: Path,
    field: str | None = None,
    checkpoint: Checkpoint = "best",
    device: Device = "auto",
    dtype: DType = "auto",
    threads: Threads = 0,
) -> None:
    """Write a vector of each input: the mean of the model's last hidden states, in float32.

    Parameters
    ----------
    run
        A run's folder, of any task.
    path
        What to read: a text file with a text a line, a table, a folder of files, or - for lines of
        standard input.
    out
        A .npy file of N rows, one an input in their order; or a .parquet file with the columns
        input and vector.
    field
        The column of a table that is read; what the run was trained on, or text, if not said.
    """
    if out.suffix not in ENDINGS:
        raise ConfigError(f"--out must end in {' or '.join(ENDINGS)}, not {str(out)!r}")
    if out.suffix == ".parquet":
        _pyarrow()
    loaded = open_run(run, checkpoint, device, dtype, threads)
    items = list(contents(path, field or _field(loaded), _files(loaded)))
    with counter() as progress:
        row = progress.add_task("embedding", total=len(items))
        found = vectors(
            loaded, items, first=_first(loaded), advance=lambda count: progress.advance(row, count)
        )
    try:
        if out.suffix == ".npy":
            with open(out, "wb") as file:
                np.save(file, found)
        else:
            _write_parquet(out, items, found)
    except OSError as error:
        raise DataError(f"{out}: cannot be written ({error.strerror or error})") from error
    print(f"{out}: {len(found)} vectors of {found.shape[1]} numbers", file=sys.stderr)


def _field(run: Run) -> str:
    if isinstance(run.task, Answering) and "data" in run.config:
        fields = run.task.fields(section(run))
        if len(fields) == 1:
            return fields[0]
    return "text"


def _first(run: Run) -> int | None:
    return section(run).first if isinstance(run.learnt, Reading) else None


def _files(run: Run) -> bool:
    return isinstance(run.learnt, Reading) and Input.find(run.learnt.kind).files


def _write_parquet(path: Path, items: list[Item], found: NDArray[np.float32]) -> None:
    pyarrow, parquet = _pyarrow()
    names = [item.content if isinstance(item.content, str) else item.place for item in items]
    flat = pyarrow.array(found.reshape(-1))
    rows = pyarrow.FixedSizeListArray.from_arrays(flat, found.shape[1])
    parquet.write_table(pyarrow.table({"input": names, "vector": rows}), path)


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ConfigError(
            ".parquet needs the library pyarrow; pip install 'longspan[parquet]', or write .npy"
        ) from error
    return pyarrow, parquet
