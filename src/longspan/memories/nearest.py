"""Far tokens are looked up by their keys: the Memorizing Transformer (2203.08913).

Beside what the softmax sees, a head keeps keys and values of the last N tokens before that, as they
were: no gradient enters them. A query reads the k whose keys are nearest, by a softmax of its own,
and a learned gate a head merges both answers (section 3.1):

    V_m = softmax(s q Kᵀ) V   over the k keys of the greatest q · key
    V   = g V_m + (1 - g) V_c                      g = sigmoid(b)

Stored keys carry no position, as in the paper, whose position biases local attention alone. Queries
and stored keys are brought to length 1 and s is learned a head, so that keys of older weights are
not greater or smaller than those of today (section 3.2, after 2010.04245). Where this differs from
the paper:

- The search is exact; theirs is approximate. `search="faiss"` gives it to a library.
- A token reads there only what its softmax may not see, and of its own document; in the authors'
  code (google-research/meliad) the tokens of their Transformer-XL cache are in both. Where nothing
  is stored yet the answer is that of the softmax alone.
- They normalise the keys of local attention too. Here that stays as it is, and s begins at √D,
  where scores are those of keys as long as usual; theirs begins at 1.
- They give one layer of twelve such a memory; `model.stack` says which one here.

`memorizing-transformers-pytorch` has one softmax over near and far keys instead of the gate.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from longspan.buffer import Buffer, BufferKeeper, Keys
from longspan.errors import ConfigError
from longspan.slots import Keeper, Memory, Question, Sizes
from longspan.state import Carried

BLOCK = 2**22
"""Scores that the exact search holds at once."""


@dataclass(frozen=True)
class Nearest(Buffer, name="nearest"):
    """Looks up far tokens by their keys.

    Attributes:
        tokens: N, how many tokens are stored beyond those that the softmax sees.
        top: k, how many of them a query reads.
        local: tokens before the segment that the softmax may see, kept as keys and values.
        normalised: bring queries and stored keys to length 1, and learn how sharp scores are.
        search: "exact", or "faiss" for an inner-product flat index of that library (an extra; its
            numbers are float32).
    """

    reads: ClassVar[tuple[type[Carried], ...]] = (Keys,)

    tokens: int
    top: int = 32
    _: KW_ONLY
    local: int = 0
    normalised: bool = True
    search: Literal["exact", "faiss"] = "exact"

    def __post_init__(self) -> None:
        problems = [
            f"memory.{name} must be {least} or more, not {getattr(self, name)}"
            for name, least in (("tokens", 1), ("top", 1), ("local", 0))
            if getattr(self, name) < least
        ]
        if self.search not in ("exact", "faiss"):
            problems.append(f"memory.search must be 'exact' or 'faiss', not {self.search!r}")
        if self.search == "faiss" and find_spec("faiss") is None:
            problems.append(
                "memory.search='faiss' needs the faiss library; pip install longspan[faiss], or "
                "use search 'exact'"
            )
        if problems:
            raise ConfigError(problems)

    @property
    def length(self) -> int:
        return self.local

    @property
    def counted(self) -> bool:
        return False

    @property
    def kept(self) -> int:
        return self.local + self.tokens

    def keeping(self, tokens: int | None) -> Memory:
        """Of another length its softmax sees more or less; the store beyond stays as it is.

        With 0 that goes as well.
        """
        return replace(self, local=tokens) if tokens else super().keeping(tokens)

    def build(self, sizes: Sizes) -> Keeper:
        return Librarian(self, sizes)


class Librarian(BufferKeeper[Nearest]):
    """Stores, looks up, and learns how far each head listens.

    Attributes:
        gate: (H,) b; 0 at first, so that near and far count alike.
        sharpness: (H,) s of unit keys; None where keys are taken as they are.
    """

    def __init__(self, memory: Nearest, sizes: Sizes) -> None:
        super().__init__(memory, sizes)
        self.gate = nn.Parameter(torch.zeros(sizes.heads))
        self.sharpness: nn.Parameter | None = None
        if memory.normalised:
            self.sharpness = nn.Parameter(torch.full((sizes.heads,), sizes.head_dim**0.5))

    def slots(self, state: Any) -> Tensor:
        # the others are never seen by the softmax
        own = self.memory.local + (0 if self.training else self.sizes.segment - 1)
        width = state.pos.shape[1]
        return state.pos.narrow(1, max(0, width - own), min(own, width))

    def stands(self, state: Any) -> tuple[Tensor, Tensor]:
        return state.pos, torch.ones_like(state.pos)

    def products(self) -> tuple[float, float]:
        inner = self.sizes.heads * self.sizes.head_dim
        return 0.0, float(inner * (self.memory.tokens + 2 * self.memory.top))

    def answer(self, out: Tensor, question: Question, state: Any) -> Tensor:
        shelf = self._shelf(question, state)
        if shelf is None:
            return out
        groups = (self.sizes.kv_heads, -1)
        q = question.q if self.sharpness is None else normalize(question.q, dim=-1)
        # (B, G, H / G · T, …): heads that share keys ask together
        grouped = q.unflatten(1, groups).flatten(2, 3)
        with torch.no_grad():
            search = shelf.exact if self.memory.search == "exact" else shelf.faiss
            index, found = search(grouped, min(self.memory.top, shelf.k.shape[2]))
        k, v = shelf.read(index)
        scores = (k @ grouped[..., None]).squeeze(-1).unflatten(2, (-1, q.shape[2]))
        scores = scores.flatten(1, 2) * self._scale(q)
        found = found.unflatten(2, (-1, q.shape[2])).flatten(1, 2)
        # finite where nothing was found, which the gate keeps out
        probs = scores.masked_fill(~found, torch.finfo(scores.dtype).min / 2).softmax(-1)
        values = v.unflatten(2, (-1, q.shape[2])).flatten(1, 2)
        answer = (probs[..., None, :] @ values).squeeze(-2)
        gate = self.gate.sigmoid().to(out.dtype)[:, None]
        gate = torch.where(found.any(-1), gate, 0.0)[..., None]
        return gate * answer + (1 - gate) * out

    def _scale(self, q: Tensor) -> Tensor | float:
        if self.sharpness is None:
            return self.sizes.head_dim**-0.5
        return self.sharpness.to(q.dtype)[:, None, None]

    def _shelf(self, question: Question, state: Any) -> Shelf | None:
        """What may be found; None where nothing can be."""
        places, tokens = question.places, self.memory.tokens
        k = torch.cat([state.k, question.k], 2).detach()
        v = torch.cat([state.v, question.v], 2).detach()
        pos = torch.cat([state.pos, places.keys], 1)
        doc = None
        if places.doc is not None:
            doc = torch.cat([torch.zeros_like(state.pos), places.doc], 1)
        if not (torch.compiler.is_compiling() or pos.is_meta):
            first = question.first
            some = pos < first.amax(1, keepdim=True)
            some = (some & (pos >= first.amin(1, keepdim=True) - tokens)).any(0).nonzero()
            if not len(some):
                return None
            low, high = int(some[0]), int(some[-1]) + 1
            k, v, pos = k[:, :, low:high], v[:, :, low:high], pos[:, low:high]
            doc = None if doc is None else doc[:, low:high]
        if self.sharpness is not None:
            k = normalize(k, dim=-1)
        return Shelf(k, v, pos, doc, question.first, places.doc, tokens)


@dataclass(frozen=True)
class Shelf:
    """Keys and values of one call's search, and who may find them.

    Attributes:
        k, v: (B, G, S, D).
        pos: (B, S) int64.
        doc: (B, S) int64, documents begun in this call before each; None if none began.
        first: (B, T) int64: a query may find positions from `first - tokens` up to `first`.
        of: (B, T) int64, the document of each query; None if none began.
        tokens: N.
    """

    k: Tensor
    v: Tensor
    pos: Tensor
    doc: Tensor | None
    first: Tensor
    of: Tensor | None
    tokens: int

    def seen(self, low: int, high: int) -> Tensor:
        """(B, T, high - low) bool, who may find the slots `low` to `high`."""
        pos, first = self.pos[:, None, low:high], self.first[:, :, None]
        # an empty slot stands before all that can be asked for
        seen = (pos < first) & (pos >= first - self.tokens)
        if self.doc is not None and self.of is not None:
            seen = seen & (self.doc[:, None, low:high] == self.of[:, :, None])
        return seen

    def read(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, G, N, K, D) of the slots (B, G, N, K)."""
        flat = index.flatten(2)[..., None].expand(-1, -1, -1, self.k.shape[3])
        k, v = (t.gather(2, flat).unflatten(2, index.shape[2:]) for t in (self.k, self.v))
        return k, v

    def exact(self, q: Tensor, top: int) -> tuple[Tensor, Tensor]:
        """The slots of the greatest products, some slots after others.

        Args:
            q: (B, G, H / G · T, D).
            top: K.

        Returns:
            (B, G, H / G · T, K) int64 slots, and bool, which of them were found.
        """
        best = q.new_full((*q.shape[:3], top), -torch.inf)
        index = torch.zeros_like(best, dtype=torch.long)
        total, each = self.k.shape[2], q.shape[2] // self.first.shape[1]
        step = max(top, BLOCK // (q.shape[0] * q.shape[1] * q.shape[2]))
        for low in range(0, total, step):
            high = min(total, low + step)
            scores = q @ self.k[:, :, low:high].transpose(2, 3)
            hidden = ~self.seen(low, high).repeat(1, each, 1)
            scores = scores.masked_fill_(hidden[:, None], -torch.inf)
            best, place = torch.cat([best, scores], -1).topk(top, -1)
            before = index.gather(-1, place.clamp(max=top - 1))
            index = torch.where(place < top, before, place - top + low)
        return index, best > -torch.inf

    def faiss(self, q: Tensor, top: int) -> tuple[Tensor, Tensor]:
        """As `exact`, by one flat index for each row and head, in float32."""
        faiss: Any = import_module("faiss")
        index = torch.full((*q.shape[:3], top), -1)
        queries, keys = q.detach().float().cpu(), self.k.float().cpu()
        for row in range(q.shape[0]):
            # queries that may find the same slots, which stand side by side, are asked together
            kinds = self.first[row][:, None]
            if self.of is not None:
                kinds = torch.cat([kinds, self.of[row][:, None]], 1)
            _, kind = kinds.unique(dim=0, return_inverse=True)
            for head in range(q.shape[1]):
                flat = faiss.IndexFlatIP(q.shape[3])
                flat.add(keys[row, head].contiguous().numpy())
                for number in range(int(kind.max()) + 1):
                    asks = (kind == number).nonzero()[:, 0]
                    one = replace(self, first=self.first[:, asks[:1]])
                    if self.of is not None:
                        one = replace(one, of=self.of[:, asks[:1]])
                    there = one.seen(0, self.k.shape[2])[row, 0].nonzero()[:, 0]
                    if not len(there):
                        continue
                    chosen = faiss.IDSelectorRange(int(there[0]), int(there[-1]) + 1)
                    # every head of the group asks for every of these tokens
                    places = torch.arange(q.shape[2]).view(-1, len(kind))[:, asks.cpu()].flatten()
                    _, found = flat.search(
                        queries[row, head, places].contiguous().numpy(),
                        top,
                        params=faiss.SearchParameters(sel=chosen),
                    )
                    index[row, head, places] = torch.from_numpy(found)
        index = index.to(q.device)
        return index.clamp(min=0), index >= 0
