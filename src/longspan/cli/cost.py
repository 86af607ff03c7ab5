"""`longspan cost`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from longspan.cli.options import DType
from longspan.cli.settings import Settings, parse
from longspan.data.tokenizer import FILE, Codec
from longspan.errors import ConfigError
from longspan.machine import DTYPES, hardware
from longspan.measure.cost import cost as count
from longspan.measure.cost import met
from longspan.measure.crossover import duels
from longspan.models.decoder import DecoderConfig
from longspan.training.recipe import is_imported, read_model, read_recipe


def cost(
    recipe: str,
    /,
    *settings: Settings,
    vocabulary: int = 0,
    dtype: DType = "float32",
    measure: bool = False,
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
    measure
        Time each kind of layer here, beside plain attention, and say from which length it pays.
    """
    changes, folder = parse(settings), Path(recipe)
    if (folder / FILE).is_file():
        model = _decoder(read_model(recipe, changes), recipe)
        size = Codec.load(folder).size
        train = None if is_imported(recipe) else read_recipe(recipe, changes).train
    else:
        chosen = read_recipe(recipe, changes)
        model, train = _decoder(chosen.model, recipe), chosen.train
        size = chosen.data.tokenizer.expected_size
        if not (vocabulary or size):
            raise ConfigError(
                f"the data decide how many tokens the tokenizer '{chosen.data.tokenizer.name}' "
                "has; say how many with --vocabulary"
            )
    call = (train.segment if train else None) or model.segment
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
    for pattern in {layer.pattern: None for mixer, layer, _ in model.each_layer() if mixer.slots}:
        console.print(f"pattern {pattern.name}: {met(pattern)}", highlight=False)
    console.print(
        "FLOPs: forward, matrix products only, read a segment at a time; a training step costs "
        "about three times as much a token.\nBytes: weights and state read when tokens come one "
        "at a time.",
        highlight=False,
        style="dim",
    )
    if measure:
        _measure(console, model, kind, call)


def _measure(console: Console, model: DecoderConfig, dtype: torch.dtype, call: int) -> None:
    """Prints how long each kind of layer takes beside plain attention, and warns where it loses."""
    with console.status("timing a layer") as status:
        measured = duels(
            model, dtype=dtype, told=lambda n: status.update(f"timing a layer of {n:,} tokens")
        )
    console.print(f"\n{hardware(torch.device('cpu'))}, {torch.get_num_threads()} threads")
    for duel in measured:
        where = f"layers {', '.join(map(str, duel.layers))}: {duel.mixer}"
        if duel.plain:
            console.print(f"{where} is plain attention itself", highlight=False)
            continue
        console.print(f"{where}, forward and backward", highlight=False)
        table = Table()
        for name in ("tokens a call", "plain attention", "this layer", "this / plain"):
            table.add_column(name, justify="right")
        for length, plain, own in duel.times:
            cells = (f"{plain * 1e3:,.1f} ms", f"{own * 1e3:,.1f} ms", f"{own / plain:.2f}")
            table.add_row(f"{length:,}", *cells)
        console.print(table)
        longest, crossover = duel.times[-1][0], duel.crossover
        if crossover is None:
            said = f"plain attention is the faster one up to {longest:,} tokens"
        else:
            said = f"this layer is the faster one from about {crossover:,} tokens on"
        console.print(said, highlight=False)
        if crossover is None or call < crossover:
            console.print(
                f"warning: training gives it {call:,} tokens a call, where plain attention is the "
                "faster one on this machine; choose it for what it carries on, not for speed, or "
                "give it longer calls",
                highlight=False,
                style="yellow",
            )


def _decoder(model: Any, recipe: str) -> DecoderConfig:
    if not isinstance(model, DecoderConfig):
        raise ConfigError(f"{recipe} has more than a decoder, and cost counts decoders alone")
    return model
