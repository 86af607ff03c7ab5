"""What a memory of tokens should hold, as a list a row."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from longspan.slots import Memory, Places
from longspan.state import EMPTY, Carried
from tests.streams import Call

DIM, HEADS, HEAD_DIM, ROWS = 2, 2, 1, 3
Held = tuple[int, float]
"""A token's position in its document and its value."""


def project(x: Tensor) -> tuple[Tensor, Tensor]:
    """Hidden states (B, S, C) to keys and values (B, H, S, D)."""
    keys = x.unflatten(-1, (HEADS, HEAD_DIM)).transpose(1, 2)
    return 2 * keys, 3 * keys


class Rows:
    """Tokens of each row's newest document, oldest first; every token has a value of its own."""

    def __init__(self, zeros: int = 0) -> None:
        self.zeros = zeros
        self.held: list[list[Held]] = [self.fresh() for _ in range(ROWS)]
        self.given = 0

    def fresh(self) -> list[Held]:
        """What stands before a document: zero-filled slots at -zeros .. -1."""
        return [(position, 0.0) for position in range(-self.zeros, 0)]

    def take(self, call: Call) -> Tensor:
        """Adds a call's tokens; gives their hidden states (B, T, C), padding included."""
        x = torch.arange(1.0, 1 + ROWS * call.length, dtype=torch.float64).view(ROWS, -1)
        x = x + self.given
        self.given += ROWS * call.length
        for row, (count, begun) in enumerate(zip(call.counts, call.begun, strict=True)):
            for slot in range(count):
                if slot in begun:
                    self.held[row] = self.fresh()
                last = self.held[row][-1][0] if self.held[row] else -1
                self.held[row].append((last + 1, float(x[row, slot])))
        return x[:, :, None].expand(-1, -1, DIM)


def feed(memory: Memory, calls: Sequence[Call], rows: Rows, slack: int, training: bool) -> Carried:
    """Writes the calls into a memory as an attention layer does."""
    like = torch.zeros((), dtype=torch.float64)
    state = memory.start(ROWS, DIM, HEADS, HEAD_DIM, like)
    clock = torch.zeros(ROWS, dtype=torch.long)
    for call in calls:
        x = rows.take(call)
        places, clock = Places.of(clock, call.length, call.valid, call.starts, training)
        past = memory.recall(state, project, None)
        state = memory.write(state, past, x, *project(x), places, slack)
    return state


def assert_holds(state: Carried, rows: Rows, most: int | None) -> None:
    """The state's slots are the newest `most` of each row's list, right-aligned."""
    tensors = state.tensors()
    for row, held in enumerate(rows.held):
        width = tensors["pos"].shape[1]
        kept = held[max(0, len(held) - width) :]
        assert most is None or width <= most
        if most is not None:
            assert len(kept) == min(len(held), most)
        positions = [EMPTY] * (width - len(kept)) + [position for position, _ in kept]
        assert tensors["pos"][row].tolist() == positions
        values = torch.tensor([value for _, value in kept], dtype=torch.float64)[:, None]
        if "x" in tensors:
            assert (tensors["x"][row, width - len(kept) :] == values).all()
        else:
            assert (tensors["k"][row, :, width - len(kept) :] == 2 * values).all()
            assert (tensors["v"][row, :, width - len(kept) :] == 3 * values).all()
