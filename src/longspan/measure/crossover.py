"""From which length on a layer is faster than plain attention, measured on this machine.

A method of linear cost has a price of its own: below some length plain attention is faster. One
layer is timed alone, forward and backward over a call of n tokens from an empty state, beside
softmax attention over all pairs of the same width and heads. Where a memory writes at the end of a
segment the call is given as a model gives it, segment by segment, and the gradient goes back
through all of them; a memory that wraps a model is put around the one layer.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from longspan.memories.cache import Cache
from longspan.mixers.softmax import Attention, Softmax
from longspan.mixing import Layer, Mixer, Mixing
from longspan.models.stack import StackConfig
from longspan.patterns.causal import Causal
from longspan.positions.none import NoPosition
from longspan.slots import Memory, Places, Wrapping
from longspan.state import Carried

LENGTHS = tuple(2**power for power in range(7, 14))


@dataclass(frozen=True)
class Duel:
    """What was measured of one kind of layer.

    Attributes:
        layers: numbers of the layers of this kind.
        mixer: its name, with what its slots are called if it takes them.
        plain: whether it is plain attention itself.
        times: (length, seconds of plain attention, seconds of this layer), medians, rising.
    """

    layers: tuple[int, ...]
    mixer: str
    plain: bool
    times: tuple[tuple[int, float, float], ...]

    @property
    def crossover(self) -> int | None:
        """Tokens from which on it is the faster one; None if it is not at the longest measured.

        Between two measured lengths the logarithm of the ratio is taken for a straight line.
        """
        ratios = [(length, math.log(own / plain)) for length, plain, own in self.times]
        if not ratios or ratios[-1][1] >= 0:
            return None
        for (low, above), (high, below) in zip(ratios[-2::-1], ratios[:0:-1], strict=True):
            if above >= 0:
                share = above / (above - below)
                return round(math.exp(math.log(low) + share * math.log(high / low)))
        return ratios[0][0]


def duels(
    config: StackConfig,
    *,
    dtype: torch.dtype = torch.float32,
    lengths: Sequence[int] = LENGTHS,
    seconds: float = 2.0,
    rounds: int = 3,
    told: Callable[[int], object] = lambda length: None,
) -> list[Duel]:
    """Measures every kind of layer of a stack, in turn with plain attention.

    Args:
        config: of the stack.
        dtype: of weights and input.
        lengths: tokens of the calls, rising.
        seconds: no longer call is tried after one that took longer.
        rounds: of which the medians are taken.
        told: called with each length before it is measured.
    """
    kinds: dict[tuple[Mixer, Layer], list[int]] = {}
    for index, (mixer, layer, _) in enumerate(config.inside().each_layer()):
        kinds.setdefault((mixer, layer), []).append(index)
    result = []
    for (mixer, layer), layers in kinds.items():
        plain = is_plain(mixer, layer)
        times = []
        for length in () if plain else lengths:
            told(length)
            against = replace(layer, position=NoPosition(), pattern=Causal(), memory=Cache())
            rival, own = built(Softmax(), against, dtype), built(mixer, layer, dtype)
            around = wrapping(config, dtype)
            taken = [(timed(rival, length), timed(own, length, around)) for _ in range(rounds)]
            medians = [statistics.median(column) for column in zip(*taken, strict=True)]
            times.append((length, medians[0], medians[1]))
            if max(medians) > seconds:
                break
        memory = config.memory if config.wrapped else layer.memory
        result.append(Duel(tuple(layers), _named(mixer, layer, memory), plain, tuple(times)))
    return result


def is_plain(mixer: Mixer, layer: Layer) -> bool:
    """Whether a layer is softmax attention in which every token sees all before it."""
    return mixer.slots and layer.pattern.reach is None and layer.pattern.name == Causal.name


def built(mixer: Mixer, layer: Layer, dtype: torch.dtype) -> Mixing:
    """A layer alone, as it evaluates."""
    return mixer.build(layer).to(dtype).eval()


def wrapping(config: StackConfig, dtype: torch.dtype) -> Wrapping | None:
    """What a stack's memory puts around a model, as it evaluates; None if it wraps none."""
    if not config.wrapped:
        return None
    return config.memory.wrap(config.width, config.segment).to(dtype).eval()


def timed(mixing: Mixing, length: int, around: Wrapping | None = None) -> float:
    """Seconds of `length` tokens from an empty state, forward and backward.

    Args:
        mixing: a layer.
        length: of the call.
        around: what a memory puts around the layer, if it wraps models.
    """
    weight = mixing.o.weight
    x = torch.randn(1, length, mixing.dim, device=weight.device).to(weight.dtype).requires_grad_()
    begun = time.perf_counter()
    answers, _ = passed(mixing, x, around)
    torch.stack([y.sum() for y in answers]).sum().backward()
    if x.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def passed(
    mixing: Mixing, x: Tensor, around: Wrapping | None = None
) -> tuple[list[Tensor], Carried]:
    """Gives a layer alone what a model in evaluation would give it.

    Args:
        mixing: a layer.
        x: (1, n, C).
        around: what a memory puts around the layer, if it wraps models.

    Returns:
        (1, t, C) for each piece, which is a segment where a memory writes at its end and else all
        of `x`; and what the layer, or the memory around it, carries after them.
    """
    piece = x.shape[1]
    if around is not None:
        piece = around.segment
    elif isinstance(mixing, Attention) and mixing.memory.folds:
        piece = mixing.pattern.segment
    clock = torch.zeros(1, dtype=torch.long, device=x.device)
    carried, answers = mixing.begin(1, x), []
    outer = None if around is None else around.start(1, x)
    for read in x.split(piece, 1):
        places, clock = Places.of(clock, read.shape[1])
        if around is None:
            y, carried = mixing.mix(read, carried, places, mixing.pairs(carried, places))
        else:
            inner, inside, frame = around.enter(read, outer, places)
            y, carried = mixing.mix(inner, carried, inside, mixing.pairs(carried, inside))
            y, outer = around.leave(y, outer, frame)
        answers.append(y)
    return answers, carried if outer is None else outer


def _named(mixer: Mixer, layer: Layer, memory: Memory) -> str:
    if not mixer.slots:
        return mixer.name
    return f"{mixer.name} ({layer.position.name}, {layer.pattern.name}, {memory.name})"
