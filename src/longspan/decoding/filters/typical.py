"""Only tokens whose surprisal is near the entropy, until they reach p (2202.00666).

Locally typical sampling: neither what is much more surprising than expected nor what is much less.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from longspan.decoding.search import Filter
from longspan.errors import ConfigError


@dataclass(frozen=True)
class Typical(Filter, name="typical"):
    """Keeps as few of the most typical as reach `p`.

    Attributes:
        p: above 0 and at most 1.
    """

    reads: ClassVar[bool] = False
    draws: ClassVar[bool] = True

    p: float

    def __post_init__(self) -> None:
        if not 0 < self.p <= 1:
            raise ConfigError(f"typical must be above 0 and at most 1, not {self.p}")

    def __call__(self, logits: Tensor, tokens: Tensor) -> Tensor:
        if self.p == 1:
            return logits
        own = logits.log_softmax(-1)
        probs = own.exp()
        # what is banned has neither probability nor surprisal
        entropy = -(own * probs).nansum(-1, keepdim=True)
        distance, order = (-own - entropy).abs().sort(-1)
        reached = logits.gather(1, order).softmax(-1).cumsum(-1)
        last = (reached < self.p).sum(1, keepdim=True).clamp(max=logits.shape[-1] - 1)
        gone = distance > distance.gather(1, last)
        gone[:, 0] = False
        return logits.masked_fill(gone.scatter(1, order, gone), -torch.inf)
