"""Only the k most probable tokens (1805.04833). Equals of the last of them stay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from longspan.decoding.search import Filter
from longspan.errors import ConfigError


@dataclass(frozen=True)
class TopK(Filter, name="top_k"):
    """Keeps the `k` most probable.

    Attributes:
        k: 1 or more.
    """

    reads: ClassVar[bool] = False
    draws: ClassVar[bool] = True

    k: int

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ConfigError(f"top_k must be 1 or more, not {self.k}; leave it out for all")

    def __call__(self, logits: Tensor, tokens: Tensor) -> Tensor:
        least = logits.topk(min(self.k, logits.shape[-1]), -1).values[:, -1:]
        return logits.masked_fill(logits < least, -torch.inf)
