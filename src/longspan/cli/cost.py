"""`longspan cost`."""

from __future__ import annotations

from pathlib import Path

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
    changes, folder = parse(settings), Path(recipe)
    if (folder / FILE).is_file():
        model, size = read_model(recipe, changes), Codec.load(folder).size
    else:
        chosen = read_recipe(recipe, changes)
        model, size = chosen.model, chosen.data.tokenizer.expected_size
        if not (vocabulary or size):
            raise ConfigError(
                f"the data decide how many tokens the tokenizer '{chosen.data.tokenizer.name}' "
                "has; say how many with --vocabulary"
            )
    kind = DTYPES["float32" if dtype == "auto" else dtype]
    result = count(model, vocabulary or size or 0, dtype=kind)
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
