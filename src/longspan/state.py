"""State: what a model carries from one call to the next. An argument and a result, never hidden.

    logits, state = model(tokens, state)

A `State` is the clock (the position of each row's next token in its document), what each layer's
memory or mixer carries and what a memory around them does, what the layers read of another
sequence, and the newest tokens where a pattern asks for them. Whatever is carried is a `Carried`, a
dataclass of its own for each memory, mixer or source. Every tensor has the batch as its first
dimension, so that rows can be selected, reset and saved without knowing whose it is.

Buffers of tokens are right-aligned: the newest token stands in the last slot, and a slot that
holds nothing stands at position `EMPTY`. So the distance of two tokens of one document is the
distance of their slots, also where the rows of a batch have lengths of their own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from longspan.errors import StateError
from longspan.registry import import_folder

EMPTY = -(2**61)
"""Position of a slot that holds nothing: below every position a query can ask for."""


@dataclass(frozen=True)
class Carried:
    """What one memory, mixer or source carries.

    Subclasses add tensors (batch first) and plain numbers. The numbers are part of the shape of the
    state, not of its content, and are kept in the file's JSON header.

    Traits:
        sums: names of the tensors that sum over the stream: they never get narrower than float32.
    """

    kind: ClassVar[str]
    kinds: ClassVar[dict[str, type[Carried]]] = {}
    sums: ClassVar[frozenset[str]] = frozenset()

    def __init_subclass__(cls, *, kind: str) -> None:
        super().__init_subclass__()
        cls.kind = kind
        Carried.kinds[kind] = cls

    @property
    def loss(self) -> Tensor | None:
        """(B,) what the last call asks training to make smaller beside its own loss; or None."""
        return None

    def tensors(self) -> dict[str, Tensor]:
        """The tensors by field name."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}

    def held(self) -> dict[str, Tensor]:
        """The tensors by field name, with zeros where a slot holds nothing."""
        return self.tensors()

    def numbers(self) -> dict[str, Any]:
        """The fields that are no tensors."""
        return {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if not isinstance(getattr(self, f.name), Tensor)
        }

    def map(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The same state with `change` applied to every tensor."""
        return replace(self, **{name: change(value) for name, value in self.tensors().items()})

    def to(self, device: torch.device | str | None, dtype: torch.dtype | None) -> Self:
        """On another device or with floating-point tensors of another dtype."""

        def moved(name: str, value: Tensor) -> Tensor:
            if dtype is None or not value.is_floating_point():
                return value.to(device=device)
            wide = torch.promote_types(dtype, torch.float32) if name in self.sums else dtype
            return value.to(device=device, dtype=wide)

        return replace(self, **{name: moved(name, value) for name, value in self.tensors().items()})

    def reset(self, rows: Tensor) -> Self:
        """The state with the rows marked in `rows` (B,) bool as at the start of a document."""
        raise NotImplementedError


@dataclass(frozen=True)
class State:
    """The clock and what each layer carries.

    Attributes:
        next: (B,) int64, position of each row's next token, counted from its document's start.
        layers: one `Carried` a layer, first layer first, and last that of a memory around them.
        sources: what each layer reads of another sequence; () for a model that reads none.
        last: (B, N) int64, the newest tokens of each row's document, -1 before its first; None
            where nothing asks for them.
    """

    next: Tensor
    layers: tuple[Carried, ...] = field(default=())
    sources: tuple[Carried, ...] = field(default=())
    last: Tensor | None = None

    @property
    def batch(self) -> int:
        """Number of rows."""
        return self.next.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes that all tensors of the state take."""
        carried = (*self.layers, *self.sources)
        every = [self.next, *(t for each in carried for t in each.tensors().values())]
        every += [] if self.last is None else [self.last]
        return sum(t.numel() * t.element_size() for t in every)

    @property
    def loss(self) -> Tensor | None:
        """(B,) the sum of what the layers ask of training beside the task's loss; or None."""
        asked = [loss for layer in self.layers if (loss := layer.loss) is not None]
        return torch.stack(asked).sum(0) if asked else None

    def map(self, change: Callable[[Tensor], Tensor]) -> State:
        """The same state with `change` applied to every tensor.

        What layers share, as places may be, is changed once and stays shared.
        """
        made: dict[int, Tensor] = {}

        def once(tensor: Tensor) -> Tensor:
            if id(tensor) not in made:
                made[id(tensor)] = change(tensor)
            return made[id(tensor)]

        layers, sources = (
            tuple(carried.map(once) for carried in every) for every in (self.layers, self.sources)
        )
        last = None if self.last is None else once(self.last)
        return State(once(self.next), layers, sources, last)

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> State:
        """On another device or with floating-point tensors of another dtype.

        What sums over the stream (`Carried.sums`) stays float32 where `dtype` is narrower.
        """
        layers, sources = (
            tuple(each.to(device, dtype) for each in every) for every in (self.layers, self.sources)
        )
        last = None if self.last is None else self.last.to(device=device)
        return State(self.next.to(device=device), layers, sources, last)

    def detach(self) -> State:
        """Without the graph: truncated back-propagation ends here. The trainer's act."""
        return self.map(Tensor.detach)

    def select(self, rows: Tensor) -> State:
        """The rows `rows` (N,) int64, in that order and as often as named: beams, batches."""
        return self.map(lambda t: t.index_select(0, rows.to(t.device)))

    def reset(self, rows: Tensor) -> State:
        """A document ended in the rows marked in `rows` (B,) bool: they start afresh.

        A source stays: another document is written about it.

        Raises:
            StateError: `rows` is not (B,) bool.
        """
        if rows.dtype != torch.bool or rows.shape != self.next.shape:
            raise StateError(
                f"reset takes rows of shape ({self.batch},) and dtype bool, "
                f"not {tuple(rows.shape)} {rows.dtype}"
            )
        clock = self.next.masked_fill(rows, 0)
        layers, sources = (
            tuple(carried.reset(rows) for carried in every) for every in (self.layers, self.sources)
        )
        last = None if self.last is None else self.last.masked_fill(rows[:, None], -1)
        return State(clock, layers, sources, last)

    def save(self, path: str | os.PathLike[str], about: Mapping[str, Any] | None = None) -> None:
        """Writes the state to a safetensors file, whole or not at all.

        Args:
            path: the file; an existing one is replaced.
            about: anything JSON that should travel with it (`State.about` reads it back).
        """
        # clones: safetensors refuses tensors that share memory, as an empty k and v do
        tensors = {"next": self.next.clone()}
        tensors |= {} if self.last is None else {"last": self.last.clone()}
        header: dict[str, Any] = {"format": 1, "about": dict(about or {})}
        for group, every in (("layers", self.layers), ("sources", self.sources)):
            header[group] = [{"kind": c.kind, "numbers": c.numbers()} for c in every]
            tensors |= {
                f"{_PREFIX[group]}{index}.{name}": t.contiguous().clone()
                for index, carried in enumerate(every)
                for name, t in carried.tensors().items()
            }
        part = Path(f"{path}.part")
        try:
            save_file(tensors, part, metadata={"longspan_state": json.dumps(header)})
            os.replace(part, path)
        except (OSError, SafetensorError) as error:
            part.unlink(missing_ok=True)
            raise StateError(f"{path}: the state could not be written: {error}") from error

    @staticmethod
    def about(path: str | os.PathLike[str]) -> dict[str, Any]:
        """What `save` was given as `about`."""
        return _header(path)["about"]

    @staticmethod
    def load(path: str | os.PathLike[str]) -> State:
        """Reads what `save` wrote. Nothing is unpickled.

        Raises:
            StateError: the file is missing, truncated or no state of longspan.
        """
        header = _header(path)
        import_folder("longspan.memories")
        import_folder("longspan.mixers")
        import_folder("longspan.models")
        with safe_open(str(path), "pt") as file:
            # clones: what is read lies wherever it lay in the file, and products of numbers that
            # are aligned otherwise may be rounded otherwise
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        try:
            groups = []
            for group, prefix in _PREFIX.items():
                every = []
                for index, carried in enumerate(header[group]):
                    kind = Carried.kinds[carried["kind"]]
                    own = {f.name for f in fields(kind)} - set(carried["numbers"])
                    named = {name: tensors[f"{prefix}{index}.{name}"] for name in own}
                    every.append(kind(**named, **carried["numbers"]))
                groups.append(tuple(every))
            return State(tensors["next"], *groups, last=tensors.get("last"))
        except (KeyError, TypeError) as error:
            raise StateError(
                f"{path}: not a state that this version can read ({error}); start without it"
            ) from error


_PREFIX = {"layers": "", "sources": "source."}
"""Of the tensors' names in a file, by what they belong to."""


def _header(path: str | os.PathLike[str]) -> dict[str, Any]:
    try:
        with safe_open(str(path), "pt") as file:
            metadata = file.metadata() or {}
        header = json.loads(metadata["longspan_state"])
        known = {"layers": header["layers"], "about": header["about"]}
        # a file of before there were sources has none
        return {**known, "sources": header.get("sources", [])}
    except FileNotFoundError as error:
        raise StateError(f"{path}: there is no such state file") from error
    except (OSError, SafetensorError) as error:
        raise StateError(
            f"{path}: the state file is damaged ({error}); start without it"
        ) from error
    except (KeyError, TypeError, ValueError) as error:
        raise StateError(
            f"{path}: a safetensors file, but no state; State.save writes one"
        ) from error


def push(old: Tensor, new: Tensor, counts: Tensor | None, keep: int | None, dim: int = 1) -> Tensor:
    """Appends the tokens of a call to a right-aligned buffer and keeps the newest.

    Args:
        old: (B, …, P, …) the buffer, slots along `dim`.
        new: (B, …, T, …) the call's tokens, same dtype, left-aligned.
        counts: (B,) int64, how many of the T are real; None if all are.
        keep: slots to keep; None for all.
        dim: the dimension of the slots.

    Returns:
        (B, …, min(P + T, keep), …). Where a row had fewer tokens than slots, its first slots
        repeat its oldest token: their positions must say `EMPTY` (`push_positions` does).
    """
    both = torch.cat([old, new], dim)
    total = both.shape[dim]
    width = total if keep is None else min(total, keep)
    if counts is None:
        return both.narrow(dim, total - width, width)
    return take(both, _newest(old.shape[dim], counts, width).clamp(min=0), dim)


def push_positions(old: Tensor, new: Tensor, counts: Tensor | None, keep: int | None) -> Tensor:
    """`push` for positions (B, P) and (B, T) int64: slots without a token say `EMPTY`."""
    both = torch.cat([old, new], 1)
    total = both.shape[1]
    width = total if keep is None else min(total, keep)
    if counts is None:
        return both.narrow(1, total - width, width)
    index = _newest(old.shape[1], counts, width)
    return both.gather(1, index.clamp(min=0)).masked_fill(index < 0, EMPTY)


def _newest(past: int, counts: Tensor, width: int) -> Tensor:
    # (B, width): the slots of [past, new] that end with each row's last real token
    ends = past + counts
    return ends[:, None] + torch.arange(-width, 0, device=counts.device)


def take(slots: Tensor, index: Tensor, dim: int = 1) -> Tensor:
    """Slots of each row by number.

    Args:
        slots: (B, …, P, …), slots along `dim`.
        index: (B, N) int64, which of them.
        dim: the dimension of the slots.

    Returns:
        (B, …, N, …).
    """
    shape = [1] * slots.dim()
    shape[0], shape[dim] = index.shape
    target = list(slots.shape)
    target[dim] = index.shape[1]
    return slots.gather(dim, index.view(shape).expand(target))
