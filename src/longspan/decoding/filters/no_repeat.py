"""No n tokens in a row that the text has already (1705.04304, section 2.5)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from longspan.decoding.search import Filter
from longspan.errors import ConfigError


@dataclass(frozen=True)
class NoRepeat(Filter, name="no_repeat"):
    """Bans the last token of an n-gram seen before.

    Attributes:
        size: n, 1 or more.
    """

    size: int

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ConfigError(
                f"no_repeat must be 1 or more tokens, not {self.size}; leave it out for none"
            )

    def __call__(self, logits: Tensor, tokens: Tensor) -> Tensor:
        if tokens.shape[1] < self.size:
            return logits
        grams = tokens.unfold(1, self.size, 1)
        newest = tokens[:, tokens.shape[1] + 1 - self.size :]
        again = (grams[..., :-1] == newest[:, None]).all(-1) & (grams >= 0).all(-1)
        size = logits.shape[-1]
        banned = torch.zeros(len(logits), size + 1, dtype=torch.bool, device=logits.device)
        banned.scatter_(1, grams[..., -1].where(again, size), True)
        return logits.masked_fill(banned[:, :size], -torch.inf)
