"""Options that every computing verb has."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from longspan.machine import set_threads
from longspan.training.run import Run, load

Device = Annotated[str, Parameter(help="Where to compute: auto, cpu or cuda.")]
DType = Annotated[
    Literal["auto", "float32", "bfloat16", "float64"],
    Parameter(help="In what to compute; auto is what the run was trained in."),
]
Threads = Annotated[int, Parameter(help="Threads on the CPU; 0 for one a core.")]
Checkpoint = Annotated[
    Literal["best", "last"], Parameter(help="Which checkpoint: best on held-out data, or last.")
]


def open_run(path: str, checkpoint: str, device: str, dtype: str, threads: int) -> Run:
    """Loads a run as the options say."""
    set_threads(threads)
    return load(path, checkpoint=checkpoint, device=device, dtype=dtype)
