"""The loop of strategies that write token by token: what is written stays.

Rows whose text is complete leave the batch, so that it does not cost what its longest row does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from longspan.decoding.hypothesis import Candidate, Considered, Finish, Hypothesis, Written
from longspan.decoding.search import Request, Search


class Text:
    """What one row has written so far.

    Attributes:
        tokens: the ids, without an end token.
        log_probs: of each under the model, and of the end token.
        considered: at each step, if asked for.
        hypothesis: the text, once it is complete.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.tokens: list[int] = []
        self.log_probs: list[float] = []
        self.considered: list[Considered] = []
        self.hypothesis: Hypothesis | None = None

    def add(self, token: int, log_prob: float, considered: Considered = ()) -> bool:
        """Writes one more token; whether the text goes on after it."""
        request = self.request
        self.log_probs.append(log_prob)
        if request.alternatives:
            self.considered.append(considered)
        if token == request.end:
            return self._finish("end")
        self.tokens.append(token)
        cut = request.stops(self.tokens)
        if cut is not None:
            return self._finish("stop", cut)
        return len(self.tokens) < request.max_tokens or self._finish("length")

    def _finish(self, how: Finish, cut: int = 0) -> bool:
        self.hypothesis = Hypothesis(
            tokens=tuple(self.tokens),
            score=sum(self.log_probs),
            log_probs=tuple(self.log_probs),
            finish=how,
            cut=cut,
            considered=tuple(self.considered),
        )
        return False


def write(request: Request, choose: Callable[[Tensor, Sequence[int]], Tensor]) -> Search:
    """Writes by choosing one token after another.

    Args:
        request: what is to be written.
        choose: given filtered logits (N, V) and the numbers of the N rows, the tokens (N,) int64.
    """
    texts = [Text(request) for _ in range(request.rows)]
    live = list(range(request.rows))
    logits, state = request.begin()
    history = request.history()
    for written in range(request.max_tokens):
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        scores = request.filtered(logits, history, written)
        best = scores.amax(-1)
        if not bool(best.isfinite().all()):
            index = int((~best.isfinite()).nonzero()[0])
            request.refuse(logits, history, written, live[index], index)
        tokens = choose(scores, live)
        own = logits.log_softmax(-1)
        told = _considered(own, scores, tokens, request.alternatives) or [()] * len(live)
        chances = own.gather(1, tokens[:, None])[:, 0].tolist()
        going = []
        for index, token in enumerate(tokens.tolist()):
            row = live[index]
            if texts[row].add(token, chances[index], told[index]):
                going.append(index)
            yield Written(
                row=row,
                token=token,
                log_prob=chances[index],
                hypothesis=texts[row].hypothesis,
                considered=told[index],
            )
        if not going:
            break
        if len(going) < len(live):
            rows = torch.tensor(going, device=tokens.device)
            tokens, history, state = tokens[rows], history[rows], state.select(rows)
            live = [live[index] for index in going]
        logits, state = request.go_on(tokens, state)
        history = request.remember(history, tokens)
    return [[text.hypothesis] for text in texts if text.hypothesis]


def _considered(own: Tensor, scores: Tensor, tokens: Tensor, alternatives: int) -> list[Considered]:
    """The best of each row after the filters, and what was chosen."""
    if not alternatives:
        return []
    filtered = scores.log_softmax(-1)
    count = min(alternatives, own.shape[1])
    result = []
    for row, token in enumerate(tokens.tolist()):
        # those that the filters ban come last, the likeliest first
        order = filtered[row].topk(count).indices.tolist()
        banned = [i for i in order if filtered[row, i] == -torch.inf]
        if banned:
            order = order[: count - len(banned)]
            ranked = own[row].masked_fill(filtered[row] > -torch.inf, -torch.inf)
            order += ranked.topk(count - len(order)).indices.tolist()
        if token not in order:
            order.append(token)
        result.append(
            tuple(
                Candidate(
                    token=i,
                    log_prob=float(own[row, i]),
                    filtered=float(filtered[row, i]),
                    fate="chosen" if i == token else "dropped",
                )
                for i in order
            )
        )
    return result
