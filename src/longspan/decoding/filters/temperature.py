"""Divides the logits: below 1 sharpens the distribution, above 1 flattens it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from longspan.decoding.search import Filter
from longspan.errors import ConfigError


@dataclass(frozen=True)
class Temperature(Filter, name="temperature"):
    """Divides the logits by `value`.

    Attributes:
        value: above 0.
    """

    reads: ClassVar[bool] = False
    draws: ClassVar[bool] = True

    value: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.value < math.inf:
            raise ConfigError(
                f"temperature must be above 0, not {self.value}; the strategy greedy takes the best"
            )

    def __call__(self, logits: Tensor, tokens: Tensor) -> Tensor:
        return logits / self.value
