"""A query meets every key up to itself: the decoder of 1706.03762, section 3.2.3."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from longspan.slots import Near, Pattern
from longspan.state import EMPTY


@dataclass(frozen=True)
class Causal(Pattern, name="causal"):
    """All of the past and the query itself."""

    def first(self, pos: Tensor, opened: Tensor | None) -> Tensor:
        return torch.full_like(pos, EMPTY + 1)

    def near(self, opened: Tensor | None = None) -> tuple[Near, ...]:
        return (Near(None),)
