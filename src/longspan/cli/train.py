"""`longspan train`."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Mapping
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from torch import nn

from longspan.cli.options import Device, DType, Threads
from longspan.cli.settings import Settings, parse
from longspan.training.loop import Watcher
from longspan.training.loop import train as run_training
from longspan.training.recipe import Recipe, read_recipe


def train(
    recipe: str,
    /,
    *settings: Settings,
    resume: bool = False,
    source: Annotated[str | None, Parameter(name="--from")] = None,
    device: Device = "auto",
    dtype: DType = "auto",
    threads: Threads = 0,
) -> None:
    """Train a model from a recipe, or go on with a run.

    Parameters
    ----------
    recipe
        A YAML file, a run's folder, or the name of a recipe that ships (`longspan list`).
    settings
        Settings of the recipe: --data.path ~/books --model.width 512 --run runs/mine
    resume
        Go on where the run in the folder stopped, bitwise as if it had not.
    source
        A run whose weights and tokenizer to begin with.
    """
    machine = {"train.device": (device, "auto"), "train.dtype": (dtype, "auto")}
    changes: dict[str, object] = {
        key: value for key, (value, default) in machine.items() if value != default
    }
    if threads:
        changes["train.threads"] = threads
    chosen = read_recipe(recipe, changes | parse(settings))
    console = Console(stderr=True)

    def show(message: object, *_: object, **__: object) -> None:
        text = f"longspan: {message}"
        console.print(text, style="yellow", highlight=False, markup=False, soft_wrap=True)

    warnings.showwarning = show  # type: ignore[assignment]
    folder = run_training(chosen, resume=resume, source=source, watcher=Bar(console))
    print(folder)


class Bar(Watcher):
    """A progress bar on a terminal; elsewhere a line now and then."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.progress: Progress | None = None
        self.task = TaskID(0)
        self.smooth: float | None = None
        self.held_out = ""
        self.unit = "token"
        self.every = 1
        self.steps = 0

    def begin(self, recipe: Recipe, model: nn.Module, step: int) -> None:
        self.steps = recipe.train.steps
        self.unit = recipe.task.unit
        self.every = max(1, self.steps // 20)
        count = sum(p.numel() for p in model.parameters())
        self.console.print(
            f"{recipe.run}: {count:,} parameters, "
            f"{recipe.task.batches(recipe.model, recipe.train)}, {recipe.train.dtype}"
            + (f", going on after step {step}" if step else ""),
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
        if not self.console.is_terminal:
            return
        self.progress = Progress(
            TextColumn("step {task.completed}/{task.total}"),
            BarColumn(),
            TextColumn("{task.fields[text]}"),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
        )
        self.progress.start()
        self.task = self.progress.add_task("train", total=self.steps, completed=step, text="")

    def step(self, step: int, loss: float, tokens_per_second: float) -> None:
        bits = loss / math.log(2)
        self.smooth = bits if self.smooth is None else 0.95 * self.smooth + 0.05 * bits
        text = (
            f"{self.smooth:.3f} bits/{self.unit}  {tokens_per_second:,.0f} tokens/s{self.held_out}"
        )
        if self.progress is not None:
            self.progress.update(self.task, completed=step, text=text)
        elif step % self.every == 0 or step == self.steps:
            print(f"step {step}/{self.steps}  {text}", file=sys.stderr, flush=True)

    def evaluated(self, step: int, scores: Mapping[str, float]) -> None:
        name, value = next(iter(scores.items()))
        self.held_out = f"  held out {value:.3f} {name.replace('_per_', '/').replace('_', ' ')}"

    def end(self) -> None:
        if self.progress is not None:
            self.progress.stop()
