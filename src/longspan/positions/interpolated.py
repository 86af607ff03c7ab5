"""Rotary with positions interpolated (2306.15595): a model trained on L tokens reads factor · L.

Every position is divided by the factor, so that none lies beyond those of training. Made for
fine-tuning: near tokens turn less apart than they did.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from longspan.errors import ConfigError
from longspan.rotation import Rotation


@dataclass(frozen=True)
class Interpolated(Rotation, name="interpolated"):
    """Turns by (position / factor) · base^(-2i/D).

    Attributes:
        factor: how many times the trained length is read.
    """

    _: KW_ONLY
    factor: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.factor < 1:
            raise ConfigError(f"position.factor must be 1 or more, not {self.factor}")

    def speeds(self, head_dim: int, device: torch.device) -> Tensor:
        return super().speeds(head_dim, device) / self.factor
