"""The four words that explain softmax attention, as interfaces.

| word         | question it answers           | here                 |
|--------------|-------------------------------|----------------------|
| **position** | how does order enter?         | `Position`, `Order`  |
| **pattern**  | which pairs may meet?         | `Pattern`            |
| **memory**   | what survives the segment?    | `Memory`             |
| **kernel**   | how is it executed?           | `Kernel`             |

Each member is a frozen dataclass in a file of its own, validated when made; its class data
(traits) say what `compat.py` and the contract tests need to know. Between them pass three values:
`Places` (where the tokens of a call stand), `Past` (what a memory recalls) and `Pairs` (which
query meets which key, and at what distance).

Letters: B batch, T queries, S keys, P past slots (S = P + T), H heads, D head width, C model
width.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Literal, TypeVar

import torch
from torch import Tensor, nn

from longspan.errors import ConfigError, InputError
from longspan.registry import Component
from longspan.state import EMPTY, Carried, push

Made = TypeVar("Made")

NOWHERE = 2**61
"""A position after every key's, for a block that is not there."""


@dataclass(frozen=True)
class Project:
    """A layer's maps of hidden states (B, S, C), as they came to it, with the weights of today.

    Attributes:
        keys: to keys (un-rotated) and values (B, G, S, D); calling the whole does the same.
        queries: to queries (B, H, S, D), un-rotated.
        still: gives the same maps with weights that take no gradient.
    """

    keys: Callable[[Tensor], tuple[Tensor, Tensor]]
    queries: Callable[[Tensor], Tensor]
    still: Callable[[], Project]

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of `x`."""
        return self.keys(x)


@dataclass(frozen=True)
class Places:
    """Where the tokens of one call stand.

    Attributes:
        pos: (B, T) int64, positions counted from the start of each token's document.
        doc: (B, T) int64, documents begun in this call up to and with this token; None if none.
        valid: (B, T) bool, real tokens (right padding is False); None if all are real.
        opened: (B, T) int64, position that the call's first slot has in each token's document
            (negative if the document began later). Set in training, where one call is one
            segment; None in evaluation, where segments are counted from the document's start.
        tokens: (B, N + T) int64, which tokens they are, after the N before them, where a pattern
            asks for it (`Pattern.reads`); None elsewhere.
        marked: (B, T) bool, tokens that see all and that all see; None if there are none.
    """

    pos: Tensor
    doc: Tensor | None = None
    valid: Tensor | None = None
    opened: Tensor | None = None
    tokens: Tensor | None = None
    marked: Tensor | None = None

    @staticmethod
    def of(
        clock: Tensor,
        length: int,
        valid: Tensor | None = None,
        starts: Tensor | None = None,
        training: bool = False,
    ) -> tuple[Places, Tensor]:
        """Places of `length` more tokens, and the clock after them.

        Args:
            clock: (B,) int64, position of each row's next token.
            length: T.
            valid: (B, T) bool, marks real tokens: right padding only.
            starts: (B, T) bool, marks tokens that begin a document.
            training: one call is one segment.

        Raises:
            InputError: a mask of another shape or dtype, or padding before a real token.
        """
        shape = (clock.shape[0], length)
        for name, mask in (("valid", valid), ("starts", starts)):
            if mask is not None and (mask.dtype != torch.bool or tuple(mask.shape) != shape):
                raise InputError(
                    f"{name} must be {shape} bool like the tokens, "
                    f"not {tuple(mask.shape)} {mask.dtype}"
                )
        if valid is not None and length > 1 and bool((valid[:, 1:] & ~valid[:, :-1]).any()):
            raise InputError("valid must be right padding: a real token follows a padded one")
        slot = torch.arange(length, device=clock.device)
        pos = clock[:, None] + slot
        doc = None
        if starts is not None:
            if valid is not None:
                starts = starts & valid
            begun = torch.where(starts, slot, -1).cummax(1).values
            pos = torch.where(begun >= 0, slot - begun, pos)
            doc = starts.long().cumsum(1)
        if valid is None:
            after = pos[:, -1] + 1
        else:
            counts = valid.sum(1)
            last = pos.gather(1, (counts - 1).clamp(min=0)[:, None])[:, 0]
            after = torch.where(counts > 0, last + 1, clock)
        return Places(pos, doc, valid, pos - slot if training else None), after

    def reading(
        self, tokens: Tensor, last: Tensor | None, clock: Tensor
    ) -> tuple[Places, Tensor | None]:
        """The places with what stands there, and each row's newest tokens after the call.

        Args:
            tokens: (B, T) int64.
            last: (B, N) int64, the newest tokens before the call, -1 before a document's first;
                None if none is asked for.
            clock: (B,) int64, position of each row's next token after the call.
        """
        if last is None:
            return replace(self, tokens=tokens), None
        after = push(last, tokens, self.counts, last.shape[1])
        back = torch.arange(last.shape[1], 0, -1, device=last.device)
        after = after.masked_fill(back > clock[:, None], -1)
        return replace(self, tokens=torch.cat([last, tokens], 1)), after

    def marking(self, marked: Tensor | None, patterns: Iterable[Pattern]) -> Places:
        """The places with tokens that are marked beside those that the patterns name themselves.

        Args:
            marked: (B, T) bool, or None.
            patterns: of the layers; some of them must take marks.

        Raises:
            InputError: a mask of another shape or dtype, or patterns that mark no tokens.
        """
        if marked is None:
            return self
        if not any(pattern.marks for pattern in patterns):
            raise InputError("the pattern marks no tokens; leave marked out, or use 'longformer'")
        if marked.dtype != torch.bool or marked.shape != self.pos.shape:
            raise InputError(
                f"marked must be {tuple(self.pos.shape)} bool like the tokens, "
                f"not {tuple(marked.shape)} {marked.dtype}"
            )
        return replace(self, marked=marked)

    @property
    def counts(self) -> Tensor | None:
        """(B,) int64, real tokens of each row; None if all are."""
        return None if self.valid is None else self.valid.sum(1)

    @property
    def keys(self) -> Tensor:
        """(B, T) int64, positions of the tokens as keys: padding stands at `EMPTY`."""
        return self.pos if self.valid is None else self.pos.masked_fill(~self.valid, EMPTY)

    def closes(self, segment: int) -> Tensor:
        """(B,) bool, rows in which a segment of `segment` tokens ends with the call.

        In training all: there one call is one segment.
        """
        if self.opened is not None:
            return torch.ones_like(self.pos[:, 0], dtype=torch.bool)
        counts = self.counts
        if counts is None:
            return (self.pos[:, -1] + 1) % segment == 0
        last = self.pos.gather(1, (counts - 1).clamp(min=0)[:, None])[:, 0]
        return (counts > 0) & ((last + 1) % segment == 0)

    def kept(self, past: Tensor) -> tuple[Tensor, Tensor]:
        """Positions to carry on: what is not of a row's newest document becomes `EMPTY`.

        Args:
            past: (B, P) int64, positions of the slots that the memory held.

        Returns:
            positions of the past (B, P) and of this call's tokens (B, T), int64.
        """
        if self.doc is None:
            return past, self.keys
        newest = self.doc[:, -1:]
        return past.masked_fill(newest > 0, EMPTY), self.keys.masked_fill(self.doc < newest, EMPTY)


@dataclass(frozen=True)
class Past:
    """What a memory recalls for the softmax.

    Attributes:
        k, v: (B, H, P, D) keys (un-rotated) and values; of a pattern with maps of its own
            (`Pattern.build`) theirs as well, as more heads.
        pos: (B, P) int64 positions; `EMPTY` where a slot holds nothing.
        joined: keys and values with those of the call after them, (B, H, P + T, D) both, so that a
            memory that keeps them all need not join them again; None before they are.
    """

    k: Tensor
    v: Tensor
    pos: Tensor
    joined: tuple[Tensor, Tensor] | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class Side:
    """One side of a meeting: where queries stand, or keys.

    Attributes:
        pos: (B, N) int64 positions; `EMPTY` where a key's slot holds nothing.
        doc: (B, N) int64, documents begun in this call up to and with each; None if none.
        opened: (B, N) int64, that of `Places`, of queries in training; None otherwise.
        marked: (B, N) bool, tokens that see all and that all see; None if there are none.
        chosen: (B, N, R) int64, that of `Pattern.chosen`, of queries; None otherwise.
    """

    pos: Tensor
    doc: Tensor | None = None
    opened: Tensor | None = None
    marked: Tensor | None = None
    chosen: Tensor | None = None

    def take(self, slots: Tensor, filler: int | None = None) -> Side:
        """Those at `slots` (1 or B, N, t) int64, N rows after one another for each of the batch.

        A negative slot gives the first one's, standing at `filler` if that is given.
        """
        index = slots.clamp(min=0).expand(self.pos.shape[0], -1, -1)

        def pick(values: Tensor) -> Tensor:
            each = index.flatten(1)
            each = each if values.dim() == 2 else each[..., None].expand(-1, -1, values.shape[2])
            return values.gather(1, each).view(-1, index.shape[2], *values.shape[2:])

        pos = pick(self.pos)
        if filler is not None:
            pos = pos.masked_fill((slots < 0).expand_as(index).flatten(0, 1), filler)
        others = (getattr(self, f.name) for f in fields(self)[1:])
        return Side(pos, *(other if other is None else pick(other) for other in others))


@dataclass(frozen=True)
class Pairs:
    """Which query meets which key in one call, and how far apart they are.

    Attributes:
        q, k: where queries (B, T) and keys (B, S) stand, the past first.
        see: makes `visible`, which a long call never asks for as a whole.
        causal: no visible key stands after its query.
        run: the last so many keys are consecutive: neighbouring slots hold positions `step` apart,
            and query i stands step · (S - T - ahead + i - j) after key j wherever they meet.
        step, ahead: keys of the run are `step` apart, and `ahead` of them stand after the last
            query.
        pattern: of a call, for making tiles of it; None of a tile.
    """

    q: Side
    k: Side
    see: Callable[[], Tensor]
    causal: bool
    run: int
    step: int = 1
    ahead: int = 0
    pattern: Pattern | None = None
    memo: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    @staticmethod
    def of(
        places: Places,
        past: Tensor,
        pattern: Pattern,
        consecutive: bool,
        marked: Tensor | None = None,
    ) -> Pairs:
        """The pairs of a call.

        Args:
            places: where the call's tokens stand.
            past: (B, P) int64, positions of the recalled slots.
            pattern: which pairs may meet.
            consecutive: the memory's trait.
            marked: (B, P) bool, which of those slots hold marked tokens; None if none does.
        """
        now = pattern.marked(places)
        q = Side(places.pos, places.doc, places.opened, now, pattern.chosen(places))
        k = Side(torch.cat([past, places.keys], 1))
        if places.doc is not None:
            k = replace(k, doc=torch.cat([torch.zeros_like(past), places.doc], 1))
        if now is not None:
            then = torch.zeros_like(past, dtype=torch.bool) if marked is None else marked
            k = replace(k, marked=torch.cat([then, now], 1))
        t, s = q.pos.shape[1], k.pos.shape[1]
        run = s if consecutive else t
        return Pairs(q, k, lambda: pattern.shows(q, k), pattern.causal, run, pattern=pattern)

    @property
    def q_pos(self) -> Tensor:
        """(B, T) int64."""
        return self.q.pos

    @property
    def k_pos(self) -> Tensor:
        """(B, S) int64; `EMPTY` where a slot holds nothing."""
        return self.k.pos

    @property
    def visible(self) -> Tensor:
        """(B, T, S) bool."""
        return self.once("visible", self.see)

    @property
    def shape(self) -> tuple[int, int]:
        """(T, S)."""
        return self.q_pos.shape[1], self.k_pos.shape[1]

    @property
    def consecutive(self) -> bool:
        """Whether all keys are of the run."""
        return self.run == self.shape[1]

    def once(self, key: Any, make: Callable[[], Made]) -> Made:
        """What `make` gives, computed once a call and shared by the layers of a stack."""
        if key not in self.memo:
            self.memo[key] = make()
        return self.memo[key]

    def afresh(self) -> Pairs:
        """The same pairs, of what was computed once only who sees whom."""
        return replace(self, memo={"visible": self.visible})

    def offsets(self) -> tuple[Tensor, Tensor]:
        """Positions relative to the call's first slot: (1 or B, T) and (1 or B, S) int64.

        Small numbers, so that angles lose no precision however long the stream is. Only
        differences of two visible places mean anything.
        """
        t, s = self.shape
        if self.consecutive:
            first = t + self.ahead - s
            slots = torch.arange(first, first + s, device=self.q_pos.device)[None]
            return slots[:, -first : t - first] * self.step, slots * self.step
        origin = self.q_pos[:, :1]
        k = torch.where(self.k_pos == EMPTY, origin, self.k_pos)
        return self.q_pos - origin, k - origin

    def distance(self) -> Tensor:
        """(1 or B, T, S) int64: position of the query minus position of the key.

        Only visible pairs mean anything.
        """
        q, k = self.offsets()
        return self.once("distance", lambda: q[:, :, None] - k[:, None, :])

    def additive(self, dtype: torch.dtype) -> Tensor:
        """(B, T, S): 0 where visible, else so low that softmax gives exactly 0.

        Half the lowest number, not minus infinity: a query that sees nothing (padding) then gets
        a finite answer that nobody reads, instead of NaN.
        """

        def make() -> Tensor:
            zeros = torch.zeros(self.visible.shape, dtype=dtype, device=self.visible.device)
            return zeros.masked_fill_(~self.visible, torch.finfo(dtype).min / 2)

        return self.once(("additive", dtype), make)


class Bias:
    """Numbers (B, H, T, S) added to the scaled scores, made a head at a time.

    So that a kernel that works on one head after another never holds them all.

    Traits:
        weighs: it has an `answer` beside the values.
    """

    weighs: bool = False

    @abstractmethod
    def split(self, rows: int) -> Sequence[Bias]:
        """The biases of `rows` rows of the batch after another."""

    @abstractmethod
    def head(self, head: int) -> Tensor:
        """(B or 1, T, S) for one head."""

    def answer(self, head: int, probs: Tensor) -> Tensor:
        """What weights (B, T, S) of one head bring to its answer (B, T, D) beside the values."""
        raise NotImplementedError("this bias adds to the scores alone")

    def dense(self, heads: int) -> Tensor:
        """(B or 1, H, T, S) at once."""
        return torch.stack([self.head(h) for h in range(heads)], 1)


class Order(nn.Module):
    """A position built for one layer: what it adds to the scores and does to queries and keys.

    Attributes:
        dropout: probability of dropping, in training, a number of what it makes of places alone;
            for positions whose authors do. The layer sets it.
    """

    dropout: float = 0.0

    def bias(self, q: Tensor, pairs: Pairs) -> Bias | None:
        """What is added to the scaled scores. `q` (B, H, T, D) is un-rotated."""
        return None

    def rotate(self, q: Tensor, k: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """Queries (B, H, T, D) and keys (B, H, S, D) as they meet in the product."""
        return q, k

    def products(self, segment: int, keys: int) -> tuple[float, float]:
        """Multiplications a token, of projections and of scores, beside those of every attention.

        Where segments of `segment` queries meet `keys` keys each.
        """
        return 0.0, 0.0

    def begin(self, layer: int) -> None:
        """Called when the weights of layer `layer` of a stack are drawn: what they start from."""

    def share(self, first: Order) -> None:
        """Called on later layers of a stack: use the first layer's parameters where asked to."""


@dataclass(frozen=True)
class Position(Component, kind="position", folder="longspan.positions"):
    """How does order enter?

    Traits:
        enters: "scores" (in every layer) or "input" (added once to the model's input).
        relative: only differences of positions matter.
        weighs: it adds to the values as well, so a kernel must form the weights.
        turns: it is told by the product of turned queries and turned keys, and by nothing else.
    """

    enters: ClassVar[str] = "scores"
    relative: ClassVar[bool] = True
    weighs: ClassVar[bool] = False
    turns: ClassVar[bool] = False

    @property
    def limit(self) -> int | None:
        """Tokens of the longest document that it has a place for; None if there is no limit."""
        return None

    def build(self, dim: int, heads: int, head_dim: int) -> Order:
        """The parameters and the arithmetic for one layer of width `dim`."""
        return Order()

    def entry(self, dim: int) -> nn.Module:
        """A module that gives what is added to the model's input of width `dim`.

        It takes positions (B, T) int64 and a dtype, and gives (B, T, dim).
        """
        raise NotImplementedError(f"position {self.name!r} does not enter at the input")


@dataclass(frozen=True)
class Near:
    """Keys that a query may see around itself, by distance.

    From `back` positions before the query's own block to `ahead` after it. Keys of a causal pattern
    end at the query all the same.

    Attributes:
        back: None for no limit.
        ahead: 0 in a causal pattern.
        block: positions in a block, which begins where the position is a multiple of it; 1 for the
            query itself.
        step: only every so many-th position, counted from the query (where `block` is 1).
        beyond: only keys farther than that, in a pattern of several parts.
    """

    back: int | None
    ahead: int = 0
    block: int = 1
    step: int = 1
    beyond: int = -1


class Maps(nn.Module):
    """Queries, keys and values of a layer a second time: from (…, C) to (…, H · D), (…, G · D)."""

    def __init__(self, dim: int, heads: int, kv_heads: int, head_dim: int, bias: bool) -> None:
        super().__init__()
        self.q = nn.Linear(dim, heads * head_dim, bias)
        self.k = nn.Linear(dim, kv_heads * head_dim, bias)
        self.v = nn.Linear(dim, kv_heads * head_dim, bias)


@dataclass(frozen=True)
class Pattern(Component, kind="pattern", folder="longspan.patterns"):
    """Which pairs may meet? A causal pattern says the first position that each query may see.

    Traits:
        marks: it names tokens that stay in sight, which a memory has to know, and takes more.
    """

    marks: ClassVar[bool] = False

    @property
    def causal(self) -> bool:
        """No key after its query. A pattern with both forms has it as a setting."""
        return True

    @property
    def segment(self) -> int:
        """Tokens between two boundaries at which what a query sees may shrink; 1 if none."""
        return 1

    @property
    def reach(self) -> int | None:
        """Tokens before its own segment that a query may see; None if there is no limit."""
        return None

    @property
    def sinks(self) -> int:
        """First tokens of the document that every query may see, however far back."""
        return 0

    def reaching(self, tokens: int | None, segment: int | None = None) -> Pattern:
        """The same pattern that reaches back `tokens` tokens (None: without limit).

        Raises:
            ConfigError: it has no such length, or no segments.
        """
        if tokens != self.reach or segment not in (None, self.segment):
            raise ConfigError(
                f"pattern '{self.name}' cannot be evaluated with another memory or segment"
            )
        return self

    @abstractmethod
    def first(self, pos: Tensor, opened: Tensor | None) -> Tensor:
        """The first position (int64, any above `EMPTY`) that queries at `pos` may see.

        Sinks apart. Never decreases as `pos` grows. `opened` is that of `Places`.
        """

    def mask(self, q_pos: Tensor, k_pos: Tensor, opened: Tensor | None = None) -> Tensor:
        """(B, T, S) bool for positions (B, T) and (B, S) int64 of one document."""
        k = k_pos[:, None, :]
        seen = k >= self.first(q_pos, opened)[:, :, None]
        if self.sinks:
            seen = seen | ((k > EMPTY) & (k < self.sinks))
        return (k <= q_pos[:, :, None]) & seen

    def near(self, opened: Tensor | None = None) -> tuple[Near, ...]:
        """Where the keys of a query lie, so that a long call can be computed in tiles (`tiles.py`).

        Keys that `far` marks aside. Where there are several parts, each pair belongs to one. ()
        for a call that is computed whole. More may be named than is seen: `mask` decides.
        """
        return ()

    def far(self, k_pos: Tensor) -> Tensor | None:
        """(B, S) bool, the keys that are seen from farther than `near` says; None if none is."""
        return (k_pos > EMPTY) & (k_pos < self.sinks) if self.sinks else None

    @property
    def reads(self) -> int | None:
        """How many tokens before each it must know beside the token itself; None for neither."""
        return None

    def marked(self, places: Places) -> Tensor | None:
        """(B, T) bool, tokens that see all of their document and that all of it sees; or None.

        A causal pattern shows of it what comes before.
        """
        return None

    def build(
        self, dim: int, heads: int, kv_heads: int, head_dim: int, bias: bool = False
    ) -> Maps | None:
        """Maps of its own for what marked tokens see; None if they see as all do."""
        return None

    def chosen(self, places: Places) -> Tensor | None:
        """(B, T, R) int64, first positions of blocks that each token sees besides; or None.

        Blocks are those of `near`; `NOWHERE` stands for none.
        """
        return None

    def shows(self, q: Side, k: Side) -> Tensor:
        """(B, T, S) bool: `mask`, and what is marked and chosen, within each document."""
        seen = self.mask(q.pos, k.pos, q.opened)
        if q.chosen is not None:
            (near,) = self.near(q.opened)
            for first in q.chosen.unbind(2):
                back = k.pos[:, None, :] - first[:, :, None]
                seen = seen | ((back >= 0) & (back < near.block))
        if q.marked is not None and k.marked is not None:
            both = q.marked[:, :, None] | k.marked[:, None, :]
            both = both & (k.pos != EMPTY)[:, None, :]
            if self.causal:
                both = both & (k.pos[:, None, :] <= q.pos[:, :, None])
            seen = seen | both
        if q.doc is not None and k.doc is not None:
            seen = seen & (q.doc[:, :, None] == k.doc[:, None, :])
        return seen


@dataclass(frozen=True)
class Sizes:
    """What a memory is built for.

    Attributes:
        dim: C.
        heads, kv_heads, head_dim: H, G (heads of keys and values) and D.
        segment: tokens between two boundaries of the pattern; 1 if it has none.
    """

    dim: int
    heads: int
    kv_heads: int
    head_dim: int
    segment: int


@dataclass(frozen=True)
class Question:
    """What a call asks of a memory that has an answer of its own.

    Attributes:
        x: (B, T, C), as the layer reads it.
        q: (B, H, T, D), un-rotated.
        k, v: (B, G, T, D) the tokens' own keys, un-rotated, and values.
        places: where the tokens stand.
        first: (B, T) int64, the first position that the softmax may show to each token.
    """

    x: Tensor
    q: Tensor
    k: Tensor
    v: Tensor
    places: Places
    first: Tensor


class Keeper(nn.Module):
    """A memory built for one layer: its parameters, what it recalls, answers and writes.

    Traits:
        encoded: it writes from what the layer reads, normalised, instead of what it was given.
    """

    encoded: ClassVar[bool] = False

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes

    @abstractmethod
    def start(self, batch: int, like: Tensor) -> Carried:
        """The state before any token; `like` gives dtype and device."""

    @abstractmethod
    def fits(self, carried: Carried) -> bool:
        """Whether this memory can read `carried`: of a kind that it knows, and of its sizes."""

    def slots(self, state: Any) -> Tensor:
        """(B, P) int64, positions of the slots that `recall` would give if all were needed."""
        return state.pos

    def stands(self, state: Any) -> tuple[Tensor, Tensor]:
        """Positions of all that is kept, and how many tokens each stands for: (B, P) int64 both.

        Its own token and those right before it.
        """
        pos = self.slots(state)
        return pos, torch.ones_like(pos)

    def marked(self, state: Any) -> Tensor | None:
        """(B, P) bool, which of those slots hold marked tokens; None if none is known to."""
        return None

    @abstractmethod
    def recall(self, state: Any, project: Project, need: int | None) -> Past:
        """Keys, values and positions for the softmax.

        Args:
            state: what this memory carries.
            project: hidden states to keys and values, with today's weights.
            need: only the newest `need` slots can be seen; None if unknown.
        """

    def answer(self, out: Tensor, question: Question, state: Any) -> Tensor:
        """The softmax's answer (B, H, T, D), merged with the memory's own if it has one."""
        return out

    def products(self) -> tuple[float, float]:
        """Multiplications a token, of projections and of the meeting, in evaluation.

        Beside those of the layer's own matrices and of the softmax over what is recalled.
        """
        return 0.0, 0.0

    def heard(self, past: Past, weights: Tensor) -> Past:
        """What `write` is given instead of `past`, by a memory that listens.

        Args:
            past: what `recall` gave.
            weights: (B, S) attention that each key of the past and of the call got: a query's
                weights averaged over heads, summed over the call's queries; takes no gradient.
        """
        raise NotImplementedError("this memory does not listen")

    @abstractmethod
    def write(
        self, state: Any, past: Past, x: Tensor, k: Tensor, v: Tensor, places: Places, slack: int
    ) -> Carried:
        """The state after the call's tokens.

        Args:
            state: what this memory carried before.
            past: what `recall` gave.
            x: (B, T, C) hidden states that the layer was given, before its norm unless `encoded`.
            k, v: (B, G, T, D) their keys (un-rotated) and values.
            places: where they stand.
            slack: tokens of the unfinished segment to keep beyond the memory's length.
        """


class Wrapping(nn.Module):
    """A memory built around a model: what it puts among the tokens, and what becomes of it.

    Attributes:
        dim: C.
        segment: tokens between two boundaries of the pattern.
    """

    def __init__(self, dim: int, segment: int) -> None:
        super().__init__()
        self.dim, self.segment = dim, segment

    @property
    def runs(self) -> float:
        """How many tokens the layers see for each token of a long stream."""
        return 1.0

    @abstractmethod
    def start(self, batch: int, like: Tensor) -> Carried:
        """The state before any token; `like` gives dtype and device."""

    @abstractmethod
    def fits(self, carried: Carried) -> bool:
        """Whether this memory can have written `carried`."""

    @abstractmethod
    def enter(self, x: Tensor, state: Any, places: Places) -> tuple[Tensor, Places, Any]:
        """What the layers see of a call.

        Args:
            x: (B, T, C) embedded tokens, before positions are added.
            state: what this memory carried before.
            places: where the tokens stand.

        Returns:
            (B, N, C), where they stand, and what `leave` needs to know.
        """

    @abstractmethod
    def leave(self, h: Tensor, state: Any, frame: Any) -> tuple[Tensor, Carried]:
        """(B, N, C) hidden states to those of the call's tokens (B, T, C), and the state after."""


@dataclass(frozen=True)
class Memory(Component, kind="memory", folder="longspan.memories"):
    """What survives the segment?

    Traits:
        consecutive: the slots it recalls hold consecutive positions, the newest last.
        folds: it writes at the end of a segment. The model then gives it, in evaluation, pieces
            of one segment and one document in every row; in training a call is a segment.
        attaches: it gives the softmax "keys" to see, or an answer of its own (a "readout"), or puts
            "tokens" around the whole model.
        marks: it remembers which of its tokens a pattern has marked.
    """

    consecutive: ClassVar[bool] = True
    folds: ClassVar[bool] = False
    marks: ClassVar[bool] = False
    attaches: ClassVar[Literal["keys", "readout", "tokens"]] = "keys"

    @property
    def alike(self) -> bool:
        """Whether every layer with this memory recalls the same positions."""
        return True

    @property
    def listens(self) -> bool:
        """Whether it is told how much attention each key got (`Keeper.heard`)."""
        return False

    @property
    def grain(self) -> int:
        """Tokens that it takes at a time: a segment must be a multiple of it."""
        return 1

    @property
    def learns(self) -> bool:
        """Whether it has weights to write with, which learn from what later segments read alone."""
        return False

    @property
    def length(self) -> int | None:
        """Tokens kept before the current segment; None for all."""
        return 0

    @property
    def restores(self) -> bool:
        """Whether a document begins with slots that must be put back (`State.reset`)."""
        return False

    @property
    def counted(self) -> bool:
        """Whether `length` says how much survives: nothing beyond so many tokens, and the sinks."""
        return not self.folds

    @property
    def carries(self) -> bool:
        """Whether anything of the past survives a segment."""
        return self.length != 0 or self.sinks != 0 or not self.counted

    def keeping(self, tokens: int | None) -> Memory:
        """The same memory that keeps `tokens` tokens (None: all).

        Of what no length says, 0 leaves nothing: memory 'none'.

        Raises:
            ConfigError: it has no such length.
        """
        if not self.counted and tokens == 0:
            return Memory.find("none")()
        if self.counted and tokens == self.length:
            return self
        repair = "" if self.counted else "; evaluate it as trained, or with 0, without it"
        raise ConfigError(f"memory '{self.name}' cannot be evaluated with another length{repair}")

    @property
    def sinks(self) -> int:
        """First tokens of the document that are kept for ever."""
        return 0

    def recalled(self, reach: int) -> int:
        """Slots that a query meets of the newest `reach` tokens, once the memory is full."""
        return reach

    def covers(self, pattern: Pattern) -> bool:
        """Whether a stream in pieces sees all that one pass sees."""
        if self.length is None:
            return True
        reach = pattern.reach
        return reach is not None and reach <= self.length and pattern.sinks <= self.sinks

    @abstractmethod
    def build(self, sizes: Sizes) -> Keeper:
        """The parameters and the arithmetic for one layer."""

    def around(self, pattern: Pattern) -> Pattern:
        """What the layers of a model that this memory wraps see of `pattern`."""
        raise NotImplementedError(f"memory {self.name!r} is kept by layers")

    def wrap(self, dim: int, segment: int) -> Wrapping:
        """The parameters and the arithmetic around a model of width `dim`."""
        raise NotImplementedError(f"memory {self.name!r} is kept by layers")


@dataclass(frozen=True)
class Kernel(Component, kind="kernel", folder="longspan.kernels"):
    """How is it executed? A kernel knows nothing of the other three words.

    Traits:
        weighs: it forms the weights, so that a position may add to the values.
        sums: it can tell each query's sum of exponentials, so that answers over disjoint keys
            can be merged.
    """

    weighs: ClassVar[bool] = True
    sums: ClassVar[bool] = True

    @abstractmethod
    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        pairs: Pairs,
        bias: Bias | None,
        scale: float,
        dropout: float = 0.0,
    ) -> Tensor:
        """softmax(scale q kᵀ + bias, over the visible pairs) v.

        Args:
            q: (B, H, T, D).
            k, v: (B, H, S, D).
            pairs: says which are visible.
            bias: added after scaling.
            scale: factor of the products.
            dropout: probability of dropping a weight.

        Returns:
            (B, H, T, D). Where a query sees nothing the numbers are finite and meaningless.
        """

    def summed(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        pairs: Pairs,
        bias: Bias | None,
        scale: float,
        dropout: float = 0.0,
    ) -> tuple[Tensor, Tensor]:
        """As a call, and (B, H, T), the logarithm of each query's sum of exponentials.

        Where a query sees nothing it is so low that `merge` gives the answer no weight.
        """
        raise NotImplementedError(f"kernel {self.name!r} has no sums")
