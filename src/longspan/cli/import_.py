"""`longspan import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from longspan.interop.transfo_xl import import_run


def import_(
    path: Path, /, *, to: Annotated[Path, Parameter(name="--to")], segment: int | None = None
) -> None:
    """Turn another library's checkpoint into a run that all verbs accept.

    Parameters
    ----------
    path
        A Hugging Face folder in the TransfoXL layout: config.json and model.safetensors.
    to
        The run's folder to write.
    segment
        Tokens a segment (tgt_len); as config.json says, else 128.
    """
    print(import_run(path, to, segment=segment))
