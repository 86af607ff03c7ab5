"""Which words of a source a text looked at: cross-attention as a grid.

Each row is a token of the text, each column one of the source; the darker, the more the row's token
was written from it. `Decoder.align` tells the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from longspan.errors import ConfigError, InputError
from longspan.models.cross import Alignment
from longspan.show.pictures import Picture, empty, grid

LABELLED = 60
"""Tokens of a side that are labelled one by one."""

INCHES = 0.24
"""Of a token that is labelled."""


def alignment(
    made: Alignment,
    source: Sequence[str],
    target: Sequence[str],
    *,
    row: int = 0,
    layer: int | None = None,
    head: int | None = None,
    first: int = 0,
) -> Picture:
    """The attention of a text to its source.

        logits, state, made = model.align(inputs, model.encode(source))
        alignment(made, words_of_source, words_of_text).save("alignment.svg")

    Args:
        made: what `align` gave when it read the text.
        source: words of the source's tokens, as many as it has.
        target: words of the text's tokens, each written from the attention of the place before.
        row: of the batch.
        layer, head: counted from 0; None takes the last layer, and the mean over its heads.
        first: the place whose attention is that of the first word: 0 for one start symbol.

    Raises:
        ConfigError: no such layer or head.
        InputError: no such row, or words of another number than the tokens.
    """
    weights, chosen = _weights(made, row, layer, head)
    length = int(made.valid[row].sum())
    weights = weights[first : first + len(target), :length]
    if len(source) != length:
        raise InputError(f"the source has {length} tokens, and {len(source)} words name them")
    if not target or len(weights) != len(target):
        raise InputError(
            f"the alignment has {made.weights[0].shape[2] - first} places from place {first} on, "
            f"and {len(target)} words name them"
        )
    width, height = (2.0 + INCHES * min(len(side), LABELLED) for side in (source, target))
    figure = empty(width, height)
    axes = figure.add_subplot(title=f"alignment: {chosen}", xlabel="source", ylabel="text")
    grid(figure, weights)
    _label(axes.set_xticks, source, rotation=90)
    _label(axes.set_yticks, target, rotation=0)
    share = float(weights.amax(1).mean())
    most = weights.sum(0).argmax()
    reading = (
        f"alignment, {chosen}: {len(target)} tokens about {length}; a token gives {share:.0%} of "
        f"its attention to one of the source on average, and {source[int(most)]!r} gets the most"
    )
    return Picture(figure, reading)


def _weights(made: Alignment, row: int, layer: int | None, head: int | None) -> tuple[Tensor, str]:
    """(T, S) of one row, and what they are."""
    layers, heads = len(made.weights), made.weights[0].shape[1]
    layer = layers - 1 if layer is None else layer
    if not 0 <= layer < layers:
        raise ConfigError(f"layer must be 0 to {layers - 1}, not {layer}")
    if head is not None and not 0 <= head < heads:
        raise ConfigError(f"head must be 0 to {heads - 1}, not {head}")
    if not 0 <= row < len(made.valid):
        raise InputError(f"row must be 0 to {len(made.valid) - 1}, not {row}")
    weights = made.weights[layer][row].detach().to("cpu", torch.float32)
    if head is None:
        return weights.mean(0), f"layer {layer}, mean of {heads} heads"
    return weights[head], f"layer {layer}, head {head}"


def _label(ticks: Callable[..., object], words: Sequence[str], rotation: int) -> None:
    """Words along an axis, if there is room; what ends lines or is mathematics stays as it is."""
    if len(words) <= LABELLED:
        shown = [word.strip().replace("$", r"\$") or "␣" for word in words]
        ticks(range(len(words)), shown, rotation=rotation, fontsize=8)
