"""Rotations: positions that turn pairs of features of queries and keys.

What `rotary` and its scalings for lengths beyond training share. Feature i turns together with
feature i + D/2 (the layout of GPT-NeoX and Llama; 2104.09864 pairs neighbours, which is the same up
to a fixed permutation of features). A member says how fast each pair turns, and by how much the
scores grow.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import torch
from torch import Tensor

from longspan.errors import ConfigError
from longspan.slots import Order, Pairs, Position


@dataclass(frozen=True)
class Rotation(Position):
    """Turns queries and keys by position times the speed of each pair of features.

    Attributes:
        base: the slowest pair turns about this many times slower than the first; 10,000 in the
            paper.
    """

    turns: ClassVar[bool] = True

    base: float = 10000.0

    def __post_init__(self) -> None:
        if self.base <= 1:
            raise ConfigError(f"position.base must be above 1, not {self.base}")

    def speeds(self, head_dim: int, device: torch.device) -> Tensor:
        """(D/2,) float64, radians a token."""
        return geometric(self.base, head_dim, device)

    @property
    def growth(self) -> float:
        """Factor of queries and of keys, so that scores grow with its square."""
        return 1.0

    def build(self, dim: int, heads: int, head_dim: int) -> Order:
        return RotationOrder(self, head_dim)


@dataclass(frozen=True)
class Longer(Rotation):
    """A rotation for documents `factor` times as long as those of training.

    Attributes:
        factor: how many times the trained length is read.
    """

    _: KW_ONLY
    factor: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.factor < 1:
            raise ConfigError(f"position.factor must be 1 or more, not {self.factor}")


class RotationOrder(Order):
    """No parameters."""

    def __init__(self, config: Rotation, head_dim: int) -> None:
        super().__init__()
        self.config = config
        self.head_dim = head_dim

    def rotate(self, q: Tensor, k: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
        def make() -> list[Tensor]:
            return [self._angles(offset, q.dtype) for offset in pairs.offsets()]

        of_q, of_k = pairs.once((self.config, self.head_dim, q.dtype), make)
        return _turn(q, of_q), _turn(k, of_k)

    def _angles(self, offset: Tensor, dtype: torch.dtype) -> Tensor:
        """Cosines and sines, (2, 1 or B, 1, N, D/2)."""
        exact = torch.promote_types(dtype, torch.float32)
        speeds = self.config.speeds(self.head_dim, offset.device).to(exact)
        angle = offset[:, None, :, None].to(exact) * speeds
        return (torch.stack([angle.cos(), angle.sin()]) * self.config.growth).to(dtype)


def geometric(base: float, head_dim: int, device: torch.device) -> Tensor:
    """(D/2,) float64: base^(-2i/D) (2104.09864, equation 15)."""
    pair = torch.arange(0, head_dim, 2, dtype=torch.float64, device=device)
    return base ** (-pair / head_dim)


def _turn(x: Tensor, angles: Tensor) -> Tensor:
    (a, b), (cos, sin) = x.chunk(2, -1), angles
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)
