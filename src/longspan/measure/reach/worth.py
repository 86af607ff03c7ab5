"""What a memory is worth: bits a byte that are lost when it is changed before it is read.

A text is read a segment at a time as always. Before each segment that a full memory stands in front
of, what layer i carries is also changed, the segment is scored with that, and the change forgotten:

    lost(i) = mean over t of (n_t with layer i changed - n_t) / ln 2 / bytes a token

and the same with every layer changed at once. Only what the segment reads differs; what earlier
segments made of the memory does not. The changes:

    emptied     as before the first token: slots hold nothing, sums and recurrent states are zero
    shuffled    what the slots hold changes places, in every layer by the same order
    swapped     what another piece carries at the same position, of another document where there is
    newest n    slots older than the newest n tokens hold nothing
    frozen      what it held when it was first full, at today's positions (a memory without limit:
                nothing newer than that); scored from the next segment on, where that differs

Positions stay with the slots, since patterns and positions judge by them; keys are held un-rotated,
so content may move. A state without slots (sums, recurrent units) has no order and no newest n:
there these two are not told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import log
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from longspan.errors import DataError
from longspan.measure.reach.bands import band
from longspan.measure.reach.contexts import checked
from longspan.measure.reach.predictor import Predictor
from longspan.state import EMPTY, Carried, take

Change = Callable[[Carried], Carried | None]
"""What becomes of a layer's memory; None where the change says nothing about it."""


HELD = {"k", "v", "x", "attended", "asked", "pos", "marked"}
"""Tensors of a memory that is its slots and nothing else."""


@dataclass(frozen=True)
class Loss:
    """What one change loses.

    Attributes:
        change: "emptied", "shuffled", "swapped", "newest 64", "frozen".
        layer: whose memory was changed; None for that of every layer. The last of a model that a
            memory wraps is that memory.
        bits_per_byte: lost.
        low, high: 95 % interval over pieces.
    """

    change: str
    layer: int | None
    bits_per_byte: float
    low: float
    high: float


@torch.no_grad()
def worth(
    predictor: Predictor,
    rows: NDArray[np.int64],
    owners: NDArray[np.int64],
    bytes_per_token: float,
    seed: int = 0,
) -> list[Loss]:
    """What is lost by each change, in each layer and in all; [] of a model that carries nothing.

    Args:
        predictor: the model.
        rows: (B, L + 1) pieces of the text, each behind a start symbol.
        owners: (B,) of which document each is.
        bytes_per_token: of the text.
        seed: of the shuffling.

    Raises:
        DataError: the pieces end before a full memory is read.
    """
    if not predictor.carried(predictor.start(len(rows))):
        return []
    tokens, step = torch.from_numpy(rows), predictor.segment
    # a memory of no one length counts as full after a segment
    full = max(1, -(-(predictor.memory or 0) // step))
    ends = range(step, rows.shape[1] - 1, step)
    if len(ends) < full:
        raise DataError(
            f"pieces of {rows.shape[1] - 1:,} tokens end before a memory of {full * step:,} tokens "
            "is read; give longer documents"
        )
    state, _ = _segment(predictor, tokens, 0, predictor.start(len(rows)))
    frozen: tuple[Carried, ...] = ()
    lost: dict[tuple[str, int | None], list[NDArray[np.float64]]] = {}
    scored: Counter[tuple[str, int | None]] = Counter()
    for number, low in enumerate(ends, 1):
        after, clean = _segment(predictor, tokens, low, state)
        if number == full:
            frozen = predictor.carried(state)
        if number >= full:
            changes = _changes(predictor, owners, frozen, seed + number)
            if number == full:
                # it is what is held now, and would dilute what is lost later
                del changes["frozen"]
            for key, other in _altered(predictor, state, changes):
                _, changed = _segment(predictor, tokens, low, other)
                lost.setdefault(key, []).append((changed - clean).sum(1))
                scored[key] += clean.shape[1]
        state = after
    found = []
    for (change, layer), parts in lost.items():
        each = np.sum(parts, 0)[:, None]
        weights = np.full_like(each, scored[change, layer] * bytes_per_token * log(2))
        low, high = band(each, weights)
        mean = float(each.sum() / weights.sum())
        found.append(Loss(change, layer, mean, float(low[0]), float(high[0])))
    return found


def _segment(
    predictor: Predictor, tokens: Tensor, low: int, state: Any
) -> tuple[Any, NDArray[np.float64]]:
    piece = tokens[:, low : low + predictor.segment + 1]
    nats, state = predictor.losses(piece[:, :-1], piece[:, 1:], state)
    return state, checked(nats.double().cpu().numpy(), predictor)


def _altered(
    predictor: Predictor, state: Any, changes: dict[str, Sequence[Change]]
) -> list[tuple[tuple[str, int | None], Any]]:
    """States with one layer changed, and with all; of those layers that a change speaks of."""
    carried = predictor.carried(state)
    found: list[tuple[tuple[str, int | None], Any]] = []
    for name, change in changes.items():
        made = [change[layer](one) for layer, one in enumerate(carried)]
        if all(one is None for one in made):
            continue
        every = [old if new is None else new for old, new in zip(carried, made, strict=True)]
        found.append(((name, None), predictor.carrying(state, every)))
        for layer, new in enumerate(made):
            if new is not None:
                some = [*carried[:layer], new, *carried[layer + 1 :]]
                found.append(((name, layer), predictor.carrying(state, some)))
    return found


def _changes(
    predictor: Predictor, owners: NDArray[np.int64], frozen: tuple[Carried, ...], seed: int
) -> dict[str, Sequence[Change]]:
    """Of each change, what it does to each layer."""
    layers = len(frozen)
    others = torch.from_numpy(another(owners))
    keep = predictor.memory or None
    changes: dict[str, Sequence[Change]] = {
        "emptied": [_emptied] * layers,
        "shuffled": [lambda one: shuffled(one, seed, keep)] * layers,
        "swapped": [lambda one: one.map(lambda t: t.index_select(0, others.to(t.device)))] * layers,
    }
    for newest in sorted({keep // 4, keep // 2}) if keep else ():
        if newest:
            changes[f"newest {newest}"] = [lambda one, n=newest: newest_only(one, n)] * layers
    changes["frozen"] = [lambda one, then=then: thawed(one, then, keep) for then in frozen]
    return changes


def _emptied(carried: Carried) -> Carried:
    first = next(iter(carried.tensors().values()))
    return carried.reset(torch.ones(len(first), dtype=torch.bool, device=first.device))


def another(owners: NDArray[np.int64]) -> NDArray[np.int64]:
    """(B,) for each row another one, of another document for as many as one shift allows."""
    count = len(owners)
    shifts = range(1, count) if count > 1 else [0]
    best = max(shifts, key=lambda shift: int((np.roll(owners, -shift) != owners).sum()))
    return (np.arange(count) + best) % count


def shuffled(carried: Carried, seed: int, keep: int | None = None) -> Carried | None:
    """What the newest `keep` slots hold (None: all) in another order; None without slots."""
    slots = _slots(carried)
    if slots is None:
        return None
    pos, names = slots
    held = getattr(carried, pos)
    count = held.shape[1]
    index = torch.arange(count).repeat(len(held), 1)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    for row, full in zip(index, (held != EMPTY).cpu(), strict=True):
        moves = full & (torch.arange(count) >= count - (keep or count))
        row[moves] = order[moves[order]]
    return _taking(carried, names, index.to(held.device))


def newest_only(carried: Carried, newest: int) -> Carried | None:
    """Slots older than the newest `newest` hold nothing; None without slots."""
    slots = _slots(carried)
    if slots is None:
        return None
    held = getattr(carried, slots[0]).clone()
    held[:, : max(0, held.shape[1] - newest)] = EMPTY
    return replace(carried, **{slots[0]: held})


def thawed(carried: Carried, then: Carried, keep: int | None = None) -> Carried:
    """What was held `then` in the slots of now."""
    slots = _slots(carried)
    if slots is None or _slots(then) is None:
        return then
    pos, names = slots
    now, before = getattr(carried, pos), getattr(then, pos)
    if keep is None:
        # all is kept: what was not known then is not known now
        newest = before.amax(1, keepdim=True) if before.shape[1] else before.new_full((1, 1), EMPTY)
        return replace(carried, **{pos: now.masked_fill(now > newest, EMPTY)})
    width = min(keep, now.shape[1], before.shape[1])
    changed = {}
    for name in names:
        new, old = getattr(carried, name), getattr(then, name)
        dim = _dim(new)
        rest = new.narrow(dim, 0, new.shape[dim] - width)
        changed[name] = torch.cat([rest, old.narrow(dim, old.shape[dim] - width, width)], dim)
    return replace(carried, **changed)


def _slots(carried: Carried) -> tuple[str, list[str]] | None:
    """The name of the slots' positions and those of what they hold; None without slots."""
    tensors = carried.tensors()
    if "ends" in tensors:
        pos, named = "ends", {"keys", "values"}
    elif "pos" in tensors and tensors.keys() <= HELD:
        pos, named = "pos", {"k", "v", "x", "attended"}
    else:
        # beside sums the slots are those of the unfinished segment
        return None
    return pos, sorted(named & tensors.keys())


def _dim(tensor: Tensor) -> int:
    """The dimension of the slots: after the heads where there are any."""
    return 2 if tensor.dim() == 4 else 1


def _taking(carried: Carried, names: list[str], index: Tensor) -> Carried:
    taken = {name: getattr(carried, name) for name in names}
    return replace(carried, **{n: take(t, index, _dim(t)) for n, t in taken.items()})
