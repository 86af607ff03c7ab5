"""A run's folder, and what can be loaded from it.

runs/NAME/
    run.yaml        the recipe, resolved: every setting, defaults and choices included
    versions.json   versions, processor, threads and seed
    tokenizer.json
    metrics.jsonl   one line every log.every steps and one an evaluation; nothing of time in it
    events/         for TensorBoard: the same, and tokens per second
    checkpoints/    the last and the best
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from longspan.config import Tree, build, read_yaml, write_yaml
from longspan.data import Codec
from longspan.errors import CheckpointError, ConfigError, DataError
from longspan.machine import choose_device, choose_dtype
from longspan.models.decoder import Decoder
from longspan.task import Answering, Learnt, Material, Task
from longspan.training.checkpoint import MODEL, best_checkpoint, last_checkpoint, load_weights
from longspan.training.recipe import read_task


@dataclass(frozen=True)
class Run:
    """A trained or imported model with what belongs to it.

    Attributes:
        path: the folder.
        config: `run.yaml` as a tree.
        task: what the model is for.
        model: in evaluation mode.
        learnt: what was learnt of its data before the model: of most tasks the tokenizer.
        checkpoint: the folder whose weights these are.
    """

    path: Path
    config: Tree = field(repr=False)
    task: Task
    model: nn.Module = field(repr=False)
    learnt: Learnt = field(repr=False)
    checkpoint: Path

    @property
    def tokenizer(self) -> Codec:
        """Text to tokens and back.

        Raises:
            ConfigError: the run reads something else, or more than that.
        """
        if not isinstance(self.learnt, Codec):
            raise ConfigError(f"{self.path} is a run of {self.task.name}, not of text alone")
        return self.learnt

    @property
    def language_model(self) -> Decoder:
        """The model, where it is one.

        Raises:
            ConfigError: this is a run of another task.
        """
        if not isinstance(self.model, Decoder):
            raise ConfigError(
                f"{self.path} is a run of {self.task.name}, and this is for language models; "
                "`longspan evaluate` and `longspan predict` take it"
            )
        return self.model

    @property
    def fingerprint(self) -> str:
        """sha256 of the weights, the model's config and the tokenizer: whose state a state is."""
        digest = hashlib.sha256()
        with open(self.checkpoint / MODEL, "rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        digest.update(json.dumps(self.config["model"], sort_keys=True).encode())
        digest.update(self.learnt.fingerprint.encode())
        return digest.hexdigest()


def read_run_config(path: Path) -> Tree:
    """The tree of `run.yaml` in a run's folder.

    Raises:
        CheckpointError: this is no run.
    """
    file = path / "run.yaml"
    if not file.is_file():
        what = "is no run (it has no run.yaml)" if path.is_dir() else "does not exist"
        raise CheckpointError(f"{path} {what}; `longspan train` or `longspan import` makes runs")
    try:
        return read_yaml(file.read_text(encoding="utf-8"), str(file))
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from error


def load(
    path: str | os.PathLike[str],
    *,
    checkpoint: str = "best",
    device: str = "auto",
    dtype: str = "auto",
) -> Run:
    """Loads a run for evaluation.

    Args:
        path: its folder.
        checkpoint: "best" (on held-out data) or "last".
        device: "auto", "cpu", "cuda".
        dtype: "auto" (what it was trained in), "float32", "bfloat16", "float64".

    Raises:
        CheckpointError: no run, no checkpoint yet, or a damaged one.
    """
    path = Path(path)
    config = read_run_config(path)
    source = f"{path / 'run.yaml'}"
    task = read_task(config, source)
    model_config = build(task.model(config.get("model")), config.get("model"), source)
    learnt = task.learnt(path)
    if checkpoint not in ("best", "last"):
        raise ConfigError(f"checkpoint must be 'best' or 'last', not {checkpoint!r}")
    find = best_checkpoint if checkpoint == "best" else last_checkpoint
    folder = find(path / "checkpoints")
    if folder is None:
        raise CheckpointError(
            f"{path} has no checkpoint yet; `longspan train {path} --resume` goes on"
        )
    model = task.build(model_config, learnt)
    load_weights(model, folder / MODEL)
    where = choose_device(device)
    trained_in = (config.get("train") or {}).get("dtype", "float32")
    kind = choose_dtype(trained_in if dtype == "auto" else dtype, where)
    model.to(device=where, dtype=kind).eval()
    return Run(path, config, task, model.requires_grad_(False), learnt, folder)


def own_data(run: Run) -> Material:
    """The data that a run was trained, validated and is to be tested on.

    Raises:
        ConfigError: it was imported and has none.
        DataError: they are gone, or nothing was left to test on.
    """
    splits = run.task.prepare(section(run), run.learnt)
    if not len(splits.test):
        raise DataError(
            f"{run.path / 'run.yaml'} leaves nothing to test on: data.test is 0; name some (--data)"
        )
    return splits


def fitted(run: Run, task: Answering) -> Answering:
    """The task with what the run's own validation data choose, if they choose anything."""
    if not task.fits:
        return task
    return task.fitted(run.model, task.prepare(section(run), run.learnt).valid)


def section(run: Run) -> Any:
    """The section `data` that a run was trained on.

    Raises:
        ConfigError: it was imported and has none.
    """
    if "data" not in run.config:
        raise ConfigError(f"{run.path} was imported and has no data of its own; name some (--data)")
    return build(run.task.data, run.config["data"], str(run.path / "run.yaml"))


def write_json(path: Path, value: Any) -> None:
    """Writes JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes a file, whole or not at all."""
    part = path.with_name(f".part-{path.name}")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def write_config(path: Path, tree: Tree) -> None:
    """Writes `run.yaml` into a run's folder."""
    write_text(path / "run.yaml", write_yaml(tree))
