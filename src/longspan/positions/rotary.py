"""Rotary position embedding (2104.09864, equation 34): pairs of features turn with position.

Feature i turns together with feature i + D/2 (the layout of GPT-NeoX and Llama; the paper pairs
neighbours, which is the same up to a fixed permutation of features).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from longspan.errors import ConfigError
from longspan.slots import Order, Pairs, Position


@dataclass(frozen=True)
class Rotary(Position, name="rotary"):
    """Turns queries and keys by position · base^(-2i/D).

    Attributes:
        base: 10,000 in the paper.
    """

    base: float = 10000.0

    def __post_init__(self) -> None:
        if self.base <= 1:
            raise ConfigError(f"position.base must be above 1, not {self.base}")

    def build(self, dim: int, heads: int, head_dim: int) -> Order:
        if head_dim % 2:
            raise ConfigError(
                f"position 'rotary' turns pairs of features: head_dim must be even, not {head_dim}"
            )
        return RotaryOrder(self.base, head_dim)


class RotaryOrder(Order):
    """No parameters."""

    def __init__(self, base: float, head_dim: int) -> None:
        super().__init__()
        self.base = base
        self.head_dim = head_dim

    def rotate(self, q: Tensor, k: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
        cos, sin = self._angles(pairs, q.dtype)
        t = q.shape[2]
        # the call's own tokens are the last T keys
        return _turn(q, cos[:, :, -t:], sin[:, :, -t:]), _turn(k, cos, sin)

    def _angles(self, pairs: Pairs, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        def make() -> Tensor:
            exact = torch.promote_types(dtype, torch.float32)
            _, offset = pairs.offsets()
            pair = torch.arange(0, self.head_dim, 2, device=offset.device, dtype=torch.float64)
            frequency = (self.base ** (-pair / self.head_dim)).to(exact)
            angle = offset[:, None, :, None].to(exact) * frequency
            return torch.stack([angle.cos(), angle.sin()]).to(dtype)

        both = pairs.once(("rotary", self.base, self.head_dim, dtype), make)
        return both[0], both[1]


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)
