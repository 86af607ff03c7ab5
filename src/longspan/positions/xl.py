"""Transformer-XL's relative position (1901.02860, section 3.3 and appendix B).

    score(i, j) = (q_i + u) · k_j + (q_i + v) · W_r R_{i-j}

with R the sinusoid of the distance, u and v learned (r_w_bias and r_r_bias in the authors' code),
both terms scaled by 1/√D. Beyond the paper: distances of any two places, not only of neighbouring
slots, so that a memory may hold tokens from anywhere; and keys after their query, for encoders.

In training numbers of R are dropped like those of embeddings, as in the authors' code: once a call,
for all heads, rows, and layers that share pattern and memory; of a long call, once for each layer
and group of tiles (`tiles.py`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from longspan.dropping import drop
from longspan.errors import ConfigError
from longspan.lookup import LookedUp
from longspan.slots import Bias, Order, Pairs, Position

PERIOD = 10000.0
"""Of the slowest wave, as a multiple of the fastest (1706.03762, section 3.5)."""


@dataclass(frozen=True)
class XL(Position, name="xl"):
    """The relative term with u and v.

    Attributes:
        clamp: distances beyond it count as it (`clamp_len`); None for no limit.
        shared: one u and one v for all layers of a stack (the inverse of `untie_r`).
        near: where learning begins. All heads of the first layer, half of them in the second, a
            quarter in the third and so on start out looking back: head h mostly h + 1 tokens, and
            elsewhere with the power -near of the distance from there. 0 starts without
            preference, as the paper does.
    """

    clamp: int | None = None
    shared: bool = False
    near: float = 0.0

    def __post_init__(self) -> None:
        problems = []
        if self.clamp is not None and self.clamp < 1:
            problems.append(f"position.clamp must be 1 or more, or null, not {self.clamp}")
        if not 0 <= self.near < math.inf:
            problems.append(f"position.near must be 0 or more, not {self.near}")
        if problems:
            raise ConfigError(problems)

    def build(self, dim: int, heads: int, head_dim: int) -> Order:
        return XLOrder(self, dim, heads, head_dim)


class XLOrder(Order):
    """W_r, u and v of one layer.

    Shapes: `r` maps C to H·D without bias; `u` and `v` are (H, D); `frequency` (⌈C/2⌉,) is
    10000^(-2i/C), kept in float64 whatever the model computes in.
    """

    frequency: Tensor

    def __init__(self, config: XL, dim: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.config = config
        self.r = nn.Linear(dim, heads * head_dim, bias=False)
        self.u = nn.Parameter(torch.zeros(heads, head_dim))
        self.v = nn.Parameter(torch.zeros(heads, head_dim))
        self.scale = head_dim**-0.5
        exponent = torch.arange(0, dim, 2, dtype=torch.float64) / dim
        self.register_buffer("frequency", PERIOD**-exponent)

    def _apply(self, fn, recurse=True):
        frequency = self.frequency
        super()._apply(fn, recurse)
        # a rounded frequency is another position: it moves between devices, never between dtypes
        self.frequency = frequency.to(self.frequency.device)
        return self

    @torch.no_grad()
    def begin(self, layer: int) -> None:
        """v = a W_r R_d scores a distance by a R_dᵀ W_rᵀ W_r R, where W_rᵀ W_r is about D/C.

        R_d · R is C/2 at distance d and falls with the logarithm of the way from there, to about
        nothing where the slowest wave has turned.
        """
        self.v.zero_()
        count = self.v.shape[0] >> layer
        if count and self.config.near:
            exact = self.v.float()
            sinusoid = self._sinusoid(1, count, exact).flip(0)
            weight = self.r.weight.to(exact).unflatten(0, self.v.shape)[:count]
            steep = 2 * math.log(PERIOD) * self.config.near * self.scale
            self.v[:count] = steep * torch.einsum("hdc,hc->hd", weight, sinusoid)

    def products(self, segment: int, keys: int) -> tuple[float, float]:
        # whichever way round is cheaper (`_terms`)
        inner, dim = self.r.weight.shape
        distances = keys + 1
        to_distances = (distances * dim * inner / segment, float(inner * distances))
        to_queries = (float(inner * dim), float(len(self.u) * dim * distances))
        return min(to_distances, to_queries, key=sum)

    def share(self, first: Order) -> None:
        if self.config.shared and isinstance(first, XLOrder):
            self.u, self.v = first.u, first.v

    def rotate(self, q: Tensor, k: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
        return q + self.u[:, None, :], k

    def bias(self, q: Tensor, pairs: Pairs) -> Bias:
        t, s = pairs.shape
        query = (q + self.v[:, None, :]) * self.scale
        parts: list[Bias] = []
        if pairs.run < s:
            parts.append(self._scattered(query, pairs, s - pairs.run))
        if pairs.run:
            # one distance more than there are pairs, so that the skew is a view (`SkewedBias`)
            low, high = (-1 if pairs.causal else -t), pairs.run - 1
            terms = self._terms(query, pairs, low - pairs.ahead, high - pairs.ahead, pairs.step)
            parts.append(SkewedBias(*terms, t, pairs.run))
        return parts[0] if len(parts) == 1 else Beside(parts)

    def _scattered(self, query: Tensor, pairs: Pairs, count: int) -> Bias:
        """Of the first `count` keys, which may stand anywhere."""
        q, k = pairs.offsets()
        distance, visible = q[:, :, None] - k[:, None, :count], pairs.visible[..., :count]
        if self.config.clamp is not None:
            distance = distance.clamp(-self.config.clamp, self.config.clamp)
        seen = distance[visible] if visible.any() else distance.new_zeros(1)
        low, high = int(seen.min()), int(seen.max())
        heads, head_dim = self.u.shape
        whole = self.config.clamp is None and not (self.training and self.dropout)
        if whole and (high - low) * head_dim > count * self.r.in_features:
            # fewer keys than distances: each key's own wave
            weight = self.r.weight.view(heads, head_dim, -1)
            return self._waves(query @ weight, q, k[:, :count])
        terms = self._terms(query, pairs, low, high)
        return LookedUp(*terms, (high - distance).clamp(0, high - low))

    def _waves(self, query: Tensor, q: Tensor, k: Tensor) -> Bias:
        """a·sin(w(i - j)) + b·cos(w(i - j)) of queries [a, b] (B, H, T, C), by the sum formulas.

        (a sin wi + b cos wi) · cos wj + (b sin wi - a cos wi) · sin wj
        """
        exact = torch.promote_types(query.dtype, torch.float32)

        def angles(offset: Tensor) -> Tensor:
            angle = offset[..., None].to(exact) * self.frequency.to(exact)
            return torch.stack([angle.sin(), angle.cos()]).to(query.dtype)

        waves = len(self.frequency)
        a, b = query[..., :waves], query[..., waves:]
        b = nn.functional.pad(b, (0, waves - b.shape[-1]))  # an odd width has no last cosine
        (sin, cos), keys = angles(q)[:, :, None], angles(k)
        turned = torch.cat([a * sin + b * cos, b * sin - a * cos], -1)
        return Waves(turned, torch.cat([keys[1], keys[0]], -1).transpose(1, 2))

    def _terms(
        self, query: Tensor, pairs: Pairs, low: int, high: int, step: int = 1
    ) -> tuple[Tensor, Sequence[Tensor]]:
        """Queries (B, H, T, X) and each head's distances (X, N), high first: the term's factors.

        X is D, or C where few queries meet many distances: then it is cheaper to bring W_r to the
        queries than to every R.
        """
        drops = self.dropout if self.training else 0.0
        sinusoid = pairs.once(
            ("xl", low, high, step, self.config.clamp, query.dtype, drops),
            lambda: drop(self._sinusoid(low, high, query, step), drops),
        )
        heads, head_dim = self.u.shape
        t, n = query.shape[2] * query.shape[0], sinusoid.shape[0]
        weight = self.r.weight.view(heads, head_dim, -1)
        dim = weight.shape[2]
        if n * dim * head_dim + t * head_dim * n <= t * head_dim * dim + t * dim * n:
            r = self.r(sinusoid).view(n, heads, head_dim)
            return query, r.permute(1, 2, 0).unbind(0)
        return query @ weight, [sinusoid.T] * heads

    def _sinusoid(self, low: int, high: int, like: Tensor, step: int = 1) -> Tensor:
        exact = torch.promote_types(like.dtype, torch.float32)
        distance = torch.arange(high, low - 1, -1, device=like.device) * step
        if self.config.clamp is not None:
            distance = distance.clamp(-self.config.clamp, self.config.clamp)
        angle = distance[:, None].to(exact) * self.frequency.to(exact)
        both = torch.cat([angle.sin(), angle.cos()], -1)
        return both[:, : self.r.in_features].to(like.dtype)


class SkewedBias(Bias):
    """Where distances are those of slots: `query` (B, H, T, X) times `r`, H times (X, N).

    Column n is at distance S - 1 - n, so pair (i, j) stands in row i at column j + T - 1 - i: the
    paper's shift (appendix B). With one column more than S, taking the flat buffer from T - 1 on
    and cutting it into rows that are one shorter moves every row by one: a view, no copy.
    """

    def __init__(self, query: Tensor, r: Sequence[Tensor], t: int, s: int) -> None:
        self.query = query
        self.heads = query.unbind(1)
        self.r = r
        self.t, self.s = t, s

    def split(self, rows: int) -> Sequence[Bias]:
        return [SkewedBias(part, self.r, self.t, self.s) for part in self.query.split(rows)]

    def head(self, head: int) -> Tensor:
        products = self.heads[head] @ self.r[head]
        width = products.shape[-1] - 1
        flat = products.flatten(1)[:, self.t - 1 : self.t - 1 + self.t * width]
        return flat.unflatten(1, (self.t, width))[..., : self.s]


class Waves(Bias):
    """Any keys, each by its own wave: `query` (B, H, T, X) times `keys` (1 or B, X, S)."""

    def __init__(self, query: Tensor, keys: Tensor) -> None:
        self.query = query
        self.heads = query.unbind(1)
        self.keys = keys

    def split(self, rows: int) -> Sequence[Bias]:
        parts = self.query.split(rows)
        keys = self.keys.split(rows) if len(self.keys) > 1 else [self.keys] * len(parts)
        return [Waves(*both) for both in zip(parts, keys, strict=True)]

    def head(self, head: int) -> Tensor:
        return self.heads[head] @ self.keys


class Beside(Bias):
    """The keys of one bias, then those of the next."""

    def __init__(self, parts: Sequence[Bias]) -> None:
        self.parts = parts

    def split(self, rows: int) -> Sequence[Bias]:
        pieces = zip(*(part.split(rows) for part in self.parts), strict=True)
        return [Beside(piece) for piece in pieces]

    def head(self, head: int) -> Tensor:
        return torch.cat([part.head(head) for part in self.parts], -1)
