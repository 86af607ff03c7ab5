"""Recurrent networks as mixers: what `rnn`, `lstm` and `gru` have in common.

The arithmetic is torch's (`nn.RNN`, `nn.LSTM`, `nn.GRU`), with the state as an argument and a
result. A call is cut at the columns where some row begins a document or ends, and only there: in
between all rows go on together. So padding leaves no trace and no document sees another.

With a pattern that looks both ways it runs both ways (Schuster and Paliwal 1997), each document of
each row by itself, and carries nothing on.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from longspan.errors import ConfigError, unlisted
from longspan.mixing import Layer, Mixer, Mixing, Nothing
from longspan.slots import Pairs, Places
from longspan.state import Carried


@dataclass(frozen=True)
class Units(Carried, kind="units"):
    """What the units of a recurrent network say to their next step.

    Attributes:
        h: (B, N) hidden state; zeros before a document.
    """

    h: Tensor

    def reset(self, rows: Tensor) -> Self:
        return self.map(lambda t: t.masked_fill(rows[:, None], 0.0))

    def kept(self, rows: Tensor, before: Self) -> Self:
        """This state in the rows marked in `rows` (B,) bool, and `before` in the others."""
        old = before.tensors()
        mixed = {n: torch.where(rows[:, None], t, old[n]) for n, t in self.tensors().items()}
        return replace(self, **mixed)


class Recurrence(Mixing):
    """A recurrent network in one layer: y_t = o(h_t).

    Args:
        cells: torch's network of one layer, batch first, from C to N.
        carried: what it carries; its tensors are the network's states, in torch's order.
        norm: normalises what it reads.
    """

    def __init__(
        self, cells: nn.RNNBase, carried: type[Units] = Units, norm: nn.Module | None = None
    ) -> None:
        super().__init__(cells.input_size, norm)
        self.cells = cells
        self.carried = carried
        ways = 2 if cells.bidirectional else 1
        self.o = nn.Linear(ways * cells.hidden_size, self.dim, bias=False)

    def begin(self, batch: int, like: Tensor) -> Carried:
        if self.cells.bidirectional:
            return Nothing()
        zeros = like.new_zeros(batch, self.cells.hidden_size)
        return self.carried(*(zeros for _ in fields(self.carried)))

    def fits(self, carried: Carried) -> bool:
        if self.cells.bidirectional:
            return isinstance(carried, Nothing)
        widths = {t.shape[1] for t in carried.tensors().values()}
        return type(carried) is self.carried and widths == {self.cells.hidden_size}

    def begun(self, layer: int) -> None:
        # recurrent maps that keep the length of what they carry (1312.6120)
        for name, parameter in self.cells.named_parameters():
            if name.startswith("weight_hh"):
                for gate in parameter.data.split(self.cells.hidden_size):
                    nn.init.orthogonal_(gate)
            elif name.startswith("weight_ih"):
                nn.init.normal_(parameter, std=self.dim**-0.5)
            else:
                nn.init.zeros_(parameter)

    def mix(
        self, x: Tensor, carried: Carried, places: Places, pairs: Pairs | None
    ) -> tuple[Tensor, Carried]:
        read = self.read(x)
        if self.cells.bidirectional:
            return self.o(self._both_ways(read, places)), carried
        assert isinstance(carried, Units)
        parts, cuts = [], list(pairwise(edges(places)))
        # split at once: the gradient of each slice would be as large as all of it
        pieces = read.split([high - low for low, high in cuts], 1)
        for piece, (low, _) in zip(pieces, cuts, strict=True):
            if places.doc is not None:
                earlier = places.doc[:, low - 1] if low else 0
                carried = carried.reset(places.doc[:, low] > earlier)
            part, after = self._forward(piece, carried)
            parts.append(part)
            carried = after if places.valid is None else after.kept(places.valid[:, low], carried)
        return self.o(parts[0] if len(parts) == 1 else torch.cat(parts, 1)), carried

    def _forward(self, read: Tensor, carried: Units) -> tuple[Tensor, Units]:
        before = tuple(t[None] for t in carried.tensors().values())
        y, after = self.cells(read, before if len(before) > 1 else before[0])
        states = after if isinstance(after, tuple) else (after,)
        return y, self.carried(*(t[0] for t in states))

    def _both_ways(self, read: Tensor, places: Places) -> Tensor:
        if places.doc is None and places.valid is None:
            return self.cells(read)[0]
        batch, length = read.shape[:2]
        y = read.new_zeros(batch * length, self.o.in_features)
        spans = [(row * length + i, j - i) for row, i, j in documents(places)]
        if spans:
            begins, counts = torch.tensor(spans).unbind(1)
            slots = torch.arange(int(counts.max()))
            own = slots < counts[:, None]
            at = (begins[:, None] + slots).where(own, begins[:, None]).to(read.device)
            # torch packs rows of any lengths, so that none waits for another's padding
            packed = pack_padded_sequence(
                read.flatten(0, 1)[at], counts, batch_first=True, enforce_sorted=False
            )
            answers, _ = pad_packed_sequence(self.cells(packed)[0], batch_first=True)
            own = own.to(read.device)
            y = y.index_copy(0, at[own], answers[own])
        return y.unflatten(0, (batch, length))


def edges(places: Places) -> list[int]:
    """Columns at which some row begins a document or ends, between both ends of the call."""
    length = places.pos.shape[1]
    masks = [mask for mask in (places.doc, places.valid) if mask is not None]
    if not masks:
        return [0, length]
    changes = torch.stack([(mask[:, 1:] != mask[:, :-1]).any(0) for mask in masks]).any(0)
    return [0, *(changes.nonzero()[:, 0] + 1).tolist(), length]


def documents(places: Places) -> Iterator[tuple[int, int, int]]:
    """Each document of a call as its row, its first column and the column after its last."""
    rows, length = places.pos.shape
    counts = [length] * rows if places.counts is None else places.counts.tolist()
    for row, count in enumerate(counts):
        inner: list[int] = []
        if places.doc is not None and count > 1:
            doc = places.doc[row, :count]
            inner = ((doc[1:] != doc[:-1]).nonzero()[:, 0] + 1).tolist()
        yield from ((row, i, j) for i, j in pairwise([0, *inner, count]) if i < j)


@dataclass(frozen=True)
class Recurrent(Mixer):
    """A recurrent network of one layer.

    Attributes:
        hidden: N, its units (in each direction); the model's width if None.

    Traits:
        carried: what it carries; a kind of its own, because equal shapes do not make two networks
            understand each other.
    """

    bidirectional: ClassVar[bool] = True
    carried: ClassVar[type[Units]] = Units

    hidden: int | None = None

    def __post_init__(self) -> None:
        problems = unlisted("mixer", self)
        if self.hidden is not None and self.hidden < 1:
            problems.append(f"mixer.hidden must be 1 or more, not {self.hidden}")
        if problems:
            raise ConfigError(problems)

    @abstractmethod
    def cells(self, width: int, hidden: int, both: bool) -> nn.RNNBase:
        """torch's network, batch first."""

    def build(self, layer: Layer) -> Recurrence:
        return Recurrence(self._made(layer), self.carried, layer.norm)

    def _made(self, layer: Layer) -> nn.RNNBase:
        return self.cells(layer.width, self.hidden or layer.width, not layer.pattern.causal)
