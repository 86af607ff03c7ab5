"""All that was read survives, folded into one matrix a head: Infini-attention (2404.07143).

A head of keys and values keeps M (D, D) and z (D), the sums of its associations. A query reads them
all at once and merges what it finds with the softmax over its own segment, by a gate a head
(equations 3 and 6):

    A_mem = σ(q) M / (σ(q) z)                    σ = elu + 1
    A     = sigmoid(β) A_mem + (1 - sigmoid(β)) A_dot

When a segment ends, its keys and values are folded in, by the linear rule or by the delta rule,
which adds only what the memory does not say already (equations 4 and 5):

    M ← M + σ(K)ᵀ V                              z ← z + Σ σ(K)
    M ← M + σ(K)ᵀ (V - σ(K) M / (σ(K) z))

Keys and queries carry no position there, as in the paper, whose position rotates those of the
softmax alone. Where this differs from the paper: as long as nothing is stored it divides zero by
zero; here the answer is then that of the softmax alone, and the first segment is folded in as it is
by either rule. σ of negative numbers is taken as exp(x), which it is, so that it does not round to
zero. M and z are at least float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from longspan.buffer import BufferKeeper, Folding, Keys
from longspan.errors import ConfigError, unlisted
from longspan.slots import Past, Places, Question, Sizes
from longspan.state import EMPTY, Carried


@dataclass(frozen=True)
class Associations(Keys, kind="infini"):
    """What was folded in, and keys and values of the unfinished segment.

    Attributes:
        m: (B, G, D, D) sums of σ(k)ᵀ v.
        z: (B, G, D) sums of σ(k).
    """

    sums: ClassVar[frozenset[str]] = frozenset({"m", "z"})

    m: Tensor
    z: Tensor

    def reset(self, rows: Tensor) -> Associations:
        return Associations(
            self.k,
            self.v,
            self.pos.masked_fill(rows[:, None], EMPTY),
            self.m.masked_fill(rows[:, None, None, None], 0.0),
            self.z.masked_fill(rows[:, None, None], 0.0),
        )

    def trimmed(self) -> Associations:
        return self

    def fits(self, sizes: Sizes) -> bool:
        matrix = (sizes.kv_heads, sizes.head_dim, sizes.head_dim)
        return super().fits(sizes) and self.m.shape[1:] == matrix


@dataclass(frozen=True)
class Infini(Folding, name="infini"):
    """Folds each finished segment into a matrix a head, which every later token reads.

    Attributes:
        update: "delta" adds what the memory does not say already, "linear" adds all.
    """

    attaches: ClassVar[Literal["keys", "readout", "tokens"]] = "readout"
    reads: ClassVar[tuple[type[Carried], ...]] = (Associations,)

    update: Literal["delta", "linear"] = "delta"

    def __post_init__(self) -> None:
        if problems := unlisted("memory", self):
            raise ConfigError(problems)

    def build(self, sizes: Sizes) -> InfiniKeeper:
        return InfiniKeeper(self, sizes)


class InfiniKeeper(BufferKeeper[Infini]):
    """Reads and folds, and learns how far each head listens to the memory.

    Attributes:
        gate: (H,) β; 0 at first, so that memory and softmax count alike.
    """

    def __init__(self, memory: Infini, sizes: Sizes) -> None:
        super().__init__(memory, sizes)
        self.delta = memory.update == "delta"
        self.gate = nn.Parameter(torch.zeros(sizes.heads))

    def start(self, batch: int, like: Tensor) -> Associations:
        keys = super().start(batch, like)
        heads, size = self.sizes.kv_heads, self.sizes.head_dim
        exact = torch.promote_types(like.dtype, torch.float32)
        zeros = torch.zeros(batch, heads, size, dtype=exact, device=like.device)
        matrix = zeros[..., None].expand(-1, -1, -1, size).contiguous()
        return Associations(**keys.tensors(), m=matrix, z=zeros)

    def answer(self, out: Tensor, question: Question, state: Any) -> Tensor:
        groups = (self.sizes.kv_heads, -1)
        phi = feature(question.q.to(state.m.dtype)).unflatten(1, groups)
        found, there = _read(phi, state.m[:, :, None], state.z[:, :, None])
        doc = question.places.doc
        if doc is not None:
            # what is carried is of the document before
            there = there & (doc == 0)[:, None, None, :, None]
        gate = self.gate.to(found.dtype).sigmoid().unflatten(0, groups)[:, :, None, None]
        share = torch.where(there, gate, 0.0)
        local = out.unflatten(1, groups)
        return (share * found + (1 - share) * local).flatten(1, 2).to(out.dtype)

    def products(self) -> tuple[float, float]:
        sizes = self.sizes
        read = sizes.head_dim**2 + sizes.head_dim
        written = sizes.head_dim**2 + (read if self.delta else 0)
        return 0.0, float(sizes.heads * read + sizes.kv_heads * written)

    def write(
        self, state: Any, past: Past, x: Tensor, k: Tensor, v: Tensor, places: Places, slack: int
    ) -> Associations:
        keys = super().write(state, past, x, k, v, places, slack).tensors()
        m, z = state.m, state.z
        if places.doc is not None:
            ended = places.doc[:, -1] > 0
            m = m.masked_fill(ended[:, None, None, None], 0.0)
            z = z.masked_fill(ended[:, None, None], 0.0)
        closes = places.closes(self.sizes.segment)
        shown = not (torch.compiler.is_compiling() or closes.is_meta)
        if shown and not bool(closes.any()):
            return Associations(**keys, m=m, z=z)
        # what is held, and what came, of the newest document: all of it is of this segment
        held = torch.cat(places.kept(past.pos), 1) != EMPTY
        folded = (held & closes[:, None])[:, None, :, None]
        phi = feature(torch.cat([past.k, k], 2).to(m.dtype)).masked_fill(~folded, 0.0)
        values = torch.cat([past.v, v], 2).to(m.dtype)
        if self.delta:
            found, there = _read(phi, m, z)
            values = values - torch.where(there, found, 0.0)
        m, z = m + phi.transpose(2, 3) @ values, z + phi.sum(2)
        keys["pos"] = keys["pos"].masked_fill(closes[:, None], EMPTY)
        return Associations(**keys, m=m, z=z)


def feature(x: Tensor) -> Tensor:
    """σ(x) = elu(x) + 1 of the numbers `x`, each above 0."""
    return x.clamp(max=0).exp() + x.clamp(min=0)


def _read(phi: Tensor, m: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """φ M / (φ z), (…, T, D), and whether there is anything to read, (…, T, 1) bool."""
    whole = phi @ z[..., None]
    there = whole > torch.finfo(whole.dtype).tiny
    return phi @ m / torch.where(there, whole, 1.0), there
