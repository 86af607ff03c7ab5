"""Linear attention (2006.16236): the weight of a pair is a product of features, φ(q)·φ(k).

φ works on each number of a query or key by itself, so F = D: elu(x) + 1 (equation 7), or the ReLU
that the paper names beside it. The state is a matrix of (D, D + 1) a head, whatever the length.

The authors add 1e-6 to every sum of weights; here only sums that vanish are touched
(`features.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from longspan.errors import ConfigError, unlisted
from longspan.features import FeatureAttention, FeatureMap
from longspan.mixing import Layer, Mixer

FeatureName = Literal["elu", "relu"]


@dataclass(frozen=True)
class LinearAttention(Mixer, name="linear"):
    """Attention by the features of 2006.16236.

    Attributes:
        features: φ, "elu" (elu(x) + 1) or "relu", which has no gradient below 0.
        chunk: tokens that meet pair by pair at once; only speed depends on it.
    """

    bidirectional: ClassVar[bool] = True

    features: FeatureName = "elu"
    chunk: int = 128

    def __post_init__(self) -> None:
        problems = unlisted("mixer", self)
        if self.chunk < 1:
            problems.append(f"mixer.chunk must be 1 or more, not {self.chunk}")
        if problems:
            raise ConfigError(problems)

    def build(self, layer: Layer) -> FeatureAttention:
        return FeatureAttention(layer, Elementwise(self.features, layer.head_dim), self.chunk)


class Elementwise(FeatureMap):
    """A feature for each of the D numbers."""

    def __init__(self, kind: FeatureName, head_dim: int) -> None:
        super().__init__()
        self.kind = kind
        self.size = head_dim

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        if self.kind == "relu":
            return x.relu(), None
        # elu(x) + 1 as it is written would lose the digits of what is small
        return torch.where(x > 0, x + 1, x.clamp(max=0).exp()), None
