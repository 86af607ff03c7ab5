"""Every query meets every key: the encoder of 1706.03762. Bidirectional, so no memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from longspan.slots import Pattern
from longspan.state import EMPTY


@dataclass(frozen=True)
class Full(Pattern, name="full"):
    """All pairs."""

    @property
    def causal(self) -> bool:
        return False

    def first(self, pos: Tensor, opened: Tensor | None) -> Tensor:
        return torch.full_like(pos, EMPTY + 1)

    def mask(self, q_pos: Tensor, k_pos: Tensor, opened: Tensor | None = None) -> Tensor:
        return (k_pos != EMPTY)[:, None, :].expand(-1, q_pos.shape[1], -1)
