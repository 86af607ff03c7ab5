"""Branches of a trunk are what the state's rows would be, whatever rows are asked for."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from longspan.buffer import Keys
from longspan.models import branches as module
from longspan.models.branches import Branches, Trunk
from longspan.models.cross import Source
from longspan.state import EMPTY, State

HEADS, DIM, LAYERS = 2, 3, 2


def begun(rows: int, held: int, ragged: bool = False) -> Trunk:
    """A state of random keys that has read `held` tokens, fewer in its last row if ragged."""
    torch.manual_seed(0)
    pos = torch.arange(held).repeat(rows, 1)
    if ragged:
        pos[-1] = torch.tensor([EMPTY] * 2 + list(range(held - 2)))
    shape = (rows, HEADS, held, DIM)
    layers = tuple(Keys(torch.randn(shape), torch.randn(shape), pos) for _ in range(LAYERS))
    source = torch.randn(rows, HEADS, 4, DIM)
    valid = torch.arange(4) < torch.arange(1, rows + 1)[:, None]
    sources = tuple(Source(source, source + 1, valid) for _ in range(LAYERS))
    state = Trunk.grown(State(pos.amax(1) + 1, layers, sources))
    assert isinstance(state, Trunk)
    return state


def written(state: Any, number: int) -> tuple[Branches, State]:
    """One token more of each row, as branches and as the plain state: the oracle."""
    branches = state if isinstance(state, Branches) else Branches.of(state)
    plain = branches.plain()
    after, keys = branches.grow(), []
    for index, held in enumerate(plain.layers):
        assert isinstance(held, Keys)
        torch.manual_seed(number)
        new = torch.randn(branches.rows, HEADS, 1, DIM) + index
        own = new[:, :, 0].view(-1, branches.width, HEADS, DIM).transpose(1, 2)
        room = after.room.layers[index].narrow(3, after.taken - after.width, after.width)
        room.copy_(torch.stack([own, -own]))
        pos = torch.cat([held.pos, plain.next[:, None]], 1)
        keys.append(Keys(torch.cat([held.k, new], 2), torch.cat([held.v, -new], 2), pos))
    return after, State(plain.next + 1, tuple(keys), plain.sources)


def same(mine: Any, other: State) -> None:
    mine = mine.plain() if isinstance(mine, Branches) else mine
    assert torch.equal(mine.next, other.next)
    every = zip((*mine.layers, *mine.sources), (*other.layers, *other.sources), strict=True)
    for own, others in every:
        for name, tensor in own.held().items():
            assert torch.equal(tensor, others.held()[name]), name


@pytest.mark.parametrize("ragged", [False, True], ids=["whole", "ragged"])
def test_rows_of_branches_are_rows_of_the_state(ragged: bool) -> None:
    mine: Any = begun(3, 5, ragged)
    asked = [
        [0, 0, 1, 1, 2, 2],  # two beams of each
        [1, 0, 2, 2, 5, 4],  # chosen anew
        [0, 1, 2, 3, 4, 5],  # as they were
        [4, 4, 1, 0],  # a row is done
        [0, 3, 2],  # no longer beams of one text
        [2, 1, 1, 0],
    ]
    kinds = []
    for number, rows in enumerate(asked):
        index = torch.tensor(rows)
        expected = (mine.plain() if isinstance(mine, Branches) else mine).map(
            lambda t, index=index: t.index_select(0, index)
        )
        mine = mine.select(index)
        same(mine, expected)
        kinds.append(type(mine) is Branches and mine.width)
        mine, expected = written(mine, number)
        same(mine, expected)
    assert kinds[:4] == [2, 2, 2, 2], "beams are kept side by side"
    assert mine.select(torch.tensor([], dtype=torch.long)).next.shape == (0,)


def test_choosing_beams_moves_no_keys() -> None:
    mine = begun(2, 4).select(torch.tensor([0, 0, 0, 1, 1, 1]))
    mine, _ = written(mine, 0)
    chosen = mine.select(torch.tensor([2, 2, 0, 4, 5, 5]))
    assert chosen.room is mine.room
    assert chosen.sources is mine.sources
    assert chosen.grow().room is mine.room


def test_a_slot_is_written_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROOM", 2)
    monkeypatch.setattr(module, "STEPS", 1)
    mine = begun(2, 4).select(torch.tensor([0, 0, 1, 1]))
    one, expected = written(mine, 0)
    other, others = written(mine, 1)
    assert one.room is not other.room
    # and where a room is full there is another
    rooms = {id(one.room)}
    for number in range(2, 8):
        one, expected = written(one, number)
        same(one, expected)
        rooms.add(id(one.room))
    assert len(rooms) > 1
    same(other, others)


def test_positions_stay_within_their_bounds() -> None:
    mine = Branches.of(begun(3, 5, ragged=True))
    for steps in range(2 * module.ROOM):
        low, high = (bound + mine.steps for bound in mine.bounds)
        assert (low, high) == (3 + steps, 5 + steps)
        assert (int(mine.start.min()), int(mine.start.max())) == (low, high)
        mine = mine.grow()


def test_what_no_branch_sees_does_not_move_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROOM", 4)
    monkeypatch.setattr(module, "STEPS", 2)
    mine: Any = begun(2, 5, ragged=True).select(torch.tensor([0, 0, 0, 1, 1, 1]))
    rooms, taken = [mine.room], []
    for number in range(12):
        # all beams of the first text go on from one, of the second from two
        mine = mine.select(torch.tensor([1, 1, 1, 3, 3, 5]))
        mine, expected = written(mine, number)
        same(mine, expected)
        if mine.room is not rooms[-1]:
            rooms.append(mine.room)
            taken.append(mine.taken)
    assert len(rooms) > 3
    # of 36 slots that were written the second text sees two a step
    assert taken[-1] <= 5 + 2 * 12 + 3
