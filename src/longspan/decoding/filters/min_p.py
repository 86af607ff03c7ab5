"""Only tokens at least p times as probable as the most probable (2407.01082)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from longspan.decoding.search import Filter
from longspan.errors import ConfigError


@dataclass(frozen=True)
class MinP(Filter, name="min_p"):
    """Keeps what has at least `p` times the highest probability.

    Attributes:
        p: 0 or more and at most 1.
    """

    reads: ClassVar[bool] = False
    draws: ClassVar[bool] = True

    p: float

    def __post_init__(self) -> None:
        if not 0 <= self.p <= 1:
            raise ConfigError(f"min_p must be 0 or more and at most 1, not {self.p}")

    def __call__(self, logits: Tensor, tokens: Tensor) -> Tensor:
        probs = logits.softmax(-1)
        return logits.masked_fill(probs < self.p * probs.amax(-1, keepdim=True), -torch.inf)
