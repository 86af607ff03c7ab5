"""Tiles: how a long call is computed without its hidden pairs, on any device.

A pattern says where the keys of a query lie (`Pattern.near`, `Pattern.far`). From that follow
tiles: a few queries, and all the keys that any of them may see. Tiles are folded into the batch,
where position and kernel work on them as on any batch, with the exact mask of each; then the
answers are put back. So neither the (T, S) scores nor the mask of a long call is ever made, and
what lies in no tile is not computed.

A call of few pairs is computed whole, and so is one of which tiles would save little (`LEAST`,
`SAVED`).

Tiles are worked off in groups of about `GROUP` scores. Where a gradient is asked for and there is
more than one group, a group's answers are computed again when its gradient is (a third more work),
so that the room for scores does not grow with the call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from longspan.slots import NOWHERE, Near, Pairs
from longspan.state import EMPTY

LEAST = 2**16
"""Pairs of a row's call below which it is computed whole: cutting it would take longer."""

SAVED = 0.4
"""Share of the pairs that tiles must save."""

GROUP = 2**21
"""Scores of a group: 8 MB in float32."""

FEWEST, MOST = 64, 512
"""Queries of a tile: fewer make small products, more see too much in vain."""

Meet = Callable[[Tensor, Tensor, Tensor, Pairs], tuple[Tensor, Tensor | None]]
"""Queries (B, H, T, D), keys and values (B, G, S, D) and their pairs to answers (B, H, T, D), and
to the logarithms of their sums (B, H, T) where several answers are to be merged."""


@dataclass(frozen=True)
class Group:
    """Tiles of one size, N for each row of the batch.

    Attributes:
        q: (1 or B, N, t) int64, slots of the queries in the call; -1 for none.
        k: (1 or B, N, s) int64, slots of the keys, the past first; -1 for none.
        pairs: of the B · N tiles.
    """

    q: Tensor
    k: Tensor
    pairs: Pairs

    @property
    def computed(self) -> int:
        """Pairs of a row of the batch, seen or not."""
        return self.q[0].numel() * self.k.shape[2]

    def visible(self, *, wide: bool = False) -> int:
        """Pairs that meet, of all rows of the batch; of marked queries only if it is `wide`."""
        rows = len(self.pairs.q_pos) // self.q.shape[1]
        real = (self.q >= 0).expand(rows, -1, -1).flatten(0, 1)
        if self.pairs.q.marked is not None and not wide:
            real = real & ~self.pairs.q.marked
        return int((self.pairs.visible & real[:, :, None]).sum())


@dataclass(frozen=True)
class Tiling:
    """A call as tiles.

    Attributes:
        parts: groups of tiles. Every query is in one tile of each part, and every pair that meets
            is in one part.
        wide: tiles of the marked queries alone, with all keys; what the parts say of them is not
            used.
    """

    parts: tuple[tuple[Group, ...], ...]
    wide: tuple[Group, ...] = ()

    @property
    def computed(self) -> int:
        """Pairs of a row of the batch, seen or not."""
        return sum(group.computed for part in (*self.parts, self.wide) for group in part)

    @property
    def visible(self) -> int:
        """Pairs that meet, of all rows of the batch."""
        narrow = sum(group.visible() for part in self.parts for group in part)
        return narrow + sum(group.visible(wide=True) for group in self.wide)


def tiling(pairs: Pairs, heads: int) -> Tiling | None:
    """The tiles of a call of `heads` heads; None if it is to be computed whole."""
    t, s = pairs.shape
    parts = () if pairs.pattern is None else pairs.pattern.near(pairs.q.opened)
    few = (1 - SAVED) * s
    if not parts or t * s < LEAST or sum(_fewest(near, t, s) for near in parts) > few:
        return None
    far = _far(pairs)
    special = far is not None or pairs.q.chosen is not None or pairs.q.marked is not None
    endless = any(near.back is None for near in parts)
    if torch.compiler.is_compiling() and (special or endless):
        # how many keys are marked, or how many sizes of tiles there are, is no fixed shape
        return None
    made = Tiling(
        tuple(
            tuple(
                group
                for cut in _cuts(near, pairs)
                for group in _groups(pairs, near if len(parts) > 1 else None, cut, far, heads)
            )
            for near in parts
        ),
        wide(pairs, heads),
    )
    return made if made.computed <= few * t else None


def fold(
    parts: Sequence[tuple[Group, ...]],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    meet: Meet,
    weights: Sequence[Tensor],
) -> Tensor:
    """What `meet` would give for the whole call, (B, H, T, D); 0 where a query is in no tile.

    Args:
        parts: groups of tiles.
        q: (B, H, T, D).
        k, v: (B, G, S, D).
        meet: called with each group of tiles, in order.
        weights: what `meet` depends on and may be learned.
    """
    (batch, heads, t, width), s = q.shape, k.shape[2]
    rows = [x.transpose(1, 2).flatten(0, 1) for x in (q, k, v)]

    def work_off(groups: tuple[Group, ...]) -> tuple[Tensor, Tensor]:
        work = _Work(groups, meet, batch, t, s)
        again = len(groups) > 1 and torch.is_grad_enabled() and not torch.compiler.is_compiling()
        return _Again.apply(work, *rows, *weights) if again else work.forward(*rows)

    answers = [work_off(groups) for groups in parts]
    out = answers[0][0]
    if len(answers) > 1:
        # each part's share of the one softmax over all keys
        shares = torch.stack([sums for _, sums in answers]).softmax(0).to(out.dtype)
        out = (torch.stack([out for out, _ in answers]) * shares[..., None]).sum(0)
    return out.view(batch, t, heads, width).transpose(1, 2)


def flat(slots: Tensor, batch: int, length: int, none: int) -> Tensor:
    """Slots (1 or B, N, t) of calls of `length` as rows of all; `none` for a negative one."""
    each = torch.arange(batch, device=slots.device)[:, None, None] * length
    return torch.where(slots < 0, none, slots + each).flatten()


# -- which tiles ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Cut:
    """Tiles of one size as slots of the call (the past's are negative), in range or not.

    Attributes:
        q: (N, t) int64.
        k: (N, s) int64, `step` apart and `ahead` of them after the last query.
    """

    q: Tensor
    k: Tensor
    step: int
    ahead: int


def _fewest(near: Near, t: int, s: int) -> float:
    """Keys that a query meets in a tile at least, on average."""
    every = s / near.step
    if near.back is None:
        return every / 2
    return min(every, (near.back + near.ahead) / near.step + min(FEWEST, t / near.step))


def _cuts(near: Near, pairs: Pairs) -> Iterator[_Cut]:
    t, s = pairs.shape
    past, step, device = s - t, near.step, pairs.q_pos.device
    # every step-th slot is a sequence of its own, of which tiles are runs
    classes, length = min(step, t), -(-t // step)
    before = -(-past // step)
    back = None if near.back is None else near.back // step
    ahead, first = near.ahead // step, 0
    around = (length // 2 if back is None else back) + ahead
    # half as many queries as they see keys: no more than a third of the pairs in vain
    count = min(max(FEWEST, -(-around // 64) * 32), MOST)
    if near.block > 1 and back is not None:
        phase = _phase(pairs, near.block)
        if phase is None or near.block > MOST:
            # wherever the block of a tile's first query began
            back += near.block - 1
            ahead = 0 if pairs.causal else ahead + near.block - 1
        else:
            count, first = near.block * max(1, FEWEST // near.block), -phase
    each = torch.arange(classes, device=device)[:, None]

    def cut(begins: range, size: int, low: int, high: int) -> _Cut:
        """Tiles of `size` queries, with keys from `low` before the first to `high` after it."""
        start = torch.tensor(begins, device=device)[:, None, None]
        q, k = (start + torch.arange(a, b, device=device) for a, b in ((0, size), (-low, high)))
        q, k = (torch.add(each, u, alpha=step).flatten(0, 1) for u in (q, k))
        return _Cut(q, k, step, high - size)

    if back is not None and length - first <= count:
        low, high = min(back, before), length if pairs.causal else min(count + ahead, length)
        yield cut(range(1), length, low - min(first, 0), high)
    elif back is None or back >= before + length:
        for begin in range(first, length, count):
            size = min(count, length - begin)
            yield cut(range(begin, begin + 1), size, before + begin, size + ahead)
    else:
        yield cut(range(first, length, count), count, back, count + ahead)


def _phase(pairs: Pairs, block: int) -> int | None:
    """How far in its block the call begins, if all rows begin there and no document in them."""
    if torch.compiler.is_compiling() or pairs.q.doc is not None:
        return None
    phase = pairs.q_pos[:, 0] % block
    return int(phase[0]) if bool((phase == phase[0]).all()) else None


@dataclass(frozen=True)
class _Far:
    """Keys that are seen from afar.

    Attributes:
        slots: (B, F) int64, rising, after the last of a row S.
        rank: (B, S + 1) int64, how many of them stand before each slot.
    """

    slots: Tensor
    rank: Tensor

    @staticmethod
    def of(marked: Tensor) -> _Far:
        """Those that are True in (B, S) bool."""
        rank, s = torch.nn.functional.pad(marked.cumsum(1), (1, 0)), marked.shape[1]
        slots = torch.where(marked, torch.arange(s, device=marked.device), s)
        return _Far(slots.sort(1).values[:, : int(rank[:, -1].max())], rank)


def _far(pairs: Pairs) -> _Far | None:
    pattern, (t, s) = pairs.pattern, pairs.shape
    assert pattern is not None, "a tile has no tiles"
    k = pairs.k_pos
    marked = pattern.far(k)
    if pairs.run < s:
        # what the memory holds elsewhere than where its distance would be
        due = pairs.q_pos[:, :1] - torch.arange(s - t, -t, -1, device=k.device)
        apart = (k != due) & (k != EMPTY)
        apart[:, s - t :] = False
        if pairs.q.doc is not None:
            apart &= pairs.q.doc[:, :1] == 0
        marked = apart if marked is None else marked | apart
    if pairs.k.marked is not None:
        marked = pairs.k.marked if marked is None else marked | pairs.k.marked
    return None if marked is None else _Far.of(marked)


def _groups(
    pairs: Pairs, part: Near | None, cut: _Cut, far: _Far | None, heads: int
) -> Iterator[Group]:
    (t, s), batch, (count, size) = pairs.shape, len(pairs.q_pos), cut.q.shape
    q = cut.q.masked_fill((cut.q < 0) | (cut.q >= t), -1)
    k = cut.k + (s - t)
    # the keys of these tiles are consecutive, where the call's are
    runs = (k[:, 0] >= s - pairs.run).tolist() if pairs.run < s else [True] * count
    begin, end = k[:, 0].clamp(0, s), k[:, -1].clamp(-1, s - 1)
    k = k.masked_fill((k < 0) | (k >= s), -1)
    low = high = torch.zeros(batch, count, dtype=torch.long, device=k.device)
    if far is not None:
        low, high = _marked(pairs, far, q[:, 0].clamp(min=0), begin)
    widths = (high - low).clamp(min=0).amax(0).tolist()
    chosen = _chosen(pairs, q, far, begin, end)
    more = 0 if chosen is None else chosen.shape[2]
    for low_tile, high_tile in _split(widths, runs, batch * heads * size, k.shape[1] + more):
        own = slice(low_tile, high_tile)
        keys, width = k[None, own], max(widths[own])
        if chosen is not None:
            keys = torch.cat([chosen[:, own], keys.expand(batch, -1, -1)], 2)
        if far is not None and width:
            index = low[:, own, None] + torch.arange(width, device=k.device)
            slots = far.slots.gather(1, index.clamp(max=far.slots.shape[1] - 1).flatten(1))
            slots = slots.view_as(index)
            twice = (slots >= begin[own, None]) & (slots <= end[own, None])
            slots = slots.masked_fill((index >= high[:, own, None]) | twice, -1)
            keys = torch.cat([slots, keys.expand(batch, -1, -1)], 2)
        queries = q[None, own]
        run = k.shape[1] if runs[low_tile] else 0
        yield Group(queries, keys, _pairs(pairs, queries, keys, cut, run, part))


def _marked(pairs: Pairs, far: _Far, first: Tensor, begin: Tensor) -> tuple[Tensor, Tensor]:
    """(B, N), the first of the marked keys of each tile, and the first that is none any more.

    From the document of the tile's first query (N,) on, and if causal before its near keys begin.
    """
    rows = len(pairs.q_pos)
    low = torch.zeros(rows, len(first), dtype=torch.long, device=first.device)
    if pairs.q.doc is not None:
        past = pairs.shape[1] - pairs.shape[0]
        start = past + first - pairs.q_pos[:, first]
        low = torch.where(pairs.q.doc[:, first] > 0, far.rank.gather(1, start.clamp(min=0)), 0)
    high = far.rank[:, begin] if pairs.causal else far.rank[:, -1:].expand(-1, len(first))
    return low, high


def _chosen(pairs: Pairs, q: Tensor, far: _Far | None, begin: Tensor, end: Tensor) -> Tensor | None:
    """(B, N, s) slots of the blocks that any query of a tile has chosen, each once; -1 for none."""
    chosen, pattern = pairs.q.chosen, pairs.pattern
    if chosen is None or pattern is None:
        return None
    (near,) = pattern.near(pairs.q.opened)
    t, s = pairs.shape
    index = q.clamp(min=0)
    # queries of one block have chosen alike: the first of each block speaks for it
    first = pairs.q_pos % near.block == 0
    first[:, index[:, 0]] = True
    spoken = first[:, index] & (q >= 0)
    count = int(spoken.sum(2).max())
    slots = torch.where(spoken, index, t).sort(2).values[..., :count]
    there, slots = slots < t, slots.clamp(max=t - 1).flatten(1)
    # where position 0 of its document would stand
    origin = s - t + slots - pairs.q_pos.gather(1, slots)
    blocks = chosen.gather(1, slots[..., None].expand(-1, -1, chosen.shape[2]))
    there = there.flatten(1)[..., None] & (blocks < NOWHERE)
    starts = torch.where(there, origin[..., None] + blocks, NOWHERE).view(len(chosen), len(q), -1)
    starts = starts.sort(2).values
    twice = torch.nn.functional.pad(starts[..., 1:] == starts[..., :-1], (1, 0))
    starts = starts.masked_fill(twice, NOWHERE)
    keys = (starts[..., None] + torch.arange(near.block, device=q.device)).flatten(2)
    keys = keys.masked_fill((keys >= begin[:, None]) & (keys <= end[:, None]), -1)
    keys = keys.masked_fill((keys < 0) | (keys >= s), -1)
    if far is not None:
        held = far.rank.diff(dim=1).gather(1, keys.clamp(min=0).flatten(1)).view_as(keys)
        keys = keys.masked_fill(held > 0, -1)
    return keys


def wide(pairs: Pairs, heads: int) -> tuple[Group, ...]:
    """Tiles of the marked queries of a call, who see all."""
    return () if pairs.q.marked is None else tuple(_wide(pairs, pairs.q.marked, heads))


def _wide(pairs: Pairs, queries: Tensor, heads: int) -> Iterator[Group]:
    marked, s = _Far.of(queries).slots, pairs.shape[1]
    count = marked.shape[1]
    if not count:
        return
    size = min(count, FEWEST)
    marked = torch.nn.functional.pad(marked, (0, -count % size), value=pairs.shape[0])
    slots = marked.masked_fill(marked == pairs.shape[0], -1).unflatten(1, (-1, size))
    keys = torch.arange(s, device=marked.device)[None, None]
    each = max(1, GROUP // (len(marked) * heads * size * s))
    for q in slots.split(each, 1):
        k = keys.expand(1, q.shape[1], -1)
        yield Group(q, k, _pairs(pairs, q, k, _Cut(q, k, 1, 0), 0, None))


def _split(
    widths: list[int], runs: list[bool], queries: int, near: int
) -> Iterator[tuple[int, int]]:
    """Tiles from .. to of each group: alike in kind, not too unlike in size, not too many."""
    first, widest = 0, 0
    for tile, width in enumerate(widths):
        wider = max(widest, width)
        full = (tile + 1 - first) * queries * (near + wider) > GROUP
        unlike = wider > 2 * widths[first] + MOST or runs[tile] != runs[first]
        if tile > first and (full or unlike):
            yield first, tile
            first, wider = tile, width
        widest = wider
    yield first, len(widths)


def _pairs(
    pairs: Pairs, queries: Tensor, keys: Tensor, cut: _Cut, run: int, part: Near | None
) -> Pairs:
    q, k, pattern = pairs.q.take(queries), pairs.k.take(keys, EMPTY), pairs.pattern
    assert pattern is not None, "a tile has no tiles"

    def see() -> Tensor:
        seen = pattern.shows(q, k)
        if part is None:
            return seen
        back = q.pos[:, :, None] - k.pos[:, None, :]
        seen = seen & (back > part.beyond)
        return seen if part.back is None else seen & (back <= part.back)

    return Pairs(q, k, see, pairs.causal, run, cut.step, cut.ahead)


# -- working them off -----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Work:
    """The groups of one part, worked off on rows of tokens (B · T, H, D)."""

    groups: tuple[Group, ...]
    meet: Meet
    batch: int
    t: int
    s: int

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """(B · T, H, D), and (B · T, H) the logarithms of sums, or (0, H) if there are none."""
        out = torch.empty_like(q[:1]).expand(0, -1, -1)
        sums = out[..., 0]
        for group in self.groups:
            answer, total = self.answer(group, *self.gather(group, q, k, v))
            if not len(out):
                # a row more than there are queries takes what belongs to none
                out = answer.new_zeros(len(q) + 1, *answer.shape[1:])
                sums = sums if total is None else total.new_zeros(len(q) + 1, total.shape[1])
            index = flat(group.q, self.batch, self.t, len(q))
            out = out.index_copy_(0, index, answer)
            if total is not None:
                sums = sums.index_copy_(0, index, total)
        return out[: len(q)], sums[: len(q)]

    def gather(self, group: Group, *rows: Tensor) -> list[Tensor]:
        """Queries, keys and values of a group's tiles: (B · N, H, t or s, D)."""
        q, k = flat(group.q, self.batch, self.t, 0), flat(group.k, self.batch, self.s, 0)
        shapes = (group.q.shape[2], group.k.shape[2], group.k.shape[2])
        return [
            each.index_select(0, index).view(-1, size, *each.shape[1:]).transpose(1, 2)
            for each, index, size in zip(rows, (q, k, k), shapes, strict=True)
        ]

    def answer(self, group: Group, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor | None]:
        """Rows of tokens again: (B · N · t, H, D), and (B · N · t, H) or None."""
        # what was made of a group's pairs is kept for the other layers if it is the only one
        pairs = group.pairs if len(self.groups) == 1 else group.pairs.afresh()
        out, sums = self.meet(q, k, v, pairs)
        return out.transpose(1, 2).flatten(0, 1), (
            None if sums is None else sums.transpose(1, 2).flatten(0, 1)
        )


class _Again(torch.autograd.Function):
    """`_Work.forward`, computed again group by group for the gradient."""

    @staticmethod
    def forward(ctx: Any, work: _Work, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        q = tensors[0]
        ctx.work = work
        ctx.save_for_backward(*tensors)
        ctx.draws = _draws(q.device)
        kind = q.device.type
        ctx.cast = (kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind))
        out, sums = work.forward(*tensors[:3])
        if not len(sums):
            ctx.mark_non_differentiable(sums)
        return out, sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # type: ignore[override]
        work: _Work = ctx.work
        rows, weights = ctx.saved_tensors[:3], ctx.saved_tensors[3:]
        kind, dtype, enabled = ctx.cast
        total = [torch.zeros_like(each) for each in rows]
        learned: list[Tensor | None] = [None] * len(weights)
        # nobody asks for the answers of no query
        given = [torch.cat([each, torch.zeros_like(each[:1])]) for each in grad_outputs]
        devices = [rows[0].device] if rows[0].is_cuda else []
        with torch.random.fork_rng(devices):
            _draw_again(ctx.draws, rows[0].device)
            for group in work.groups:
                index = flat(group.q, work.batch, work.t, len(rows[0]))
                with torch.enable_grad(), torch.autocast(kind, dtype, enabled):
                    parts = [part.detach().requires_grad_() for part in work.gather(group, *rows)]
                    answers = [each for each in work.answer(group, *parts) if each is not None]
                gradients = torch.autograd.grad(
                    answers,
                    [*parts, *(weight for weight in weights if weight.requires_grad)],
                    [each.index_select(0, index) for each in given[: len(answers)]],
                    allow_unused=True,
                )
                slots = (group.q, work.t), (group.k, work.s), (group.k, work.s)
                for sum_, (where, length), part in zip(total, slots, gradients[:3], strict=True):
                    if part is not None:
                        more = part.transpose(1, 2).flatten(0, 1).to(sum_.dtype)
                        sum_.index_add_(0, flat(where, work.batch, length, 0), more)
                rest = iter(gradients[3:])
                for number, weight in enumerate(weights):
                    part = next(rest) if weight.requires_grad else None
                    before = learned[number]
                    if part is not None:
                        learned[number] = part if before is None else before + part
        return None, *total, *learned


def _draws(device: torch.device) -> list[Tensor]:
    """The states of the generators that dropout draws from."""
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def _draw_again(states: list[Tensor], device: torch.device) -> None:
    torch.set_rng_state(states[0])
    if len(states) > 1:
        torch.cuda.set_rng_state(states[1], device)
