"""Rotary with positions interpolated (2306.15595): a model trained on L tokens reads factor · L.

Every position is divided by the factor, so that none lies beyond those of training. Made for
fine-tuning: near tokens turn less apart than they did.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from longspan.rotation import Longer


@dataclass(frozen=True)
class Interpolated(Longer, name="interpolated"):
    """Turns by (position / factor) · base^(-2i/D)."""

    def speeds(self, head_dim: int, device: torch.device) -> Tensor:
        return super().speeds(head_dim, device) / self.factor
