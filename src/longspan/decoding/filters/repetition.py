"""Makes tokens less probable that the text has already (1909.05858, section 4.1).

Differs from the paper, which divides logits of either sign: a negative logit is multiplied, as
everybody does, since dividing it would make the token more probable.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from longspan.decoding.search import Filter
from longspan.errors import ConfigError


@dataclass(frozen=True)
class Repetition(Filter, name="repetition"):
    """Divides positive logits of tokens seen by `penalty`, and multiplies negative ones.

    Attributes:
        penalty: above 0; 1 changes nothing, below 1 rewards repetition.
    """

    penalty: float

    def __post_init__(self) -> None:
        if not 0 < self.penalty < math.inf:
            raise ConfigError(f"repetition_penalty must be above 0, not {self.penalty}")

    def __call__(self, logits: Tensor, tokens: Tensor) -> Tensor:
        size = logits.shape[-1]
        seen = torch.zeros(len(logits), size + 1, dtype=torch.bool, device=logits.device)
        seen.scatter_(1, tokens.where(tokens >= 0, size), True)
        penal = torch.where(logits < 0, logits * self.penalty, logits / self.penalty)
        return torch.where(seen[:, :size], penal, logits)
