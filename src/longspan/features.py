"""Attention in linear time: weights that are products of features (2006.16236, section 3).

    y_t = Σ_s φ(q_t)·φ(k_s) v_s  /  Σ_s φ(q_t)·φ(k_s)            s ≤ t, or every s

What a query needs of the past is two sums, S = Σ φ(k_s) v_sᵀ and z = Σ φ(k_s), however long it
was. With a one beside every value, v' = (v, 1), they are one: `total` = Σ φ(k_s) v'_sᵀ, and its
last column is z. The mixers differ in φ alone.

**One function, three forms.** `causal` goes through a call in chunks: pairs within a chunk meet in
a (t, t) product, what came before is met through `total`. One chunk of all tokens is the parallel
form (equation 9 under a causal mask), chunks of one token are the recurrent one (equations 16 to
20), and those in between take O(T) time and memory. All give the same.

**Features may have a scale.** A feature map may give φ(k_s) as f_s · exp(c_s), with f_s of moderate
size: exponentials overflow otherwise. Only differences of scales are ever exponentiated, to the
highest scale among what a query sees, so no weight overflows, and what underflows is nothing beside
what stays. A query's own scale cancels. Nothing of the future enters, not even by rounding: a scale
that is yet to come changes no bit of an answer.

**No division by 0.** An answer whose weights sum to less than `LEAST` is scaled down with them
instead of up: it fades to 0, with finite gradients, where features vanish altogether.

Numbers are float32 at least, whatever the model computes in. A sum stands still where the next key
is less than its last digit: in float32 after some 10^7 tokens of one document, in float64 after
10^16.

Letters: F features, R = H / G queries a key, t tokens of a chunk.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Generic, Self, TypeVar

import torch
from torch import Tensor, nn

from longspan.mixing import Layer, Mixing, Nothing
from longspan.slots import Pairs, Places
from longspan.state import Carried

LOWEST = torch.finfo(torch.float32).min / 4
"""The scale of nothing: finite, so that differences are numbers, and below half of every other."""

LEAST = 1e-19
"""Weights that sum to less do not make an answer."""


@dataclass(frozen=True)
class Sums(Carried, kind="sums"):
    """What a layer knows of a document so far.

    Attributes:
        total: (B, G, F, D + 1) features times values, and in the last column times 1, over
            exp(top). float32 or float64.
        top: (B, G) highest scale so far; `LOWEST` before any, and where features have none.
    """

    sums: ClassVar[frozenset[str]] = frozenset({"total", "top"})

    total: Tensor
    top: Tensor

    def reset(self, rows: Tensor) -> Self:
        total = self.total.masked_fill(rows[:, None, None, None], 0.0)
        return replace(self, total=total, top=self.top.masked_fill(rows[:, None], LOWEST))


class FeatureMap(nn.Module):
    """φ, for the queries and keys of one layer.

    Attributes:
        size: F.
    """

    size: int

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """(B, H, T, D) float32 or float64 to features (B, H, T, F) ≥ 0 and their scale (B, H, T).

        The features meant are the first times exp of the second; None stands for 0.
        """
        raise NotImplementedError

    def products(self, head_dim: int) -> float:
        """Multiplications for the features of one head of one token."""
        return 0.0


Map = TypeVar("Map", bound=FeatureMap)


class FeatureAttention(Mixing, Generic[Map]):
    """Multi-head attention by a feature map, causal or both ways as the layer's pattern says.

    `q`, `k`, `v` and `o` are maps as in softmax attention; keys and values may be shared by groups
    of queries, which makes the state smaller by as much.

    Args:
        layer: sizes, norm, and whether the pattern is causal.
        features: φ.
        chunk: tokens that meet pair by pair at once; speed and rounding alone depend on it.

    Traits:
        carried: what it carries from call to call where it is causal.
    """

    carried: ClassVar[type[Sums]] = Sums

    def __init__(self, layer: Layer, features: Map, chunk: int) -> None:
        super().__init__(layer.width, layer.norm)
        self.heads, self.kv_heads, self.head_dim = layer.heads, layer.kv_heads, layer.head_dim
        self.causal = layer.pattern.causal
        self.features = features
        self.chunk = chunk
        inner, shared = layer.heads * layer.head_dim, layer.kv_heads * layer.head_dim
        self.q = nn.Linear(layer.width, inner, bias=False)
        self.k = nn.Linear(layer.width, shared, bias=False)
        self.v = nn.Linear(layer.width, shared, bias=False)
        self.o = nn.Linear(inner, layer.width, bias=False)

    @property
    def size(self) -> tuple[int, int, int]:
        """(G, F, D + 1), what is carried of a row."""
        return self.kv_heads, self.features.size, self.head_dim + 1

    def begin(self, batch: int, like: Tensor) -> Carried:
        if not self.causal:
            return Nothing()
        wide = torch.promote_types(like.dtype, torch.float32)
        total = torch.zeros(batch, *self.size, dtype=wide, device=like.device)
        return Sums(total, torch.full_like(total[:, :, 0, 0], LOWEST))

    def fits(self, carried: Carried) -> bool:
        if not self.causal:
            return isinstance(carried, Nothing)
        return type(carried) is self.carried and carried.total.shape[1:] == self.size

    def products(self) -> tuple[float, float]:
        meeting = (self.heads + self.kv_heads) * self.features.size * (self.head_dim + 1)
        return (self.heads + self.kv_heads) * self.features.products(self.head_dim), float(meeting)

    def mix(
        self, x: Tensor, carried: Carried, places: Places, pairs: Pairs | None
    ) -> tuple[Tensor, Carried]:
        read = self.read(x)
        wide = torch.promote_types(x.dtype, torch.float32)
        q, k, v = (
            each(read).unflatten(-1, (-1, self.head_dim)).transpose(1, 2).to(wide)
            for each in (self.q, self.k, self.v)
        )
        q, k, scale = self.featured(q, k, places)
        if isinstance(carried, Sums):
            before = carried.total.to(wide), carried.top.to(wide)
            out, (total, top) = causal(q, k, v, scale, before, places, self.chunk)
            carried = replace(carried, total=total, top=top)
        else:
            out = both_ways(q, k, v, scale, places, self.chunk)
        return self.o(out.to(x.dtype).transpose(1, 2).flatten(2)), carried

    def featured(
        self, q: Tensor, k: Tensor, places: Places
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Features of queries (B, H, T, F) and keys (B, G, T, F), and the keys' scale (B, G, T)."""
        k, scale = self.features(k)
        return self.features(q)[0], k, scale


def causal(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: Tensor | None,
    before: tuple[Tensor, Tensor],
    places: Places,
    chunk: int,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Every query over the keys of its document up to its own.

    Args:
        q: (B, H, T, F) features of queries.
        k: (B, G, T, F) features of keys, over exp(scale).
        v: (B, G, T, D) values.
        scale: (B, G, T); None for 0.
        before: `total` and `top` of the tokens before.
        places: where the tokens stand.
        chunk: t.

    Returns:
        (B, H, T, D), and `total` and `top` after these tokens.
    """
    v, scale = _beside_one(v, scale)
    out, after = _scan(q, k, v, scale, before, places.doc, places.valid, chunk)
    return _divided(out), after


def both_ways(
    q: Tensor, k: Tensor, v: Tensor, scale: Tensor | None, places: Places, chunk: int
) -> Tensor:
    """Every query over every key of its document, as `causal` otherwise; (B, H, T, D)."""
    v, scale = _beside_one(v, scale)
    if places.valid is not None:
        v = v * places.valid[:, None, :, None]
    if scale is not None:
        if places.valid is not None:
            scale = scale.masked_fill(~places.valid[:, None], LOWEST)
        v = v * (scale - highest(scale, places)).exp()[..., None]
    if places.doc is None:
        grouped = q.unflatten(1, (k.shape[1], -1))
        out = grouped @ (k.transpose(-1, -2) @ v)[:, :, None]
        return _divided(out.flatten(1, 2))
    # what came before and what comes after, its own token in both
    nothing = k.new_zeros(*k.shape[:2], k.shape[3], v.shape[3]), k.new_zeros(k.shape[:2])
    ahead, _ = _scan(q, k, v, None, nothing, places.doc, None, chunk)
    q_, k_, v_ = (x.flip(2) for x in (q, k, v))
    behind, _ = _scan(q_, k_, v_, None, nothing, places.doc.flip(1), None, chunk)
    own = (q.unflatten(1, (k.shape[1], -1)) * k[:, :, None]).sum(-1, True) * v[:, :, None]
    return _divided(ahead + behind.flip(2) - own.flatten(1, 2))


def highest(values: Tensor, places: Places) -> Tensor:
    """The highest of `values` (B, G, T) in each token's document, (B, G, 1 or T).

    Padding is left out; `LOWEST` where nothing is left.
    """
    if places.valid is not None:
        values = values.masked_fill(~places.valid[:, None], LOWEST)
    if places.doc is None:
        return values.amax(-1, keepdim=True)
    doc = places.doc[:, None].expand(values.shape)
    documents = values.new_full((*values.shape[:2], values.shape[2] + 1), LOWEST)
    return documents.scatter_reduce(2, doc, values, "amax").gather(2, doc)


def _beside_one(v: Tensor, scale: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Values with a one beside them, (B, G, T, D + 1), which take over the scale's gradient."""
    v = torch.cat([v, torch.ones_like(v[..., :1])], -1)
    if scale is None:
        return v, None
    # a factor of 1: what follows may take the scale for a constant
    fixed = scale.detach()
    return v * (scale - fixed).exp()[..., None], fixed.clamp(min=LOWEST / 2)


def _divided(out: Tensor) -> Tensor:
    """(B, H, T, D + 1) sums of weighted values and of weights to answers (B, H, T, D)."""
    return out[..., :-1] / out[..., -1:].clamp(min=LEAST)


def _scan(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: Tensor | None,
    before: tuple[Tensor, Tensor],
    doc: Tensor | None,
    valid: Tensor | None,
    chunk: int,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """As `causal`, undivided: (B, H, T, D + 1) of values (B, G, T, D + 1)."""
    total, top = before
    q = q.unflatten(1, (k.shape[1], -1))
    # document of what is carried, counted as `doc` counts
    newest = None if doc is None else doc.new_zeros(doc.shape[0])
    parts = []
    # the gradient of a slice is as long as the whole, that of a split is put together once
    pieces = zip(q.split(chunk, 3), k.split(chunk, 2), v.split(chunk, 2), strict=True)
    scales = None if scale is None else scale.split(chunk, 2)
    for number, (queries, keys, values) in enumerate(pieces):
        t = keys.shape[2]
        here = slice(number * chunk, number * chunk + t)
        seen = torch.ones(t, t, dtype=torch.bool, device=k.device).tril()[None, None]
        kept = None if valid is None else valid[:, None, here]
        open_, stays = None, None
        if doc is not None and newest is not None:
            docs = doc[:, here]
            seen = seen & (docs[:, None, :, None] == docs[:, None, None, :])
            open_ = (docs == newest[:, None])[:, None]
            last = docs[:, -1:]
            kept = (docs == last)[:, None] if kept is None else kept & (docs == last)[:, None]
            stays = (last[:, 0] == newest)[:, None]
            newest = last[:, 0]
        # weights of pairs (B, G, t, t), of what is carried (B, G, t), of keys (B, G, t) and of
        # what is carried on (B, G), beside those that the features give
        if scales is None:
            pair, past, key, rest = seen.to(v.dtype), open_, kept, stays
        else:
            c = scales[number]
            held = top if stays is None else top.masked_fill(~stays, LOWEST)
            shown = top[..., None] if open_ is None else top[..., None].where(open_, LOWEST)
            pair = c[:, :, None].masked_fill(~seen, LOWEST)
            level = torch.maximum(pair.amax(-1), shown)
            pair, past = (pair - level[..., None]).exp(), (shown - level).exp()
            c = c if kept is None else c.masked_fill(~kept, LOWEST)
            top = torch.maximum(c.amax(-1), held)
            key, rest = (c - top[..., None]).exp(), (held - top).exp()
            # where all is nothing, differences are 0 and not low
            key = key if kept is None else key * kept
        met = (queries @ keys.transpose(-1, -2)[:, :, None] * pair[:, :, None]) @ values[:, :, None]
        known = queries @ total[:, :, None]
        parts.append(met + (known if past is None else known * past[:, :, None, :, None]))
        total = total if rest is None else total * rest[..., None, None]
        values = values if key is None else values * key[..., None]
        total = total + keys.transpose(-1, -2) @ values
    out = parts[0] if len(parts) == 1 else torch.cat(parts, 3)
    return out.flatten(1, 2), (total, top)
