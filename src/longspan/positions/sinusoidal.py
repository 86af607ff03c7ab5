"""Sines and cosines of the absolute position, added to the model's input (1706.03762, 3.5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from longspan.errors import ConfigError
from longspan.slots import Position


@dataclass(frozen=True)
class Sinusoidal(Position, name="sinusoidal"):
    """PE(pos, 2i) = sin(pos / base^(2i/C)), PE(pos, 2i+1) = cos of the same.

    Attributes:
        base: 10,000 in the paper.
    """

    enters: ClassVar[str] = "input"
    relative: ClassVar[bool] = False

    base: float = 10000.0

    def __post_init__(self) -> None:
        if self.base <= 1:
            raise ConfigError(f"position.base must be above 1, not {self.base}")

    def entry(self, dim: int) -> nn.Module:
        return SinusoidalEntry(self.base, dim)


class SinusoidalEntry(nn.Module):
    """No parameters."""

    def __init__(self, base: float, dim: int) -> None:
        super().__init__()
        self.base, self.dim = base, dim

    def forward(self, pos: Tensor, dtype: torch.dtype) -> Tensor:
        # float64: at position 10^9 a float32 angle is off by whole turns
        exponent = torch.arange(0, self.dim, 2, dtype=torch.float64, device=pos.device) / self.dim
        angle = pos[..., None].double() * self.base**-exponent
        both = torch.stack([angle.sin(), angle.cos()], -1).flatten(-2)
        return both[..., : self.dim].to(dtype)
