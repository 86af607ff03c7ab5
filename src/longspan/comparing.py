"""A score says how a query and a key are compared, before the softmax.

Kernels know one comparison, scale q kᵀ + bias. A score says what it is in those words: what the
query is turned into before it meets keys and positions, and what is added to the product. So every
score goes with every kernel, pattern and memory.

A `Score` is the choice (a frozen dataclass with a name), a `Comparison` what it builds for one
layer, as `Position` and `Order` are.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from longspan.registry import Component
from longspan.slots import Bias, Order, Pairs


class Comparison(nn.Module):
    """A score built for one layer of attention. Products are scaled by 1/√D, whatever the score.

    Attributes:
        units: A, numbers that `ready` gives for a key and head; 0 if it gives none.
    """

    units: int = 0

    def turn(self, q: Tensor) -> Tensor:
        """Queries (B, H, T, D) as positions and keys meet them."""
        return q

    def ready(self, k: Tensor) -> Tensor | None:
        """What it makes of un-rotated keys (B, G, S, D) alone, (B, H, S, A); None if nothing."""
        return None

    def bias(self, q: Tensor, ready: Tensor | None) -> Bias | None:
        """What is added to the scaled products.

        Args:
            q: (B, H, T, D), un-rotated.
            ready: what `ready` gave for the keys.
        """
        return None

    def products(self, segment: int, keys: int) -> tuple[float, float]:
        """Multiplications a token, of projections and of scores, beside those of every attention.

        Where segments of `segment` queries meet `keys` keys each.
        """
        return 0.0, 0.0


@dataclass(frozen=True)
class Score(Component, kind="score", folder="longspan.scores"):
    """How are a query and a key compared?

    Traits:
        multiplies: queries meet keys in a product. Else only what positions add meets them there,
            and a position that turns them would not be seen.
    """

    multiplies: ClassVar[bool] = True

    @abstractmethod
    def build(self, heads: int, head_dim: int) -> Comparison:
        """The parameters and the arithmetic for one layer."""


def each_head(shared: Tensor, heads: int) -> Tensor:
    """Keys or values (B, G, S, D) that groups share, as each head sees them, (B, H, S, D)."""
    group = heads // shared.shape[1]
    return shared if group == 1 else shared.repeat_interleave(group, 1)


class Joined(Bias):
    """The sum of several biases."""

    def __init__(self, parts: Sequence[Bias]) -> None:
        self.parts = parts
        self.weighs = any(part.weighs for part in parts)

    @staticmethod
    def of(*parts: Bias | None) -> Bias | None:
        """The sum of those that are there; None if none is."""
        some = [part for part in parts if part is not None]
        return Joined(some) if len(some) > 1 else next(iter(some), None)

    def split(self, rows: int) -> Sequence[Bias]:
        each = zip(*(part.split(rows) for part in self.parts), strict=True)
        return [Joined(parts) for parts in each]

    def head(self, head: int) -> Tensor:
        first, *rest = (part.head(head) for part in self.parts)
        return sum(rest, first)

    def answer(self, head: int, probs: Tensor) -> Tensor:
        first, *rest = (part.answer(head, probs) for part in self.parts if part.weighs)
        return sum(rest, first)


def meet(
    score: Score,
    comparison: Comparison,
    order: Order,
    q: Tensor,
    k: Tensor,
    ready: Tensor | None,
    pairs: Pairs,
) -> tuple[Tensor, Tensor, Bias | None]:
    """What a kernel is given: queries, keys, and what is added to their scaled products.

    Args:
        score, comparison: how queries and keys are compared.
        order: of the layer's position.
        q: (B, H, T, D), un-rotated.
        k: (B, G, S, D), un-rotated.
        ready: what `comparison.ready` gave for the keys.
        pairs: which query meets which key.
    """
    turned = comparison.turn(q)
    bias = Joined.of(order.bias(turned, pairs), comparison.bias(q, ready))
    product = turned if score.multiplies else torch.zeros_like(turned)
    return *order.rotate(product, k, pairs), bias
