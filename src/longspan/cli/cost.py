"""`longspan cost`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from longspan.cli.options import DType
from longspan.cli.settings import Settings, parse
from longspan.data.tokenizer import FILE, Codec
from longspan.errors import ConfigError
from longspan.machine import DTYPES
from longspan.measure.cost import cost as count
from longspan.training.recipe import read_model, read_recipe


def cost(
    recipe: str, /, *settings: Settings, vocabulary: int = 0, dtype: DType = "float32"
) -> None:
    """Say what a recipe costs: parameters, FLOPs and bytes a token, state a stream.

    Parameters
    ----------
    recipe
        A YAML file, a run's folder, or the name of a recipe that ships.
    settings
        Settings of the recipe: --model.width 512
    vocabulary
        Tokens in the vocabulary, where only the data would tell (tokenizer words). A run knows.
    """
    model = read_model(recipe, parse(settings))
    kind = DTYPES["float32" if dtype == "auto" else dtype]
    result = count(model, vocabulary or _size(recipe, parse(settings)), dtype=kind)
    table = Table(title=f"{recipe}: one stream, in evaluation, {str(kind).split('.')[1]}")
    for name in ("part", "parameters", "FLOPs/token", "bytes/token"):
        table.add_column(name, justify="left" if name == "part" else "right")
    for name, part in result.parts.items():
        table.add_row(name, f"{part.parameters:,}", f"{part.flops:,.0f}", f"{part.bytes:,.0f}")
    moved = sum(part.bytes for part in result.parts.values())
    table.add_section()
    table.add_row("all", f"{result.parameters:,}", f"{result.flops:,.0f}", f"{moved:,.0f}")
    console = Console()
    console.print(table)
    state = "grows with the stream" if result.state is None else f"{result.state:,} bytes"
    growth = f" by {result.growth:,} bytes a token" if result.growth else ""
    console.print(f"state of a stream: {state}{growth}", highlight=False)
    console.print(
        "FLOPs: forward, matrix products only, read a segment at a time; a training step costs "
        "about three times as much a token.\nBytes: weights and state read when tokens come one "
        "at a time.",
        highlight=False,
        style="dim",
    )


def _size(recipe: str, changes: dict[str, Any]) -> int:
    """Tokens in the vocabulary, as a run's tokenizer has them or a recipe's must have them."""
    if (Path(recipe) / FILE).is_file():
        return Codec.load(Path(recipe)).size
    tokenizer = read_recipe(recipe, changes).data.tokenizer
    if not tokenizer.expected_size:
        raise ConfigError(
            f"the data decide how many tokens the tokenizer '{tokenizer.name}' has; say how many "
            "with --vocabulary"
        )
    return tokenizer.expected_size
