"""What is forgotten is compressed first: the Compressive Transformer (1911.05507).

The M newest tokens before a segment stay whole, as in Transformer-XL. When a segment ends, what
falls out of them is compressed, `rate` tokens to one slot, and the N newest slots stay beside them;
queries see both in one softmax (algorithm 1). Kept are hidden states, which today's projections
turn into keys and values. The functions are those of section 3.1,

    max, mean      pooling over each `rate` tokens
    conv           a convolution whose kernel and stride are `rate`
    dilated        convolutions of kernel 2 with dilations 1, 2, 4, … up to rate / 2 and ReLU
                   between them, the last read at every `rate`-th place, so that each slot is made
                   of its own tokens alone (the paper says "dilated convolutions" and no more)
    most-used      of what falls out together, the share 1 / `rate` that got most attention, as it
                   is

and the losses that teach a compression network beside the task, for which the gradient of the task
would have to flow back through many segments (sections 3.1 and 3.2):

    attention      what the segment's queries read, by content alone, from what falls out and from
                   what was made of it should be the same, head by head (algorithm 2)
    auto-encoding  a second network should give back what fell out

Their gradient reaches these networks and nothing else. Where this differs from the paper:

- Positions. A slot of the paper is one step further back than the next, whatever it holds. Here
  masks and biases speak of positions, and a slot stands at that of the newest token in it; so the
  pattern that sees all of them reaches back M + rate · N tokens (`length`).
- Losses. The paper writes ‖·‖₂; we take the mean of squares over places, heads and widths (as other
  implementations do), which does not grow with them and has a gradient at zero. Scores are scaled
  by 1/√D as those of the layer.
- Usage. The paper sorts "by their average attention"; here the average is over heads and over all
  queries so far that could see the token, its own among them.
- Documents. In training a document may begin anywhere, so tokens may fall out that fill no slot
  yet: they stay whole until they do, at most rate - 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from longspan.errors import ConfigError, unlisted
from longspan.slots import Keeper, Memory, Past, Places, Project, Sizes
from longspan.state import EMPTY, Carried, take

FunctionName = Literal["conv", "dilated", "max", "mean", "most-used"]
LossName = Literal["attention", "auto-encoding", "none"]


@dataclass(frozen=True)
class Compressed(Carried, kind="compressed"):
    """N compressed slots, and after them W whole tokens; the newest last in both.

    Attributes:
        x: (B, N + W, C) hidden states.
        pos: (B, N + W) int64 positions, of a compressed slot that of its newest token; `EMPTY`
            where a slot holds nothing.
        slots: N.
        k, v: (B, G, N + W, D) un-rotated keys, and values; None in training, which makes them anew.
        attended: (B, N + W) attention that each token got, averaged over heads and summed over
            queries; None where nobody asks.
        asked: (B,) loss of the call in training; None elsewhere.
    """

    x: Tensor
    pos: Tensor
    slots: int
    k: Tensor | None = None
    v: Tensor | None = None
    attended: Tensor | None = None
    asked: Tensor | None = None

    sums: ClassVar[frozenset[str]] = frozenset({"attended"})

    @property
    def loss(self) -> Tensor | None:
        return self.asked

    def held(self) -> dict[str, Tensor]:
        filled, held = self.pos != EMPTY, self.tensors()
        wide = {"x": filled[:, :, None], "attended": filled}
        wide |= dict.fromkeys("kv", filled[:, None, :, None])
        return {name: t * wide[name] if name in wide else t for name, t in held.items()}

    def reset(self, rows: Tensor) -> Compressed:
        return replace(self, pos=self.pos.masked_fill(rows[:, None], EMPTY))


@dataclass(frozen=True)
class Recalled(Past):
    """What was recalled, by which maps, and how it was attended to.

    Attributes:
        project: of the layer.
        weights: (B, P + T) attention that keys of past and call got; None where nobody asked.
    """

    project: Project
    weights: Tensor | None = None


@dataclass(frozen=True)
class Compressive(Memory, name="compressive"):
    """Keeps the newest tokens whole, and older ones compressed.

    Attributes:
        tokens: M, how many stay whole.
        compressed: N, slots of compressed ones. With "most-used" best a multiple of segment / rate:
            of what fewer slots leave of one segment, the pattern may not reach all.
        rate: c, tokens that make one slot; it must divide M and the segment.
        function: how they are compressed.
        loss: how a network that compresses is taught beside the task; with "none" it learns by the
            gradient through later calls (`train.through`) alone.
    """

    consecutive: ClassVar[bool] = False
    folds: ClassVar[bool] = True

    tokens: int
    compressed: int
    rate: int = 4
    function: FunctionName = "conv"
    loss: LossName = "attention"

    def __post_init__(self) -> None:
        problems = [
            f"memory.{name} must be {least} or more, not {getattr(self, name)}"
            for name, least in (("tokens", 0), ("compressed", 0), ("rate", 2))
            if getattr(self, name) < least
        ]
        problems += unlisted("memory", self)
        if not problems and self.tokens % self.rate:
            low = self.tokens // self.rate * self.rate
            problems.append(
                f"memory.rate={self.rate} does not divide memory.tokens={self.tokens}; keep "
                f"{low} or {low + self.rate} whole tokens"
            )
        if not problems and self.function == "dilated" and self.rate & (self.rate - 1):
            low = 1 << (self.rate.bit_length() - 1)
            problems.append(
                f"memory.function='dilated' needs a memory.rate that is a power of 2, not "
                f"{self.rate}; use {low} or {2 * low}"
            )
        if not problems and self.loss != "none" and self.function not in NETWORKS:
            problems.append(
                f"memory.loss={self.loss!r} has nothing to teach: memory.function="
                f"{self.function!r} learns nothing; set memory.loss to none"
            )
        if problems:
            raise ConfigError(problems)

    @property
    def length(self) -> int:
        return self.tokens + self.rate * self.compressed

    def keeping(self, tokens: int | None) -> Memory:
        """Of another length it compresses more or less, and keeps fewer whole if there is no room.

        Where `rate` does not divide what is left it keeps a little more; the pattern says what of
        it is seen.
        """
        if tokens is None:
            return super().keeping(tokens)
        slots = math.ceil(max(0, tokens - self.tokens) / self.rate)
        whole = math.ceil(min(tokens, self.tokens) / self.rate) * self.rate
        return replace(self, tokens=whole, compressed=slots)

    @property
    def alike(self) -> bool:
        return not self.listens

    @property
    def listens(self) -> bool:
        return self.function == "most-used"

    @property
    def grain(self) -> int:
        return self.rate

    @property
    def learns(self) -> bool:
        return self.function in NETWORKS and self.loss == "none"

    def recalled(self, reach: int) -> int:
        return self.tokens + self.compressed

    def build(self, sizes: Sizes) -> Keeper:
        return Compressor(self, sizes)


class Pooling(nn.Module):
    """The greatest or the mean of each group."""

    def __init__(self, pool: Callable[[Tensor, int], Tensor]) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, groups: Tensor) -> Tensor:
        """(B, N, c, C) to (B, N, C)."""
        return self.pool(groups, 2)

    def products(self) -> float:
        """Multiplications a slot."""
        return 0.0


class Convolution(nn.Module):
    """One convolution with kernel and stride c: a linear map of each group."""

    def __init__(self, dim: int, rate: int) -> None:
        super().__init__()
        self.map = nn.Linear(rate * dim, dim)

    def forward(self, groups: Tensor) -> Tensor:
        """(B, N, c, C) to (B, N, C)."""
        return self.map(groups.flatten(2))

    def products(self) -> float:
        """Multiplications a slot."""
        return float(self.map.weight.numel())


class Dilated(nn.Module):
    """Convolutions of kernel 2, computed only where the last one is read: neighbours, then pairs
    of neighbours, and so on.
    """

    def __init__(self, dim: int, rate: int) -> None:
        super().__init__()
        self.dim, self.rate = dim, rate
        self.maps = nn.ModuleList(nn.Linear(2 * dim, dim) for _ in range(rate.bit_length() - 1))

    def forward(self, groups: Tensor) -> Tensor:
        """(B, N, c, C) to (B, N, C)."""
        for index, each in enumerate(self.maps):
            if index:
                groups = relu(groups)
            groups = each(groups.unflatten(2, (-1, 2)).flatten(3))
        return groups.squeeze(2)

    def products(self) -> float:
        """Multiplications a slot."""
        return float((self.rate - 1) * 2 * self.dim**2)


NETWORKS: dict[str, Callable[[int, int], Convolution | Dilated]] = {
    "conv": Convolution,
    "dilated": Dilated,
}
"""The functions that learn."""

POOLS: dict[str, Callable[[Tensor, int], Tensor]] = {"max": torch.amax, "mean": torch.mean}


class Compressor(Keeper):
    """Keeps, compresses and learns to compress.

    Attributes:
        compress: groups (B, N, c, C) to slots (B, N, C); None where tokens are chosen.
        decode: slots (B, N, C) to what they were made of (B, N, c · C), for "auto-encoding".
    """

    def __init__(self, memory: Compressive, sizes: Sizes) -> None:
        super().__init__(sizes)
        self.memory = memory
        self.compress: Pooling | Convolution | Dilated | None = None
        self.decode: nn.Linear | None = None
        if memory.function in NETWORKS:
            self.compress = NETWORKS[memory.function](sizes.dim, memory.rate)
        elif memory.function in POOLS:
            self.compress = Pooling(POOLS[memory.function])
        if memory.loss == "auto-encoding":
            self.decode = nn.Linear(sizes.dim, memory.rate * sizes.dim)

    def start(self, batch: int, like: Tensor) -> Compressed:
        slots = self.memory.compressed
        exact = torch.promote_types(like.dtype, torch.float32)
        return Compressed(
            like.new_zeros(batch, slots, self.sizes.dim),
            torch.full((batch, slots), EMPTY, device=like.device),
            slots,
            attended=like.new_zeros(batch, slots, dtype=exact) if self.memory.listens else None,
        )

    def fits(self, carried: Carried) -> bool:
        if not isinstance(carried, Compressed) or carried.slots != self.memory.compressed:
            return False
        sizes, told = self.sizes, carried.attended is not None
        keys = carried.k is None or carried.k.shape[1::2] == (sizes.kv_heads, sizes.head_dim)
        return keys and carried.x.shape[2] == sizes.dim and told == self.memory.listens

    def slots(self, state: Any) -> Tensor:
        pos = state.pos
        whole = pos[:, self.memory.compressed :]
        if whole.shape[1] and _known(whole):
            # without those that hold nothing in any row: what was in them is compressed now
            return self._trimmed(pos, int((whole != EMPTY).sum(1).max()))
        return pos

    def stands(self, state: Any) -> tuple[Tensor, Tensor]:
        pos, spans = super().stands(state)
        if not self.memory.listens:
            spans[:, : self.memory.compressed] = self.memory.rate
        return pos, spans

    def recall(self, state: Any, project: Project, need: int | None) -> Recalled:
        whole = (state.pos.shape[1] if need is None else need) - self.memory.compressed
        if state.k is None or state.v is None or self.training:
            k, v = project(self._trimmed(state.x, whole))
        else:
            k, v = self._trimmed(state.k, whole, 2), self._trimmed(state.v, whole, 2)
        return Recalled(k, v, self._trimmed(state.pos, whole), project)

    def heard(self, past: Past, weights: Tensor) -> Recalled:
        assert isinstance(past, Recalled)
        return replace(past, weights=weights)

    def products(self) -> tuple[float, float]:
        sizes, made = self.sizes, 0.0 if self.compress is None else self.compress.products()
        # a slot is made, then its key and value
        slot = made + 2 * sizes.dim * sizes.kv_heads * sizes.head_dim
        return slot / self.memory.rate, 0.0

    def write(
        self, state: Any, past: Past, x: Tensor, k: Tensor, v: Tensor, places: Places, slack: int
    ) -> Compressed:
        assert isinstance(past, Recalled)
        memory, training = self.memory, places.opened is not None
        slots, rate, width = memory.compressed, memory.rate, past.pos.shape[1]
        pos = torch.cat(places.kept(past.pos), 1)
        columns = {"x": torch.cat([self._trimmed(state.x, width - slots), x], 1)}
        if not training:
            columns |= {"k": torch.cat([past.k, k], 2), "v": torch.cat([past.v, v], 2)}
        if past.weights is not None:
            before = self._trimmed(state.attended, width - slots)
            columns["attended"] = nn.functional.pad(before, (0, x.shape[1])) + past.weights

        # whole tokens are consecutive and end with each row's newest
        end = width + (x.shape[1] if places.valid is None else places.valid.sum(1, keepdim=True))
        newest = pos.gather(1, (pos.new_zeros(len(pos), 1) + end - 1).clamp(min=0))
        leaves = self._leaves(pos, newest, training)
        made = leaves.sum(1, keepdim=True) // rate
        asked = x.new_zeros(len(x)) if training and memory.loss != "none" else None
        most = max(0, pos.shape[1] - slots - memory.tokens) // rate
        if not training:
            # beside the M tokens never more than a segment is held
            most = min(most, max(1, self.sizes.segment // rate))
        if most and not (_known(leaves) and not bool(leaves.any())):
            begin = end - (pos[:, slots:] != EMPTY).sum(1, keepdim=True)
            index = begin + torch.arange(most * rate, device=pos.device)
            index = index.clamp(max=pos.shape[1] - 1)
            left, left_pos = take(columns["x"], index), pos.gather(1, index)
            if self.compress is None:
                # averaged over the queries that could see it
                share = columns["attended"].gather(1, index) / (newest + 1 - left_pos)
                chosen = _highest(share, made, most)
                new, new_pos = take(left, chosen), left_pos.gather(1, chosen)
            else:
                new = self.compress(left.unflatten(1, (most, rate)))
                new_pos = left_pos.unflatten(1, (most, rate))[:, :, -1]
            fresh = {"x": new}
            if not training:
                fresh["k"], fresh["v"] = past.project(new)
            if "attended" in columns:
                fresh["attended"] = columns["attended"].new_zeros(new_pos.shape)
            columns = {n: torch.cat([t, fresh[n]], _dim(n)) for n, t in columns.items()}
            if asked is not None:
                asked = self._loss(left, new, made, x, places, past.project)
            pos = torch.cat([pos.masked_fill(leaves, EMPTY), new_pos], 1)

        # what stays: the newest slots, new ones last, and the newest tokens
        total = width + x.shape[1]
        slot = made + torch.arange(slots, device=pos.device)
        slot = torch.where(slot < slots, slot, slot + total - slots)
        keep = min(total - slots, memory.tokens + max(slack, rate - 1))
        token = end + torch.arange(-keep, 0, device=pos.device).expand(len(pos), -1)
        index = torch.cat([slot, token], 1)
        # the rows of a padded batch that hold fewer tokens than others
        none = torch.cat([slot < 0, token < slots], 1)
        index = index.clamp(min=0)
        return Compressed(
            pos=pos.gather(1, index).masked_fill(none, EMPTY),
            slots=slots,
            asked=asked,
            **{n: take(t, index, _dim(n)) for n, t in columns.items()},
        )

    def _trimmed(self, held: Tensor, whole: int, dim: int = 1) -> Tensor:
        """The compressed slots and the `whole` last others, of N + W along `dim`."""
        slots = self.memory.compressed
        first, last = held.narrow(dim, 0, slots), held.narrow(dim, held.shape[dim] - whole, whole)
        return held if slots + whole == held.shape[dim] else torch.cat([first, last], dim)

    def _leaves(self, pos: Tensor, newest: Tensor, training: bool) -> Tensor:
        """(B, S) bool, whole tokens that are compressed after this call: such as fill slots."""
        memory = self.memory
        edge = (newest + 1 - memory.tokens).div(memory.rate, rounding_mode="floor") * memory.rate
        leaves = (pos != EMPTY) & (pos < edge)
        leaves[:, : memory.compressed] = False
        # in training a call is a segment
        return leaves if training else leaves & ((newest + 1) % self.sizes.segment == 0)

    def _loss(
        self, left: Tensor, new: Tensor, made: Tensor, x: Tensor, places: Places, project: Project
    ) -> Tensor:
        """(B,) what is lost of `left` (B, N · c, C) in `new` (B, N, C), `made` of them real."""
        most, rate = new.shape[1], self.memory.rate
        real = torch.arange(most, device=x.device) < made
        if left.requires_grad:
            # the network alone is taught, not what it reads
            assert self.compress is not None
            left = left.detach()
            new = self.compress(left.unflatten(1, (most, rate)))
        if self.decode is not None:
            error = (self.decode(new) - left.unflatten(1, (most, rate)).flatten(2)).square()
            return _mean(error.mean(2), real)
        still = project.still()
        q, mask = still.queries(x.detach()), real[:, None]
        before = _attend(q, *still(left), mask.repeat_interleave(rate, 2))
        error = (before - _attend(q, *still(new), mask)).square().mean((1, 3))
        reads = torch.ones_like(places.pos, dtype=torch.bool) & real[:, :1]
        if places.valid is not None:
            reads = reads & places.valid
        if places.doc is not None:
            reads = reads & (places.doc == places.doc[:, -1:])
        return _mean(error, reads)


def _known(mask: Tensor) -> bool:
    """Whether a choice may depend on what `mask` holds."""
    return not (torch.compiler.is_compiling() or mask.is_meta)


def _dim(name: str) -> int:
    """The dimension of the slots."""
    return 2 if name in "kv" else 1


def _highest(share: Tensor, made: Tensor, most: int) -> Tensor:
    """(B, most) int64, the columns of the `made` highest of `share` (B, most · c), in their order.

    Only the first `made` · c columns count. Of equals the older one is taken.
    """
    column = torch.arange(share.shape[1], device=share.device)
    rate = share.shape[1] // most
    share = share.masked_fill(column >= made * rate, -math.inf)
    chosen = share.argsort(dim=1, descending=True, stable=True)[:, :most]
    chosen = chosen.masked_fill(column[:most] >= made, share.shape[1])
    return chosen.sort(1).values.clamp(max=share.shape[1] - 1)


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """(B, H, T, D) of queries (B, H, T, D) over the keys (B, G, S, D) in `mask` (B, 1, S)."""
    each, q = q.shape[1] // k.shape[1], q * q.shape[3] ** -0.5
    # finite where nothing is there, which nobody reads
    low = torch.zeros(mask.shape, dtype=q.dtype, device=q.device)
    low = low.masked_fill(~mask, torch.finfo(q.dtype).min / 2)
    answers = []
    for head, query in enumerate(q.unbind(1)):
        key, value = k[:, head // each], v[:, head // each]
        answers.append(torch.baddbmm(low, query, key.transpose(1, 2)).softmax(-1) @ value)
    return torch.stack(answers, 1)


def _mean(error: Tensor, counted: Tensor) -> Tensor:
    """(B,) mean of `error` (B, N) over what is `counted`; 0 where nothing is."""
    return (error * counted).sum(1) / counted.sum(1).clamp(min=1)
