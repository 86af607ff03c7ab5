"""Only the most probable tokens that together reach p: the nucleus (1904.09751, section 3.1).

Of equals at its border some stay and some go, as in Hugging Face.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from longspan.decoding.search import Filter
from longspan.errors import ConfigError


@dataclass(frozen=True)
class TopP(Filter, name="top_p"):
    """Keeps as few of the most probable as reach `p`.

    Attributes:
        p: above 0 and at most 1.
    """

    reads: ClassVar[bool] = False
    draws: ClassVar[bool] = True

    p: float

    def __post_init__(self) -> None:
        if not 0 < self.p <= 1:
            raise ConfigError(f"top_p must be above 0 and at most 1, not {self.p}")

    def __call__(self, logits: Tensor, tokens: Tensor) -> Tensor:
        if self.p == 1:
            return logits
        ranked, order = logits.sort(-1)
        # what the least probable are worth together; the most probable always stays
        gone = ranked.softmax(-1).cumsum(-1) <= 1 - self.p
        gone[:, -1] = False
        return logits.masked_fill(gone.scatter(1, order, gone), -torch.inf)
