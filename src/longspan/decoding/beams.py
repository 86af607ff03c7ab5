"""Beam search: the best few texts are written on together, a token at a time.

Of each row K beams are written. At every step the 2K best continuations are candidates: those of
the K best that are complete are put aside, with their log-probability divided by a power of their
length, and the K best of the others are written on. A row is done when what may still come cannot
beat the worst of K texts put aside, or as `early_stopping` says. This is Hugging Face's search,
with these differences: a beam that cannot go on is dead and never comes out as a text; rows that
are done leave the batch.

In groups (1610.02424) each group has K / G beams, and what the groups before it chose at this step
counts against a token.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from longspan.decoding.coverage import Covered, Covering
from longspan.decoding.hypothesis import Candidate, Considered, Finish, Hypothesis
from longspan.decoding.ranking import best
from longspan.decoding.search import Request
from longspan.errors import ConfigError, DecodingError
from longspan.state import State

EarlyStopping = bool | Literal["never"]


@dataclass(frozen=True, kw_only=True)
class Beams:
    """How many beams, and how their texts compare.

    Attributes:
        beams: K of each row, in all groups together.
        length_penalty: the power of the length by which a log-probability is divided; above 0
            favours long texts.
        early_stopping: when a row is done. True: as soon as K texts are complete. False: also when
            the best unfinished one, as if it ended here, is no better than the worst of K complete
            ones. "never": only when it could not become better with any length up to the longest.
        n_best: texts that are given back of each row, at most.
        groups, diversity: see the module.
        coverage_penalty: how much counts against a complete text what it has not looked at of the
            source (`coverage.py`).
    """

    beams: int
    length_penalty: float = 1.0
    early_stopping: EarlyStopping = False
    n_best: int = 1
    groups: int = 1
    diversity: float = 0.0
    coverage_penalty: float = 0.0

    def problems(self) -> list[str]:
        """What is wrong with the numbers."""
        found = []
        if self.beams < 1:
            found.append(f"beams must be 1 or more, not {self.beams}")
        if not 1 <= self.n_best <= max(self.beams, 1):
            found.append(f"n_best must be 1 or more and at most beams, not {self.n_best}")
        if not math.isfinite(self.length_penalty):
            found.append(f"length_penalty must be a number, not {self.length_penalty}")
        if self.early_stopping not in (True, False, "never"):
            found.append(
                f"early_stopping must be true, false or 'never', not {self.early_stopping!r}"
            )
        if self.groups < 1 or self.beams % self.groups:
            found.append(
                f"groups must be 1 or more and divide beams={self.beams}, not {self.groups}"
            )
        if not 0 <= self.diversity < math.inf:
            found.append(f"diversity must be 0 or more, not {self.diversity}")
        if not 0 <= self.coverage_penalty < math.inf:
            found.append(f"coverage_penalty must be 0 or more, not {self.coverage_penalty}")
        return found

    def __post_init__(self) -> None:
        if problems := self.problems():
            raise ConfigError(problems)

    @property
    def width(self) -> int:
        """Beams of a group."""
        return self.beams // self.groups

    def worth(self, total: Tensor, length: int) -> Tensor:
        """By what texts of `length` tokens and of these log-probabilities compare."""
        return total / (length**self.length_penalty)


class Group:
    """The beams of one group, of all rows that are not done.

    Attributes:
        totals: (N, K) log-probability of each beam; -inf for a dead one.
        against: (N, K) what its coverage counts against each, as if it ended here.
        best: (N, K) scores of the texts put aside, best first; -inf where there is none yet.
        texts: these texts.
        any: whether there has been one, of any row.
        closed: (N,) bool, whether nothing more is put aside.
    """

    def __init__(self, rows: int, width: int, like: Tensor) -> None:
        self.totals = like.new_full((rows, width), -torch.inf)
        # all beams begin as one
        self.totals[:, 0] = 0
        self.against = torch.zeros_like(self.totals)
        self.best = like.new_full((rows, width), -torch.inf)
        self.texts: list[list[Hypothesis | None]] = [[None] * width for _ in range(rows)]
        self.closed = torch.zeros(rows, dtype=torch.bool, device=like.device)
        self.any = False

    def select(self, rows: Tensor) -> None:
        """Keeps these rows only."""
        self.totals, self.best = self.totals[rows], self.best[rows]
        self.against = self.against[rows]
        self.closed = self.closed[rows]
        self.texts = [self.texts[row] for row in rows.tolist()]


@dataclass(frozen=True)
class Ranked:
    """The candidates of one step of a group, best first, each (N, 2K).

    Attributes:
        values: that by which they are ranked.
        totals: their log-probability.
        against: what coverage counts against them, if they end here.
        beams: the beam that each continues, within the group.
        tokens: with what.
        ended: bool, the text is complete, and is put aside.
        hits: bool, the text is complete.
    """

    values: Tensor
    totals: Tensor
    against: Tensor
    beams: Tensor
    tokens: Tensor
    hits: Tensor
    ended: Tensor


class BeamSearch:
    """One search: what is written, of all rows that are not done.

    Attributes:
        live: numbers of these rows.
        trail: of each step the beams that were written on, with which tokens, and how likely the
            model held them, in the order of the beams that they became.
    """

    def __init__(self, request: Request, config: Beams) -> None:
        self.request, self.config = request, config
        self.live = list(range(request.rows))
        self.done: list[list[Hypothesis]] = [[] for _ in self.live]
        self.considered: list[list[Considered]] = [[] for _ in self.live]
        self.trail: list[tuple[list[int], list[int], list[float]]] = []

    def run(self) -> list[list[Hypothesis]]:
        """The best texts of each row."""
        request, config = self.request, self.config
        rows, beams, width = request.rows, config.beams, config.width
        covering = Covering.of(request.step) if config.coverage_penalty else None
        if covering is None:
            logits, state = request.begin()
        else:
            logits, state = replace(request, step=covering).begin()
            request = replace(request, step=covering.going_on)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        each = torch.arange(rows, device=logits.device).repeat_interleave(beams)
        logits, state = logits[each], state.select(each)
        history = request.history()[each]
        self.groups = [Group(rows, width, logits) for _ in range(config.groups)]
        self.against = self._against(state)
        for written in range(request.max_tokens):
            own = logits.log_softmax(-1)
            scores = request.filtered(own, history, written)
            if math.isnan(float(own[:, 0].sum())):
                # one that is no number makes all of its row so
                index = int(own[:, 0].isnan().nonzero()[0])
                request.refuse(own, history, written, self.live[index // beams], index)
            chosen = self._advance(
                own.unflatten(0, (-1, beams)), scores.unflatten(0, (-1, beams)), written
            )
            going = self._leave()
            if not self.live:
                break
            flat, tokens = (each[going].flatten() for each in chosen)
            chances = own.flatten().index_select(0, flat * own.shape[1] + tokens)
            self.trail.append((flat.tolist(), tokens.tolist(), chances.tolist()))
            state = reordered(state, flat, logits.shape[0], beams)
            before = history[flat] if request.looks_back else history[: len(flat)]
            history = request.remember(before, tokens)
            logits, state = request.go_on(tokens, state)
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            self.against = self._against(state)
        return self.done

    def _against(self, state: Any) -> Tensor | None:
        """(N, B) what counts against each beam for what it has not looked at; None for nothing."""
        if not isinstance(state, Covered):
            return None
        lacking = self.config.coverage_penalty * state.lacking
        return lacking.unflatten(0, (-1, self.config.beams))

    def _advance(self, own: Tensor, scores: Tensor, written: int) -> tuple[Tensor, Tensor]:
        """Chooses what is written on: beams (N, B) of the flat batch, and tokens (N, B)."""
        width, size = self.config.width, scores.shape[-1]
        parents, tokens = [], []
        # how many groups have taken each token; of one group nobody asks
        chosen = scores.new_zeros(len(self.live), size if self.config.diversity else 0)
        for number, group in enumerate(self.groups):
            first = number * width
            totals = group.totals[..., None] + scores[:, first : first + width]
            counted = totals
            if self.config.diversity and number:
                counted = totals - self.config.diversity * chosen[:, None]
            ranked = self._rank(counted.flatten(1), totals.flatten(1), size, first, written)
            values = ranked.values.masked_fill(ranked.hits, -torch.inf)
            on = values.topk(width).indices
            group.totals = ranked.totals.masked_fill(ranked.hits, -torch.inf).gather(1, on)
            group.against = ranked.against.gather(1, on)
            self._put_aside(group, ranked, own, first, written)
            beams, nexts = ranked.beams.gather(1, on), ranked.tokens.gather(1, on)
            if self.request.alternatives:
                self._tell(ranked, on, own, scores, first, written)
            if self.config.diversity:
                kept = torch.zeros_like(ranked.ended)
                kept = kept.scatter(1, on, values.gather(1, on) > -torch.inf)
                taken = (kept | ranked.ended).to(chosen.dtype)
                chosen.scatter_add_(1, ranked.tokens, taken)
            parents.append(beams + first if first else beams)
            tokens.append(nexts)
        parent, token = (
            each[0] if len(each) == 1 else torch.cat(each, 1) for each in (parents, tokens)
        )
        rows = torch.arange(0, parent.numel(), parent.shape[1], device=parent.device)
        return parent + rows[:, None], token

    def _written(self, index: int) -> tuple[list[int], list[float]]:
        """What a beam of the flat batch has written, and how likely the model held it."""
        tokens, log_probs = [], []
        for parents, written, chances in reversed(self.trail):
            tokens.append(written[index])
            log_probs.append(chances[index])
            index = parents[index]
        return tokens[::-1], log_probs[::-1]

    def _rank(self, values: Tensor, totals: Tensor, size: int, first: int, written: int) -> Ranked:
        """The 2K best of (N, K · V) continuations, and which of them are complete."""
        request, width = self.request, self.config.width
        values, index = best(values, min(2 * width, values.shape[1]))
        beams, tokens = index // size, index % size
        alive = values > -torch.inf
        if written + 1 == request.max_tokens:
            hits = torch.ones_like(alive)
        elif request.end is None:
            hits = torch.zeros_like(alive)
        else:
            hits = tokens == request.end
        if request.stop:
            hits = hits | self._stopped(beams + first, tokens, alive)
        # the others are there to take the places of those that are complete
        front = torch.arange(hits.shape[1], device=hits.device) < width
        totals, against = totals.gather(1, index), torch.zeros_like(values)
        if self.against is not None:
            against = self.against.gather(1, beams + first)
        return Ranked(values, totals, against, beams, tokens, hits, hits & front & alive)

    def _stopped(self, beams: Tensor, tokens: Tensor, alive: Tensor) -> Tensor:
        found = torch.zeros_like(alive)
        for row, slot in alive.nonzero().tolist():
            token = int(tokens[row, slot])
            if token != self.request.end:
                before, _ = self._written(row * self.config.beams + int(beams[row, slot]))
                text = [*before, token]
                found[row, slot] = self.request.stops(text) is not None
        return found

    def _put_aside(
        self, group: Group, ranked: Ranked, own: Tensor, first: int, written: int
    ) -> None:
        """Takes in what is complete, and closes the rows in which nothing more can come."""
        config, length = self.config, written + 1
        ended = ranked.ended & ~group.closed[:, None]
        if bool(ended.any()):
            group.any = True
            worth = config.worth(ranked.totals, length) - ranked.against
            worth = worth.masked_fill(~ended, -torch.inf)
            group.best, order = torch.cat([group.best, worth], 1).topk(config.width)
            for row in ended.any(1).nonzero()[:, 0].tolist():
                group.texts[row] = [
                    group.texts[row][slot]
                    if slot < config.width
                    else self._text(ranked, own, row, slot - config.width, first, score)
                    for slot, score in zip(
                        order[row].tolist(), group.best[row].tolist(), strict=True
                    )
                ]
        if not group.any:
            # nothing can be beaten yet
            group.closed = group.closed | (group.totals.amax(1) == -torch.inf)
            return
        longest = self.request.max_tokens
        ahead = config.early_stopping == "never" and config.length_penalty > 0
        hope = config.worth(group.totals, longest if ahead else length)
        if config.early_stopping != "never":
            # later it may have looked at all
            hope = hope - group.against
        closed = group.closed | ~(hope.amax(1) > group.best.amin(1))
        if config.early_stopping is True:
            closed = closed | (group.best > -torch.inf).all(1)
        group.closed = closed
        group.totals = group.totals.masked_fill(closed[:, None], -torch.inf)

    def _text(
        self, ranked: Ranked, own: Tensor, row: int, slot: int, first: int, score: float
    ) -> Hypothesis | None:
        if score == -math.inf:
            return None
        beam, token = first + int(ranked.beams[row, slot]), int(ranked.tokens[row, slot])
        tokens, log_probs = self._written(row * self.config.beams + beam)
        finish: Finish = "end"
        cut = None
        if token != self.request.end:
            tokens.append(token)
            cut = self.request.stops(tokens)
            finish = "length" if cut is None else "stop"
        return Hypothesis(
            tokens=tuple(tokens),
            score=score,
            log_probs=(*log_probs, float(own[row, beam, token])),
            finish=finish,
            cut=cut or 0,
        )

    def _leave(self) -> Tensor | slice:
        """Lets rows go that are done; which of the rows go on."""
        closed = self.groups[0].closed
        if len(self.groups) > 1:
            closed = torch.stack([group.closed for group in self.groups]).all(0)
        if not bool(closed.any()):
            return slice(None)
        going = (~closed).nonzero()[:, 0]
        for row in closed.nonzero()[:, 0].tolist():
            self._finish(row)
        self.live = [self.live[row] for row in going.tolist()]
        for group in self.groups:
            group.select(going)
        return going

    def _finish(self, index: int) -> None:
        row = self.live[index]
        found = (text for group in self.groups for text in group.texts[index] if text is not None)
        # two groups may have found the same
        texts = list({(text.tokens, text.finish): text for text in found}.values())
        if not texts:
            raise DecodingError(
                f"row {row}: every beam came to where nothing may come next; weaken the filters, "
                "or write less (max_tokens)"
            )
        texts.sort(key=lambda text: -text.score)
        told = tuple(self.considered[row])
        self.done[row] = [replace(text, considered=told) for text in texts[: self.config.n_best]]

    def _tell(
        self,
        ranked: Ranked,
        on: Tensor,
        own: Tensor,
        scores: Tensor,
        first: int,
        written: int,
    ) -> None:
        """Adds what was considered to each row's account of this step."""
        width = self.config.width
        worth = self.config.worth(ranked.totals, written + 1) - ranked.against
        for index, row in enumerate(self.live):
            kept = on[index].tolist()
            told = []
            for slot in (ranked.values[index] > -torch.inf).nonzero()[:, 0].tolist():
                beam, token = (
                    first + int(ranked.beams[index, slot]),
                    int(ranked.tokens[index, slot]),
                )
                fate, becomes = "dropped", None
                if bool(ranked.hits[index, slot]):
                    fate = "ended" if slot < width else "dropped"
                elif slot in kept:
                    fate, becomes = "kept", first + kept.index(slot)
                told.append(
                    Candidate(
                        token=token,
                        log_prob=float(own[index, beam, token]),
                        filtered=float(scores[index, beam, token]),
                        fate=fate,
                        beam=beam,
                        becomes=becomes,
                        total=float(ranked.totals[index, slot]),
                        score=float(worth[index, slot]),
                        penalty=float(ranked.totals[index, slot] - ranked.values[index, slot]),
                    )
                )
            if first:
                *_, before = self.considered[row]
                self.considered[row][-1] = (*before, *told)
            else:
                self.considered[row].append(tuple(told))


def reordered(state: Any, rows: Tensor, batch: int, beams: int = 1) -> Any:
    """The rows `rows` (M,) of a state of `batch` rows; itself if these are all, in their order.

    Args:
        beams: that stand beside one another in the batch, begun with one text. If all of them go
            on, in whichever order, what they read of another sequence is what it was.
    """
    if len(rows) < batch or type(state) is not State:
        return state.select(rows)
    places = torch.arange(batch, device=rows.device)
    if bool((rows == places).all()):
        return state
    if bool((rows // beams == places // beams).all()):
        return replace(replace(state, sources=()).select(rows), sources=state.sources)
    return state.select(rows)
