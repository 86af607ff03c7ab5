"""Performer's FAVOR+ (2009.14794): random features whose products estimate a kernel, without bias.

With w_1 … w_M drawn from N(0, I), and x = q or k over D^¼,

    softmax     φ(x)_i = exp(w_i·x - |x|²/2) / √M       (lemma 1: positive features)
    relu        φ(x)_i = max(0, w_i·x) + epsilon        (generalised attention, section 2.2)

so that E φ(q)·φ(k) = exp(q·k / √D). With `orthogonal`, D of the w at a time stand at right angles
(section 2.4), which never estimates worse. The draws are buffers of the layer, saved with its
weights and shared by its heads.

**Stability.** φ(k) is held over exp of its highest exponent, and sums over the past over that of
the highest key so far (`features.py`): a running maximum, so that nothing of the future enters. Of
one token's features those below exp(-`DEEPEST`) of its highest, 4·10^-18, count as much as that; so
no sum of weights vanishes, however long the vectors are, and the causal form needs no epsilon.

**Redrawing** (section 4.2) happens in training alone, before the call that follows every `redraw`
calls. Sums made with other features mean nothing to the new ones: the layer forgets what it carried
there. In evaluation, and so in a stream, the features stay; a state of another draw is refused.

Where we differ from the authors' code and its transcription performer-pytorch: those take the
maximum over all keys, those to come as well; they add epsilon to each feature, which ours does only
both ways and when asked; padding stays in their sum of weights; and the blocks at right angles come
as they leave the QR decomposition, whose first column never points up: not uniform, so the estimate
has a bias. Ours are given random signs (math-ph/0609050, section 4).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from longspan.errors import ConfigError, Conflict, StateError, unlisted
from longspan.features import LOWEST, FeatureAttention, FeatureMap, Sums, highest
from longspan.mixing import Layer, Mixer
from longspan.slots import Pairs, Places
from longspan.state import Carried

KernelName = Literal["softmax", "relu"]

DEEPEST = 40.0
"""How far below its highest an exponent of a token may lie; e^-40 is below float64's last digit."""


@dataclass(frozen=True)
class Favor(Mixer, name="favor"):
    """Attention by random features.

    Attributes:
        features: M, how many; the error of the estimate falls with √M.
        kernel: what is estimated, "softmax" or "relu".
        orthogonal: draw them at right angles, D at a time.
        redraw: draw anew after so many calls of training; 0 for never. The layer forgets its
            memory there.
        epsilon: added to every feature. With "softmax" only where attention looks both ways, for
            parity with the authors' code, which has 1e-4 there and 1e-3 with "relu".
        chunk: tokens that meet pair by pair at once; only speed depends on it.
    """

    bidirectional: ClassVar[bool] = True

    features: int = 256
    kernel: KernelName = "softmax"
    orthogonal: bool = True
    redraw: int = 0
    epsilon: float = 0.0
    chunk: int = 128

    def __post_init__(self) -> None:
        problems = [
            f"mixer.{name} must be {least} or more, not {value}"
            for name, least in (("features", 1), ("redraw", 0), ("epsilon", 0), ("chunk", 1))
            if (value := getattr(self, name)) < least
        ]
        problems += unlisted("mixer", self)
        if problems:
            raise ConfigError(problems)

    def conflicts(self, layer: Layer) -> list[Conflict]:
        if self.kernel == "relu" or not self.epsilon or not layer.pattern.causal:
            return []
        return [
            Conflict(
                "F1",
                f"mixer.epsilon={self.epsilon} stands beside the highest of all keys, and a causal "
                "layer does not know those to come.",
                "Leave mixer.epsilon out: the causal form needs none.",
            )
        ]

    def build(self, layer: Layer) -> FavorAttention:
        return FavorAttention(layer, self)


def draw(count: int, width: int, *, orthogonal: bool) -> Tensor:
    """(count, width) float32 rows, each from N(0, I); orthogonal ones at right angles in blocks.

    From torch's own generator on the CPU.
    """
    rows = torch.randn(count, width)
    if not orthogonal:
        return rows
    blocks = -(-count // width)
    q, r = torch.linalg.qr(torch.randn(blocks, width, width))
    # uniform only with the signs of r's diagonal
    turned = (q * r.diagonal(dim1=1, dim2=2).sign()[:, None]).mT.flatten(0, 1)[:count]
    # as long as independent ones would be
    return rows.norm(dim=1, keepdim=True) * turned


class RandomFeatures(FeatureMap):
    """The features of one layer.

    Attributes:
        projection: (M, D) the w.
        draws: int64, how often they were drawn anew.
        age: int64, calls of training since.
    """

    projection: Tensor
    draws: Tensor
    age: Tensor

    def __init__(self, config: Favor, head_dim: int) -> None:
        super().__init__()
        self.config = config
        self.size = config.features
        self.register_buffer("projection", self._drawn(head_dim))
        self.register_buffer("draws", torch.zeros((), dtype=torch.long))
        self.register_buffer("age", torch.zeros((), dtype=torch.long))

    def products(self, head_dim: int) -> float:
        return float(self.size * head_dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        rise, half = self.exponents(x)
        if self.config.kernel == "relu":
            return rise.relu() + self.config.epsilon, None
        top = rise.detach().amax(-1)
        # what cancels is left to the scale; 1/√M cancels altogether
        return (rise - top[..., None]).clamp(min=-DEEPEST).exp(), top - half

    def exponents(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """w_i·x (…, M) and |x|²/2 (…), of x over D^¼."""
        x = x * x.shape[-1] ** -0.25
        half = x.square().sum(-1) / 2
        return x @ self.projection.to(x.dtype).mT, half.clamp(max=-LOWEST / 2)

    @torch.no_grad()
    def grow(self) -> None:
        """Counts a call of training, and draws anew before the one whose turn it is."""
        if int(self.age) >= self.config.redraw:
            # other tensors, not other numbers: a gradient may yet need the old ones
            self.projection = self._drawn(self.projection.shape[1]).to(self.projection)
            self.draws, self.age = self.draws + 1, torch.zeros_like(self.age)
        self.age = self.age + 1

    def _drawn(self, head_dim: int) -> Tensor:
        return draw(self.size, head_dim, orthogonal=self.config.orthogonal)


@dataclass(frozen=True)
class Drawn(Sums, kind="drawn"):
    """`Sums`, and

    Attributes:
        draw: (B,) int64, of which draw the features were.
    """

    draw: Tensor


class FavorAttention(FeatureAttention[RandomFeatures]):
    """Attention by random features, which may be drawn anew in training."""

    carried = Drawn

    def __init__(self, layer: Layer, config: Favor) -> None:
        super().__init__(layer, RandomFeatures(config, layer.head_dim), config.chunk)
        self.config = config

    def begin(self, batch: int, like: Tensor) -> Carried:
        empty = super().begin(batch, like)
        return Drawn(**empty.tensors(), draw=self._draw(batch)) if self.causal else empty

    def mix(
        self, x: Tensor, carried: Carried, places: Places, pairs: Pairs | None
    ) -> tuple[Tensor, Carried]:
        if self.config.redraw and self.training:
            self.features.grow()
        if self.config.redraw and isinstance(carried, Drawn):
            carried = self._known(carried)
        return super().mix(x, carried, places, pairs)

    def featured(
        self, q: Tensor, k: Tensor, places: Places
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        epsilon = self.config.epsilon
        if not epsilon or self.config.kernel == "relu":
            return super().featured(q, k, places)
        # as the authors: epsilon beside features over the highest of all keys
        (rise_q, half_q), (rise_k, half_k) = map(self.features.exponents, (q, k))
        top_q, top_k = rise_q.detach().amax(-1), highest(rise_k.detach().amax(-1), places)
        q = (rise_q - (half_q + top_q)[..., None]).exp() + epsilon
        return q, (rise_k - (half_k + top_k)[..., None]).exp() + epsilon, None

    def _known(self, carried: Drawn) -> Drawn:
        """What today's features have made of what is carried: all of it, or nothing."""
        stale = carried.draw != self.features.draws
        if self.training:
            return replace(carried.reset(stale), draw=self._draw(len(stale)))
        if not torch.compiler.is_compiling() and bool(stale.any()):
            raise StateError(
                "the state was made with features that have been drawn anew since; "
                "start with state=None"
            )
        return carried

    def _draw(self, batch: int) -> Tensor:
        return self.features.draws.expand(batch)
