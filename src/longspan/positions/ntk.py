"""Rotary with a larger base, "NTK-aware" (2309.00071, section 3.1, definition 1).

base · factor^(D / (D - 2)): the slowest pair turns `factor` times slower, the first as before, so
that far positions are interpolated and near ones are not. Needs no fine-tuning.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from longspan.rotation import Longer, geometric


@dataclass(frozen=True)
class NTK(Longer, name="ntk"):
    """Turns by position · (base · factor^(D / (D - 2)))^(-2i/D)."""

    def speeds(self, head_dim: int, device: torch.device) -> Tensor:
        # one pair alone is the fastest and the slowest, and stays as it is
        power = head_dim / (head_dim - 2) if head_dim > 2 else 0.0
        return geometric(self.base * self.factor**power, head_dim, device)
