"""A folder in Hugging Face's layout: config.json and model.safetensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from longspan.errors import CheckpointError
from longspan.training.checkpoint import read_tensors


def read_json(path: Path) -> dict[str, Any]:
    """The object of a JSON file.

    Raises:
        CheckpointError: it cannot be read, or is none.
    """
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read ({error.strerror}); name a Hugging Face folder"
        ) from error
    except ValueError as error:
        raise CheckpointError(f"{path} is no JSON ({error})") from error
    if not isinstance(tree, dict):
        raise CheckpointError(f"{path} is no JSON object")
    return tree


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The tensors of model.safetensors.

    Raises:
        CheckpointError: they are missing or damaged, or there is only a pickle.
    """
    weights = folder / "model.safetensors"
    if not weights.is_file() and (folder / "pytorch_model.bin").is_file():
        raise CheckpointError(
            f"{folder} has its weights in pytorch_model.bin, a pickle, which is never read; save "
            "them with save_pretrained(…, safe_serialization=True)"
        )
    return read_tensors(weights)
