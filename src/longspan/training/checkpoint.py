"""Checkpoints: safetensors and JSON, written whole or not at all.

    RUN/checkpoints/step-00000500/
        model.safetensors      the weights (float32)
        optimizer.safetensors  its moments and the random generators
        memory.safetensors     the state of every lane
        trainer.json           step, best loss, where metrics.jsonl ended

A checkpoint is built under a name that nobody reads and renamed when it is on the disk, so that a
process killed at any moment leaves complete checkpoints only. Of all, the last and the best stay.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from longspan.errors import CheckpointError, StateError
from longspan.state import State

PREFIX = "step-"
KEPT = {"step", "tokens", "best", "best_step", "metrics", "losses", "norms"}
"""What `trainer.json` says at least."""


def save_checkpoint(
    folder: Path,
    step: int,
    weights: Mapping[str, Tensor],
    optimizer: Mapping[str, Tensor],
    state: State | None,
    trainer: Mapping[str, Any],
) -> Path:
    """Writes one checkpoint under `folder` and removes those that are neither last nor best.

    Raises:
        CheckpointError: it could not be written (a full disk); older ones are as they were.
    """
    name = f"{PREFIX}{step:08d}"
    final, part = folder / name, folder / f".part-{name}"
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        save_file({n: t.detach().contiguous() for n, t in weights.items()}, part / MODEL)
        save_file({n: t.contiguous() for n, t in optimizer.items()}, part / "optimizer.safetensors")
        if state is not None:
            state.save(part / "memory.safetensors")
        text = json.dumps({"format": 1, **trainer}, indent=1)
        (part / "trainer.json").write_text(text, encoding="utf-8")
        for file in part.iterdir():
            _sync(file)
        _sync(part)
        if final.exists():
            shutil.rmtree(final)
        part.rename(final)
        _sync(folder)
    except (OSError, SafetensorError, StateError) as error:
        shutil.rmtree(part, ignore_errors=True)
        raise CheckpointError(
            f"{folder}: the checkpoint of step {step} could not be written ({error}); "
            "free some space and go on with --resume"
        ) from error
    keep = {name}
    if trainer["best_step"]:
        keep.add(f"{PREFIX}{trainer['best_step']:08d}")
    for other in folder.iterdir():
        if other.name not in keep:
            shutil.rmtree(other, ignore_errors=True)
    return final


MODEL = "model.safetensors"


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def last_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint under `folder`, if there is one."""
    found = sorted(folder.glob(f"{PREFIX}*")) if folder.is_dir() else []
    return found[-1] if found else None


def best_checkpoint(folder: Path) -> Path | None:
    """The checkpoint with the best held-out loss; the last one if none was evaluated."""
    last = last_checkpoint(folder)
    if last is None:
        return None
    step = read_trainer(last)["best_step"]
    best = folder / f"{PREFIX}{step:08d}"
    return best if step and best.is_dir() else last


def read_trainer(checkpoint: Path) -> dict[str, Any]:
    """What `trainer.json` of a checkpoint says.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    path = checkpoint / "trainer.json"
    try:
        trainer = json.loads(path.read_text(encoding="utf-8"))
        if missing := KEPT - set(trainer):
            raise ValueError(f"it lacks {', '.join(sorted(missing))}")
        return trainer
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); remove {checkpoint}") from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        CheckpointError: it is missing, truncated or no safetensors.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} is missing or damaged ({error})") from error


def load_weights(model: torch.nn.Module, path: Path) -> None:
    """Copies the weights in `path` into `model`.

    Raises:
        CheckpointError: a tensor is missing, unknown or of another shape; it names all of them.
    """
    tensors = read_tensors(path)
    own = dict(model.named_parameters()) | dict(model.named_buffers())
    problems = [f"{name} is missing" for name in own if name not in tensors]
    problems += [f"{name} is unknown" for name in tensors if name not in own]
    problems += [
        f"{name} is {tuple(tensors[name].shape)}, not {tuple(target.shape)}"
        for name, target in own.items()
        if name in tensors and tensors[name].shape != target.shape
    ]
    if problems:
        raise CheckpointError(f"{path} does not fit its run.yaml: " + "; ".join(problems[:8]))
    with torch.no_grad():
        for name, target in own.items():
            target.copy_(tensors[name])
