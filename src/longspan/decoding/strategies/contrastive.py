"""Contrastive search: likely tokens that say something new (2202.06417, equation 5).

Of the k likeliest tokens v the one with the highest

    (1 - alpha) p(v | x) - alpha max over j of cos(h_v, h_j)

is taken, where h_v is the last hidden state with v appended, and h_j those of all tokens before. A
step tries all k at once, so a token costs one step of k rows.

Hidden states of tokens that were read before the search (`state`) are not compared with: give the
prompts whole. Filters act first, and p is what they leave, normalised.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from longspan.decoding.hypothesis import Candidate, Considered
from longspan.decoding.search import Request, Search, Strategy
from longspan.decoding.step import PIECE, Shown, padded, shown
from longspan.decoding.writing import Texts
from longspan.errors import ConfigError, DecodingError


@dataclass(frozen=True, kw_only=True)
class Contrastive(Strategy, name="contrastive"):
    """Takes the candidate that is likely and unlike what was there.

    Attributes:
        candidates: k, 1 or more.
        alpha: how much likeness counts; 0 is greedy, 1 looks at nothing else.
    """

    rereads: ClassVar[bool] = True

    candidates: int = 4
    alpha: float = 0.6

    def __post_init__(self) -> None:
        problems = []
        if self.candidates < 1:
            problems.append(f"candidates must be 1 or more, not {self.candidates}")
        if not 0 <= self.alpha <= 1:
            problems.append(f"alpha must be 0 or more and at most 1, not {self.alpha}")
        if problems:
            raise ConfigError(problems)

    def search(self, request: Request) -> Search:
        step = shown(request.step, self.name)
        texts = Texts(request)
        logits, before, real, state = _read(step, request)
        history = request.history()
        for written in range(request.max_tokens):
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            scores = request.filtered(logits, history, written)
            texts.check(logits, scores, history, written)
            probs, tokens = scores.softmax(-1).topk(min(self.candidates, scores.shape[1]))
            rows, width = tokens.shape
            each = torch.arange(rows, device=tokens.device).repeat_interleave(width)
            h, tried = step.hidden(tokens.flatten()[:, None], state.select(each))
            h = h.unflatten(0, (rows, width))[:, :, 0]
            likeness = (_unit(h) @ before.transpose(1, 2)).masked_fill(~real[:, None], -torch.inf)
            penalty = self.alpha * likeness.amax(-1)
            worth = ((1 - self.alpha) * probs - penalty).masked_fill(probs == 0, -torch.inf)
            if bool(worth.isnan().any()):
                row = texts.live[int(worth.isnan().any(1).nonzero()[0])]
                raise DecodingError(
                    f"row {row} after {written} tokens: a hidden state is no number"
                )
            # of equals the likeliest
            best = worth.argmax(1)
            which = torch.arange(rows, device=best.device)
            chosen, own = tokens[which, best], logits.log_softmax(-1)
            told = []
            if request.alternatives:
                told = _considered(own, scores, tokens, worth, penalty, best)
            going = yield from texts.add(chosen, own.gather(1, chosen[:, None])[:, 0], told)
            if not going:
                break
            rows = torch.tensor(going, device=best.device)
            newest = h[rows, best[rows]]
            state = tried.select(rows * width + best[rows])
            logits = step.head(newest[:, None])[:, 0]
            before = torch.cat([before[rows], _unit(newest)[:, None]], 1)
            real = torch.cat([real[rows], real.new_ones(len(going), 1)], 1)
            history = request.remember(history[rows], chosen[rows])
        return texts.hypotheses()


def _read(step: Shown, request: Request) -> tuple[Tensor, Tensor, Tensor, Any]:
    """Reads the prompts.

    Returns:
        Logits (N, V) after them, directions (N, L, C) of their hidden states, which of these
        (N, L) are of real tokens, and the state.
    """
    tokens, lengths = padded(request.prompts, request.device)
    real = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
    state, parts = request.state, []
    for low in range(0, tokens.shape[1], PIECE):
        piece = slice(low, low + PIECE)
        valid = None if bool(real.all()) else real[:, piece]
        h, state = step.hidden(tokens[:, piece], state, valid=valid)
        parts.append(h)
    h = torch.cat(parts, 1)
    last = h[torch.arange(len(h), device=h.device), lengths - 1]
    return step.head(last[:, None])[:, 0], _unit(h), real, state


def _unit(h: Tensor) -> Tensor:
    """(…, C) of length 1."""
    return normalize(h.to(torch.promote_types(h.dtype, torch.float32)), dim=-1)


def _considered(
    own: Tensor, scores: Tensor, tokens: Tensor, worth: Tensor, penalty: Tensor, best: Tensor
) -> list[Considered]:
    """All candidates (N, k), the best first."""
    filtered = scores.log_softmax(-1)
    return [
        tuple(
            Candidate(
                token=(token := int(tokens[row, slot])),
                log_prob=float(own[row, token]),
                filtered=float(filtered[row, token]),
                fate="chosen" if slot == best[row] else "dropped",
                score=float(worth[row, slot]),
                penalty=float(penalty[row, slot]),
            )
            for slot in worth[row].argsort(descending=True, stable=True).tolist()
        )
        for row in range(len(tokens))
    ]
