"""Speculative decoding: a smaller model drafts, the model checks (2211.17192, algorithm 1).

The draft writes some tokens ahead; one step of the model tells its own distribution p after each.
A token drawn from the draft's q is taken with probability min(1, p / q); the first that is not
taken is drawn anew from the positive part of p - q, and after a draft that was all taken one more
token from p. So texts are distributed exactly as if the model had drawn each token itself
(`sample`), whatever the draft is (2302.01318 says the same); a good draft only makes it faster.

Filters act on p and q alike. A state cannot be shortened, since not every memory can forget: where
a row did not take all, what was taken is read once more from the state before, by each row its own
number of tokens. Each row draws from a stream of its own, so its text does not depend on its
neighbours.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from longspan.decoding.drawing import drawn, placed
from longspan.decoding.hypothesis import Written
from longspan.decoding.search import Request, Search, Strategy
from longspan.decoding.step import Draft, prefill
from longspan.decoding.writing import Text, considered
from longspan.errors import ConfigError, DecodingError, InputError


@dataclass(frozen=True, kw_only=True)
class Speculative(Strategy, name="speculative"):
    """Draws from the model's distribution, several tokens a step where the draft was right.

    Attributes:
        ahead: tokens that the draft writes before they are checked, 1 or more.
    """

    draws: ClassVar[bool] = True
    drafts: ClassVar[bool] = True

    ahead: int = 4

    def __post_init__(self) -> None:
        if self.ahead < 1:
            raise ConfigError(f"ahead must be 1 or more, not {self.ahead}")

    def search(self, request: Request) -> Search:
        assert request.draft is not None, "decode has checked it"
        return (yield from _Speculation(request, request.draft, self.ahead).run())


@dataclass(frozen=True)
class _Guess:
    """What the draft wrote ahead of N rows, at most A tokens each.

    Attributes:
        tokens: (N, A) int64.
        chances: (N, A, V) float64, the distributions that they were drawn from.
        counts: (N,) int64, how many are a row's; the others mean nothing.
    """

    tokens: Tensor
    chances: Tensor
    counts: Tensor


class _Speculation:
    """One search.

    Attributes:
        live: numbers of the rows that are still written.
        state: the model's, after all tokens but `pending`.
        first: (N, V) logits after these tokens if there is nothing pending, at the beginning.
        pending: (N, 1) int64, the newest token of each row, which the model has not read.
        drafted: the draft's state, after all tokens but `behind`.
        behind: tokens of each row that the draft has not read.
    """

    def __init__(self, request: Request, draft: Draft, ahead: int) -> None:
        self.request, self.draft, self.ahead = request, draft, ahead
        self.texts = [Text(request) for _ in range(request.rows)]
        self.streams = [request.stream(row) for row in range(request.rows)]
        self.live = list(range(request.rows))
        before = request.read if draft.state is None else ()
        before = before or [()] * request.rows
        self.behind = [[*old, *new] for old, new in zip(before, request.prompts, strict=True)]
        self.drafted: Any = draft.state
        self.first: Tensor | None
        self.first, self.state = request.begin()
        self.pending: Tensor | None = None

    def run(self) -> Search:
        """Writes, round by round."""
        request, ahead = self.request, self.ahead
        while self.live:
            dice = torch.stack(
                [torch.from_numpy(self.streams[row].random(2 * ahead + 1)) for row in self.live]
            ).to(request.device)
            guess = self._guess(dice[:, :ahead])
            logits, after = self._ask(guess)
            scores = self._scores(logits, guess.tokens)
            # where nothing may come next no guess is taken, and a row that comes so far is refused
            stuck = _stuck(scores)
            sound = scores.masked_fill(stuck[..., None], 0)
            chances = sound.softmax(-1, dtype=torch.float64)
            taken = _taken(chances, guess, dice[:, ahead:-1], stuck)
            newest = _newest(chances, guess, taken, dice[:, -1])
            going = yield from self._write(logits, scores, guess, taken, newest)
            self._advance(guess, taken, newest, after, going)
        return [[text.hypothesis] for text in self.texts if text.hypothesis]

    def _guess(self, dice: Tensor) -> _Guess:
        """Lets the draft write ahead, of each row no more than it may still write before one."""
        request, rows = self.request, len(self.live)
        longest = request.max_tokens - 1
        rooms = [min(self.ahead, longest - len(self.texts[row].tokens)) for row in self.live]
        counts = torch.tensor(rooms, device=dice.device)
        logits, self.drafted = prefill(self.draft.step, self.behind, self.drafted, request.device)
        state, most = self.drafted, max(rooms)
        tokens = torch.zeros(rows, most, dtype=torch.int64, device=dice.device)
        chances = torch.zeros(rows, most, logits.shape[-1], dtype=torch.float64).to(dice.device)
        for place in range(most):
            wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
            going = counts > place
            if bool(wide.isnan().any(-1).logical_and(going).any()):
                raise DecodingError("the draft's logits are no numbers")
            scores = self._filtered(wide[:, None], tokens[:, :place], [place])[:, 0]
            # where nothing may come next the model will say so, if it comes so far
            counts = torch.where(_stuck(scores) & going, place, counts)
            scores = scores.masked_fill(_stuck(scores)[:, None], 0)
            chances[:, place] = scores.softmax(-1, dtype=torch.float64)
            tokens[:, place] = drawn(scores, dice[:, place])
            over = (tokens[:, place] == request.end) & (counts > place)
            counts = torch.where(over, place + 1, counts)
            if place + 1 < most:
                logits, state = self.draft.step(
                    tokens[:, place, None], state, valid=_valid((counts > place)[:, None])
                )
                logits = logits[:, -1]
        return _Guess(tokens, chances, counts)

    def _ask(self, guess: _Guess) -> tuple[Tensor, Any]:
        """The model's logits (N, A + 1, V) before and after each guess, and its state then."""
        inputs = self._inputs(guess.tokens)
        parts, state = [] if self.first is None else [self.first[:, None]], self.state
        if inputs.shape[1]:
            logits, state = self._read(inputs, guess.counts)
            parts.append(logits)
        if parts[-1].shape[-1] != guess.chances.shape[-1]:
            raise InputError(
                f"the draft has a vocabulary of {guess.chances.shape[-1]} tokens, the model one of "
                f"{parts[-1].shape[-1]}; both must be the same"
            )
        logits = torch.cat(parts, 1)
        return logits.to(torch.promote_types(logits.dtype, torch.float32)), state

    def _inputs(self, tokens: Tensor) -> Tensor:
        return tokens if self.pending is None else torch.cat([self.pending, tokens], 1)

    def _read(self, inputs: Tensor, counts: Tensor) -> tuple[Tensor, Any]:
        """Reads, from the state before, what is pending and of each row so many guesses."""
        counts = counts + (self.pending is not None)
        places = torch.arange(inputs.shape[1], device=inputs.device)
        return self.request.step(inputs, self.state, valid=_valid(places < counts[:, None]))

    def _filtered(self, logits: Tensor, tokens: Tensor, places: Sequence[int]) -> Tensor:
        """Logits (N, P, V) after the filters, of the places (P) behind guesses (N, …)."""
        request = self.request
        texts = [self.texts[row].tokens for row in self.live]
        rows = [row for row in self.live for _ in places]
        more = [
            [*text, *guess[:place]]
            for text, guess in zip(texts, tokens.tolist(), strict=True)
            for place in places
        ]
        written = torch.tensor([len(each) for each in more], device=logits.device)
        scores = request.filtered(logits.flatten(0, 1), request.history(rows, more), written)
        return scores.unflatten(0, (-1, len(places)))

    def _scores(self, logits: Tensor, tokens: Tensor) -> Tensor:
        return self._filtered(logits, tokens, range(logits.shape[1]))

    def _check(self, logits: Tensor, scores: Tensor, text: Text, row: int) -> None:
        """Refuses scores (V,) under which nothing may come next."""
        if bool(_stuck(scores)):
            request = self.request
            history = request.history([row], [text.tokens])
            request.refuse(logits[None], history, len(text.tokens), row, 0)

    def _write(
        self, logits: Tensor, scores: Tensor, guess: _Guess, taken: Tensor, newest: Tensor
    ) -> Generator[Written, None, list[int]]:
        """Writes what was taken, and the newest token; which rows go on."""
        request, going = self.request, []
        own = logits.log_softmax(-1)
        for index, row in enumerate(self.live):
            count = int(taken[index])
            new = torch.cat([guess.tokens[index, :count], newest[index, None]])
            told = considered(
                own[index, : count + 1], scores[index, : count + 1], new, request.alternatives
            )
            log_probs = own[index, : count + 1].gather(1, new[:, None])[:, 0].tolist()
            text = self.texts[row]
            text.drafted += int(guess.counts[index])
            goes = True
            for place, token in enumerate(new.tolist()):
                if place == count:
                    self._check(logits[index, count], scores[index, count], text, row)
                text.accepted += place < count
                here = told[place] if told else ()
                goes = text.add(token, log_probs[place], here)
                yield Written(
                    row=row,
                    token=token,
                    log_prob=log_probs[place],
                    hypothesis=text.hypothesis,
                    considered=here,
                )
                if not goes:
                    break
            if goes:
                going.append(index)
        return going

    def _advance(
        self, guess: _Guess, taken: Tensor, newest: Tensor, after: Any, going: list[int]
    ) -> None:
        """States after the round, of the rows that go on."""
        rows = torch.tensor(going, dtype=torch.int64, device=taken.device)
        whole = len(going) == len(self.live)
        self.live = [self.live[index] for index in going]
        if not going:
            return
        tokens, counts, newest = guess.tokens[rows], taken[rows], newest[rows]
        if not whole:
            self.drafted = self.drafted.select(rows)
            self.pending = None if self.pending is None else self.pending[rows]
        if bool((counts == guess.counts[rows]).all()):
            self.state = after if whole else after.select(rows)
        else:
            self.state = self.state if whole else self.state.select(rows)
            inputs = self._inputs(tokens[:, : int(counts.max())])
            if inputs.shape[1]:
                _, self.state = self._read(inputs, counts)
        self.first, self.pending = None, newest[:, None]
        self.behind = [
            [*row[:count], last]
            for row, count, last in zip(
                tokens.tolist(), counts.tolist(), newest.tolist(), strict=True
            )
        ]


def _valid(real: Tensor) -> Tensor | None:
    """Which tokens (N, T) are real, bool; None if all are."""
    return None if bool(real.all()) else real


def _stuck(scores: Tensor) -> Tensor:
    """Where (…) nothing may come next, or scores (…, V) are no numbers."""
    return ~scores.amax(-1).isfinite()


def _taken(chances: Tensor, guess: _Guess, dice: Tensor, stuck: Tensor) -> Tensor:
    """(N,) int64, how many of its guesses each row takes."""
    tokens, most = guess.tokens[..., None], guess.tokens.shape[1]
    own = chances[:, :most].gather(2, tokens)[..., 0]
    theirs = guess.chances.gather(2, tokens)[..., 0]
    places = torch.arange(most, device=tokens.device)
    right = (dice[:, :most] * theirs < own) & (places < guess.counts[:, None]) & ~stuck[:, :most]
    return right.long().cumprod(1).sum(1)


def _newest(chances: Tensor, guess: _Guess, taken: Tensor, dice: Tensor) -> Tensor:
    """(N,) int64, the token after those that were taken."""
    which = torch.arange(len(taken), device=taken.device)
    own = chances[which, taken]
    refused = taken < guess.counts
    # a place that is not there, of a row that took all, is not looked at
    padded = torch.cat([guess.chances, torch.zeros_like(own)[:, None]], 1)
    rest = (own - padded[which, taken]).clamp(min=0)
    # equal but for rounding: nothing is left, and either may be drawn from
    rest = torch.where(rest.sum(-1, keepdim=True) > 0, rest, own)
    return placed(torch.where(refused[:, None], rest, own), dice)
