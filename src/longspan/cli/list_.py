"""`longspan list`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table as Drawn

from longspan.comparing import Score
from longspan.compat import (
    agreeing,
    examples,
    memory_conflicts,
    score_conflicts,
    slot_conflicts,
)
from longspan.data.input import Input
from longspan.data.labelled.collection import Collection
from longspan.data.reader import Reader
from longspan.data.spans.form import Form
from longspan.data.table import Table
from longspan.data.tokenizer import Tokenizer
from longspan.decoding.search import Filter, Strategy
from longspan.errors import Conflict
from longspan.memories.cache import Cache
from longspan.memories.none import NoMemory
from longspan.mixing import Mixer
from longspan.patterns.causal import Causal
from longspan.positions.none import NoPosition
from longspan.registry import Component
from longspan.slots import Kernel, Memory, Pattern, Position
from longspan.task import Task
from longspan.training.recipe import recipe_names, recipe_text

KINDS = (
    Task,
    Mixer,
    Position,
    Pattern,
    Memory,
    Score,
    Kernel,
    Tokenizer,
    Reader,
    Table,
    Form,
    Collection,
    Input,
    Strategy,
    Filter,
)


def list_(*, matrix: bool = False) -> None:
    """List what a recipe can name: components by kind, with their settings, and recipes.

    Parameters
    ----------
    matrix
        Say instead what goes with what, and which rule is against it.
    """
    console = Console()
    if matrix:
        # a name that is cut short could not be read
        _matrices(Console(width=max(console.width, 120)))
        return
    for kind in KINDS:
        table = Drawn(title=kind.kind, title_justify="left", box=None, padding=(0, 2, 0, 0))
        for column in ("name", "settings", "what it is"):
            table.add_column(column, overflow="fold")
        for name, member in kind.all().items():
            # brackets are the text's own, no markup
            table.add_row(name, escape(_settings(member)), escape(_first_line(member)))
        console.print(table)
        console.print()
    table = Drawn(title="recipe", title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("name")
    table.add_column("what it is")
    for name in recipe_names():
        table.add_row(name, recipe_text(name).splitlines()[0].lstrip("# "))
    console.print(table)


def _matrices(console: Console) -> None:
    patterns, memories = examples(Pattern), examples(Memory)
    positions, kernels = examples(Position), examples(Kernel)

    def meet(pattern: Pattern, memory: Memory) -> list[Conflict]:
        # one that wraps the model is not refused for being no layer's
        return memory_conflicts(*agreeing(pattern, memory))

    def run(position: Position, kernel: Kernel) -> list[Conflict]:
        layer = position if position.enters == "scores" else NoPosition()
        return slot_conflicts(layer, Causal(), Cache(), kernel)

    def tile(pattern: Pattern, kernel: Kernel) -> list[Conflict]:
        return slot_conflicts(NoPosition(), pattern, NoMemory(), kernel, exact=False)

    console.print(_matrix("pattern", patterns, "memory", memories, meet))
    console.print(_matrix("score", examples(Score), "position", positions, score_conflicts))
    console.print(_matrix("position", positions, "kernel", kernels, run))
    console.print(_matrix("pattern", patterns, "kernel", kernels, tile))
    console.print(_mixers())
    console.print(
        "Lengths agree: a memory keeps what the pattern reaches, where it can. Every position goes "
        "with every pattern and memory. Positions at the input and the memory 'tokens' enter a "
        "model, not a layer.",
        style="dim",
        highlight=False,
    )


def _mixers() -> Drawn:
    table = Drawn(title="mixer by form", title_justify="left")
    for name in ("mixer", "causal", "both ways", "the four slots"):
        table.add_column(name)
    for name, mixer in Mixer.all().items():
        has = (mixer.causal, mixer.bidirectional, mixer.slots)
        table.add_row(name, *("yes" if trait else "no" for trait in has))
    return table


def _matrix(
    row: str,
    rows: Sequence[Any],
    column: str,
    columns: Sequence[Any],
    conflicts: Callable[[Any, Any], list[Conflict]],
) -> Drawn:
    table = Drawn(title=f"{row} by {column}", title_justify="left")
    for name in (row, *(c.name for c in columns)):
        table.add_column(name)
    for r in rows:
        against = [[conflict.rule for conflict in conflicts(r, c)] for c in columns]
        table.add_row(r.name, *(", ".join(rules) or "yes" for rules in against))
    return table


def _settings(member: type[Any]) -> str:
    words = []
    for f in fields(member):
        value = f.default if f.default_factory is MISSING else f.default_factory()
        shown = value.name if isinstance(value, Component) else value
        words.append(f.name if value is MISSING else f"{f.name}={shown}")
    return ", ".join(words) or "-"


def _first_line(member: type[Any]) -> str:
    module = inspect.getmodule(member)
    text = (module.__doc__ if module else None) or member.__doc__ or ""
    return " ".join(text.strip().split("\n\n")[0].split())
