"""The loop of strategies that write token by token: what is written stays.

Rows whose text is complete leave the batch, so that it does not cost what its longest row does.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

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
        drafted, accepted: as of `Hypothesis`.
        hypothesis: the text, once it is complete.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.tokens: list[int] = []
        self.log_probs: list[float] = []
        self.considered: list[Considered] = []
        self.drafted = self.accepted = 0
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
            drafted=self.drafted,
            accepted=self.accepted,
        )
        return False


class Texts:
    """What all rows write: those whose text is complete leave the batch.

    Attributes:
        texts: one a row.
        live: numbers of the rows that are still written.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.texts = [Text(request) for _ in range(request.rows)]
        self.live = list(range(request.rows))

    def check(self, logits: Tensor, scores: Tensor, history: Tensor, written: int) -> None:
        """Refuses scores (N, V) of the live rows under which nothing may come next.

        Args:
            logits: (N, V), before the filters.
            history, written: as for `Request.filtered`.

        Raises:
            DecodingError: there are such.
        """
        best = scores.amax(-1)
        if not bool(best.isfinite().all()):
            index = int((~best.isfinite()).nonzero()[0])
            self.request.refuse(logits, history, written, self.live[index], index)

    def add(
        self, tokens: Tensor, log_probs: Tensor, told: Sequence[Considered]
    ) -> Generator[Written, None, list[int]]:
        """Writes one more token of each live row.

        Args:
            tokens: (N,) int64.
            log_probs: (N,), of each under the model.
            told: what was considered for each; () if that was not asked for.

        Returns:
            Which of the N rows go on.
        """
        going = []
        told = told or [()] * len(self.live)
        chances = log_probs.tolist()
        for index, (row, token) in enumerate(zip(self.live, tokens.tolist(), strict=True)):
            if self.texts[row].add(token, chances[index], told[index]):
                going.append(index)
            yield Written(
                row=row,
                token=token,
                log_prob=chances[index],
                hypothesis=self.texts[row].hypothesis,
                considered=told[index],
            )
        self.live = [self.live[index] for index in going]
        return going

    def hypotheses(self) -> list[list[Hypothesis]]:
        """The texts that are complete, by row."""
        return [[text.hypothesis] for text in self.texts if text.hypothesis]


def write(request: Request, choose: Callable[[Tensor, Sequence[int]], Tensor]) -> Search:
    """Writes by choosing one token after another.

    Args:
        request: what is to be written.
        choose: given filtered logits (N, V) and the numbers of the N rows, the tokens (N,) int64.
    """
    texts = Texts(request)
    logits, state = request.begin()
    history = request.history()
    for written in range(request.max_tokens):
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        scores = request.filtered(logits, history, written)
        texts.check(logits, scores, history, written)
        tokens = choose(scores, texts.live)
        own = logits.log_softmax(-1)
        told = considered(own, scores, tokens, request.alternatives)
        going = yield from texts.add(tokens, own.gather(1, tokens[:, None])[:, 0], told)
        if not going:
            break
        if len(going) < len(tokens):
            rows = torch.tensor(going, device=tokens.device)
            tokens, history, state = tokens[rows], history[rows], state.select(rows)
        logits, state = request.go_on(tokens, state)
        history = request.remember(history, tokens)
    return texts.hypotheses()


def considered(own: Tensor, scores: Tensor, tokens: Tensor, alternatives: int) -> list[Considered]:
    """The best of each row after the filters, and what was chosen; [] for no alternatives.

    Args:
        own: (N, V) log-probabilities.
        scores: (N, V) logits after the filters.
        tokens: (N,) int64, chosen.
        alternatives: how many are told.
    """
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
