"""How a text is searched for: a `Strategy` chooses, `Filter`s say what may be chosen.

A strategy is given a `Request` (what to go on from, and within which limits) and writes texts. A
filter changes the logits of the next token; filters act in the order in which they are given, after
the end token was banned where the text is still too short.

Greedy decoding and sampling filter logits, beams log-probabilities, which are not normalised again
(as Hugging Face has it): only a repetition penalty makes a difference of that.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from longspan.decoding.hypothesis import Hypothesis, Written
from longspan.decoding.step import Draft, Step, prefill
from longspan.errors import DecodingError
from longspan.registry import Component

NOTHING = -1
"""Stands in a row's history where it has no token."""

Pieces = Callable[[int], bytes]
"""The bytes of each token (`Codec.piece`)."""

Acting = Callable[[Tensor, Tensor], Tensor]
"""A filter in one search, called as `Filter` is."""

Search = Generator[Written, None, list[list[Hypothesis]]]
"""Tokens as they are written, and at last the hypotheses of each row, best first."""


@dataclass(frozen=True, kw_only=True)
class Filter(Component, kind="filter", folder="longspan.decoding.filters"):
    """Says which tokens may come next.

    Traits:
        reads: asks what was written so far.
        alone: of that, it is shown what was written in this search, without the prompts.
        draws: shapes what is drawn from, so a strategy that draws nothing has no use for it.
    """

    reads: ClassVar[bool] = True
    alone: ClassVar[bool] = False
    draws: ClassVar[bool] = False

    def begin(self, pieces: Pieces | None, end: int | None) -> Acting:
        """What acts in one search: itself, or what follows the search's rows.

        Args:
            pieces: the bytes of a token, if they are known.
            end: the token that ends a text; None for none.

        Raises:
            InputError: it needs to know one of these.
        """
        return self

    @abstractmethod
    def __call__(self, logits: Tensor, tokens: Tensor) -> Tensor:
        """Logits with -inf for what may not come next.

        Args:
            logits: (N, V) float32 or float64, of which some may be -inf already.
            tokens: (N, L) int64, the prompts and what was written (`alone`: only that),
                right-aligned; `NOTHING` before a shorter row's first and in place of end tokens.
                (N, 0) if it does not read.

        Returns:
            (N, V), never in place.
        """


@dataclass(frozen=True, kw_only=True)
class Strategy(Component, kind="strategy", folder="longspan.decoding.strategies"):
    """Chooses what is written.

    Traits:
        draws: by chance, so that a seed matters, and filters that shape chances do.
        commits: token by token, so that what it has written stays.
        rereads: it asks more of what precedes a text than a state holds, so that prompts should
            be given whole, and not be read before.
        drafts: it needs a second model, which writes ahead.
    """

    draws: ClassVar[bool] = False
    commits: ClassVar[bool] = True
    rereads: ClassVar[bool] = False
    drafts: ClassVar[bool] = False

    @abstractmethod
    def search(self, request: Request) -> Search:
        """Writes a text for each row; yields tokens that stay as they are written."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be written, and within which limits.

    Attributes:
        step: the model.
        prompts: ids of each row, to be read first.
        state: what the model has read before; None for nothing.
        read: ids of each row that `state` has read, for filters that look back; () for none.
        filters: in the order in which they act.
        acting: what acts for each in this search.
        min_tokens: the end token is banned, and stop strings are no matter, before as many.
        max_tokens: at most so many are written, the end token among them.
        end: the token that ends a text; None for none.
        stop: strings that end a text.
        piece: the bytes of a token, for stop strings.
        seed: of what is drawn.
        alternatives: candidates to be told at each step.
        device: where tokens lie.
        draft: the model that writes ahead, for a strategy that needs one.
    """

    step: Step
    prompts: Sequence[Sequence[int]]
    state: Any
    read: Sequence[Sequence[int]]
    filters: tuple[Filter, ...]
    acting: tuple[Acting, ...]
    min_tokens: int
    max_tokens: int
    end: int | None
    stop: tuple[bytes, ...]
    piece: Pieces | None
    seed: int
    alternatives: int
    device: torch.device | str
    draft: Draft | None = None

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.prompts)

    @cached_property
    def looks_back(self) -> bool:
        """Whether a filter asks what was written."""
        return any(each.reads for each in self.filters)

    def begin(self) -> tuple[Tensor, Any]:
        """Logits (N, V) after the prompts, and the state."""
        return prefill(self.step, self.prompts, self.state, self.device)

    def go_on(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Logits (N, V) after one more token (N,) int64 of each row, and the state."""
        logits, state = self.step(tokens[:, None], state)
        return logits[:, -1], state

    def history(
        self, rows: Sequence[int] | None = None, more: Sequence[Sequence[int]] = ()
    ) -> Tensor:
        """(N, L) int64: what filters see of the prompts, and of what was written.

        Args:
            rows: their numbers; None for all, in their order.
            more: what each has written; () for nothing.
        """
        rows = range(self.rows) if rows is None else rows
        if not self.looks_back:
            return torch.empty(len(rows), 0, dtype=torch.int64, device=self.device)
        before = self.read or [()] * self.rows
        more = more or [()] * len(rows)
        given = [
            [*before[row], *self.prompts[row], *new] for row, new in zip(rows, more, strict=True)
        ]
        longest = max(map(len, given))
        padded = [[NOTHING] * (longest - len(row)) + row for row in given]
        history = torch.tensor(padded, dtype=torch.int64, device=self.device)
        # what ends a text is no part of it: it may be the start symbol as well
        return history if self.end is None else history.masked_fill(history == self.end, NOTHING)

    def remember(self, history: Tensor, tokens: Tensor) -> Tensor:
        """The history with one more token (N,) of each row."""
        return torch.cat([history, tokens[:, None]], 1) if self.looks_back else history

    def filtered(self, logits: Tensor, history: Tensor, written: int | Tensor) -> Tensor:
        """Logits (N, V) after the end token's ban and the filters.

        Args:
            logits: (N, V).
            history: (N, L), as `history` and `remember` give it.
            written: tokens that each row has written; (N,) int64 where rows differ.
        """
        logits = self._open(logits, written)
        for each, acting in zip(self.filters, self.acting, strict=True):
            logits = acting(logits, _alone(history, written) if each.alone else history)
        return logits

    def _open(self, logits: Tensor, written: int | Tensor) -> Tensor:
        if self.end is None or not self.min_tokens:
            return logits
        short = torch.as_tensor(written, device=logits.device) < self.min_tokens
        if not bool(short.any()):
            return logits
        logits = logits.clone()
        logits[:, self.end] = logits[:, self.end].masked_fill(short, -torch.inf)
        return logits

    def refuse(self, logits: Tensor, history: Tensor, written: int, row: int, index: int) -> None:
        """Says why row `row` of the request, `index` of these logits, cannot go on.

        Raises:
            DecodingError: always.
        """
        where = f"row {row} after {written} tokens"
        if not bool(logits[index].amax().isfinite()):
            raise DecodingError(f"{where}: the model's logits are no numbers")
        logits, name = self._open(logits, written), "min_tokens"
        for each, acting in zip(self.filters, self.acting, strict=True):
            if not bool((logits[index] > -torch.inf).any()):
                break
            seen = _alone(history, written) if each.alone else history
            logits, name = acting(logits, seen), each.name
        raise DecodingError(
            f"{where}: nothing may come next, {name} bans the last token that was left; "
            "weaken it, or write less (max_tokens)"
        )

    def stops(self, tokens: Sequence[int]) -> int | None:
        """Bytes at the end of a text that a stop string, completed by its last token, cuts off.

        Args:
            tokens: what a row has written.

        Returns:
            None if no stop string is completed.
        """
        if not self.stop or len(tokens) < self.min_tokens:
            return None
        assert self.piece is not None
        *before, last = tokens
        tail = newest = self.piece(last)
        longest = len(newest) + max(map(len, self.stop)) - 1
        while before and len(tail) < longest:
            tail = self.piece(before.pop()) + tail
        first = len(tail) - len(newest)
        # the earliest that ends within the last token
        found = [
            at for stop in self.stop if (at := tail.find(stop, max(0, first - len(stop) + 1))) >= 0
        ]
        return len(tail) - min(found) if found else None

    def stream(self, row: int) -> np.random.Generator:
        """The chances of one row, which no other row has a part in."""
        return np.random.default_rng([self.seed, row])


def _alone(history: Tensor, written: int | Tensor) -> Tensor:
    """Of a history (N, L), right-aligned, the tokens that each row has written."""
    longest = written if isinstance(written, int) else int(written.max())
    newest = history[:, history.shape[1] - longest :]
    if isinstance(written, int):
        return newest
    back = torch.arange(longest, 0, -1, device=history.device)
    return newest.masked_fill(back > written[:, None], NOTHING)
