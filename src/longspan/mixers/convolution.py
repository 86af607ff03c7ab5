"""Depthwise separable convolution over time (1610.02357; over text, 1901.10430, section 2).

    y_t = O Σ_j w_j ⊙ x_(t - K + 1 + j),   j = 0 … K - 1

Every channel has K weights of its own, then a linear map mixes the channels, with no non-linearity
between (1610.02357, section 4.7). The lightweight convolution of 1901.10430 goes further: it shares
the weights among channels, normalises them by a softmax, and gates the input first. None of this is
done here; the block's feed-forward network is the non-linearity.

With a pattern that looks both ways the window is centred: ⌊(K - 1) / 2⌋ tokens before and ⌊K / 2⌋
after, as torch's padding "same" has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from longspan.errors import ConfigError
from longspan.mixing import Layer, Mixer, Mixing, Nothing
from longspan.slots import Pairs, Places
from longspan.state import Carried, push


@dataclass(frozen=True)
class Inputs(Carried, kind="inputs"):
    """What a convolution read last.

    Attributes:
        x: (B, K - 1, C), the newest last; zeros before a document.
    """

    x: Tensor

    def reset(self, rows: Tensor) -> Inputs:
        return Inputs(self.x.masked_fill(rows[:, None, None], 0.0))


class DepthwiseSeparable(Mixing):
    """A convolution in one layer.

    Args:
        dim: C.
        width: K, tokens that an answer is made from.
        both: the window is centred instead of ending with its token.
        norm: normalises what it reads.
    """

    def __init__(self, dim: int, width: int, both: bool, norm: nn.Module | None = None) -> None:
        super().__init__(dim, norm)
        self.both = both
        self.back = (width - 1) // 2 if both else width - 1
        self.ahead = width - 1 - self.back
        self.each = nn.Conv1d(dim, dim, width, groups=dim, bias=False)
        self.o = nn.Linear(dim, dim, bias=False)

    def begin(self, batch: int, like: Tensor) -> Carried:
        return Nothing() if self.both else Inputs(like.new_zeros(batch, self.back, self.dim))

    def fits(self, carried: Carried) -> bool:
        if self.both:
            return isinstance(carried, Nothing)
        return isinstance(carried, Inputs) and carried.x.shape[1:] == (self.back, self.dim)

    def begun(self, layer: int) -> None:
        nn.init.normal_(self.each.weight, std=(self.back + 1 + self.ahead) ** -0.5)

    def mix(
        self, x: Tensor, carried: Carried, places: Places, pairs: Pairs | None
    ) -> tuple[Tensor, Carried]:
        read = self.read(x)
        if places.valid is not None:
            read = read.masked_fill(~places.valid[:, :, None], 0.0)
        before = read.new_zeros(len(read), self.back, self.dim)
        past = carried.x if isinstance(carried, Inputs) else before
        window = torch.cat([past, read, read.new_zeros(len(read), self.ahead, self.dim)], 1)
        y = self._together(window) if places.doc is None else self._apart(window, places.doc)
        if isinstance(carried, Inputs):
            carried = self._after(past, read, places)
        return self.o(y), carried

    def _together(self, window: Tensor) -> Tensor:
        return self.each(window.transpose(1, 2)).transpose(1, 2)

    def _apart(self, window: Tensor, doc: Tensor) -> Tensor:
        """As `_together`, one weight after another, so that no document meets another."""
        length = doc.shape[1]
        docs = torch.cat([doc.new_zeros(doc.shape[0], self.back), doc], 1)
        docs = torch.cat([docs, doc.new_full((doc.shape[0], self.ahead), -1)], 1)
        y = torch.zeros_like(window[:, :length])
        for place, weight in enumerate(self.each.weight[:, 0].unbind(1)):
            same = docs[:, place : place + length] == doc
            y = y + weight * window[:, place : place + length] * same[:, :, None]
        return y

    def _after(self, past: Tensor, read: Tensor, places: Places) -> Inputs:
        if places.doc is not None:
            newest = places.doc[:, -1:]
            past = past.masked_fill((newest > 0)[:, :, None], 0.0)
            read = read.masked_fill((places.doc < newest)[:, :, None], 0.0)
        return Inputs(push(past, read, places.counts, self.back))


@dataclass(frozen=True)
class Convolution(Mixer, name="convolution"):
    """A depthwise convolution and a linear map.

    Attributes:
        width: K, tokens that an answer is made from, its own among them.
    """

    bidirectional: ClassVar[bool] = True

    width: int = 4

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ConfigError(f"mixer.width must be 1 or more, not {self.width}")

    def build(self, layer: Layer) -> DepthwiseSeparable:
        return DepthwiseSeparable(layer.width, self.width, not layer.pattern.causal, layer.norm)
