"""Results of runs beside the differences of their recipes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from longspan.config import Tree
from longspan.errors import CheckpointError, ConfigError
from longspan.training.checkpoint import last_checkpoint, read_trainer
from longspan.training.run import read_run_config


def compare(runs: list[Path]) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
    """Results by name, and settings that differ by dotted key; a value a run in both.

    Raises:
        ConfigError: no run is named.
        CheckpointError: a folder is no run.
    """
    if not runs:
        raise ConfigError("name at least one run")
    trees = [_flat(read_run_config(run)) for run in runs]
    keys = dict.fromkeys(key for tree in trees for key in tree)
    settings = {
        key: [tree.get(key) for tree in trees]
        for key in keys
        if key != "run" and any(tree.get(key) != trees[0].get(key) for tree in trees)
    }
    facts = [_facts(run) for run in runs]
    names = dict.fromkeys(name for fact in facts for name in fact)
    return {name: [fact.get(name) for fact in facts] for name in names}, settings


def _facts(run: Path) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    checkpoint = last_checkpoint(run / "checkpoints")
    if checkpoint is not None:
        trainer = read_trainer(checkpoint)
        facts["best held-out bits/byte"] = trainer["best"]
        facts["at step"] = trainer["best_step"] or None
        facts["steps"] = trainer["step"]
        facts["tokens seen"] = trainer["tokens"]
    speed = run / "speed.json"
    if speed.is_file():
        try:
            facts["tokens/s"] = json.loads(speed.read_text(encoding="utf-8"))["tokens_per_second"]
        except (ValueError, KeyError, OSError) as error:
            raise CheckpointError(f"{speed} cannot be read ({error}); remove it") from error
    return facts


def _flat(tree: Tree, prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        dotted = f"{prefix}{key}"
        flat |= _flat(value, f"{dotted}.") if isinstance(value, dict) else {dotted: value}
    return flat
