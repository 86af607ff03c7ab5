"""One entry to all decoding: from a step and prompts to texts.

    decode(model, [[0, 5, 7], [0, 3]], decoding=Decoding(strategy=Beam(beams=4)), end=0)

Everything is ids: what they mean is the caller's matter.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from longspan.decoding.hypothesis import Hypothesis, Written
from longspan.decoding.search import Filter, Request, Search, Strategy
from longspan.decoding.step import Draft, Step
from longspan.decoding.strategies.greedy import Greedy
from longspan.errors import ConfigError, InputError
from longspan.models.stepping import prepared


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How texts are written.

    Attributes:
        strategy: what chooses.
        filters: what says which tokens may come next, in the order in which they act.
        min_tokens: a text is no shorter.
        max_tokens: a text is no longer, the token that ends it counted.
        stop: strings that end a text; they are not part of it.
        seed: of what is drawn; None takes one at random.
    """

    strategy: Strategy = field(default_factory=Greedy)
    filters: tuple[Filter, ...] = ()
    min_tokens: int = 0
    max_tokens: int = 200
    stop: tuple[str, ...] = ()
    seed: int | None = None

    def __post_init__(self) -> None:
        problems = []
        if self.max_tokens < 0:
            problems.append(f"max_tokens must be 0 or more, not {self.max_tokens}")
        if not 0 <= self.min_tokens <= max(self.max_tokens, 0):
            problems.append(
                f"min_tokens must be 0 or more and at most max_tokens, not {self.min_tokens}"
            )
        if "" in self.stop:
            problems.append("stop must not be empty: every text begins with it")
        if self.seed is not None and self.seed < 0:
            problems.append(f"seed must be 0 or more, not {self.seed}")
        problems += [
            f"{each.name} shapes what is drawn from, and {self.strategy.name} draws nothing; "
            "leave it out, or take the strategy sample"
            for each in self.filters
            if each.draws and not self.strategy.draws
        ]
        if problems:
            raise ConfigError(problems)


@torch.inference_mode()
def decode(
    step: Step,
    prompts: Sequence[Sequence[int]],
    state: Any = None,
    *,
    decoding: Decoding | None = None,
    end: int | None = None,
    piece: Callable[[int], bytes] | None = None,
    read: Sequence[Sequence[int]] = (),
    alternatives: int = 0,
    draft: Draft | None = None,
    device: torch.device | str | None = None,
) -> list[list[Hypothesis]]:
    """Texts that go on from prompts, of each row the best first.

    Args:
        step: a `Decoder`, `EncoderDecoder.decode`, or what keeps to their form (`Step`).
        prompts: ids of each row, of any lengths; one or more each, which the model has not read.
        state: what it has read before, of as many rows: `model.encode(source)`, for instance.
        decoding: how; greedily by default.
        end: the token that ends a text; None for none.
        piece: the bytes of a token (`Codec.piece`), if there are stop strings, or filters that go
            by bytes.
        read: ids of each row that `state` holds already, for filters that look back at them.
        alternatives: tell so many candidates of each step (`Hypothesis.considered`); of beams all
            that were ranked.
        draft: the smaller model that writes ahead, for the strategy `speculative`.
        device: where the tokens are to lie; the state's by default, and the CPU without one.

    A row's text depends on no other row's, but for rounding in the model.

    Raises:
        InputError: no prompt, an empty one, stop strings without `piece`, or a strategy without
            what it needs of models.
        DecodingError: nothing may come next in a row.
    """
    request = _request(
        step, prompts, state, decoding, end, piece, read, alternatives, draft, device
    )
    search = _search(request, decoding or Decoding())
    while True:
        try:
            next(search)
        except StopIteration as finished:
            return finished.value


@torch.inference_mode()
def stream(
    step: Step,
    prompts: Sequence[Sequence[int]],
    state: Any = None,
    *,
    decoding: Decoding | None = None,
    end: int | None = None,
    piece: Callable[[int], bytes] | None = None,
    read: Sequence[Sequence[int]] = (),
    alternatives: int = 0,
    draft: Draft | None = None,
    device: torch.device | str | None = None,
) -> Iterator[Written]:
    """As `decode`, but each token as soon as it is certain.

    Tokens of a strategy that commits come as they are chosen, all rows' first, then all rows'
    second (of speculative decoding all that a round gives, row by row); those of the best
    hypotheses of other strategies when they are found, row by row.
    """
    decoding = decoding or Decoding()
    request = _request(
        step, prompts, state, decoding, end, piece, read, alternatives, draft, device
    )
    found = yield from _search(request, decoding)
    if not decoding.strategy.commits:
        for row, (best, *_) in enumerate(found):
            tokens = best.tokens if len(best.tokens) == len(best.log_probs) else (*best.tokens, end)
            for place, (token, log_prob) in enumerate(zip(tokens, best.log_probs, strict=True)):
                assert token is not None
                last = place + 1 == len(tokens)
                yield Written(
                    row=row, token=token, log_prob=log_prob, hypothesis=best if last else None
                )


def _search(request: Request, decoding: Decoding) -> Search:
    if not request.max_tokens:
        nothing = Hypothesis(tokens=(), score=0.0, log_probs=(), finish="length")
        return [[nothing] for _ in request.prompts]
    return (yield from decoding.strategy.search(request))


def _request(
    step: Step,
    prompts: Sequence[Sequence[int]],
    state: Any,
    decoding: Decoding | None,
    end: int | None,
    piece: Callable[[int], bytes] | None,
    read: Sequence[Sequence[int]],
    alternatives: int,
    draft: Draft | None,
    device: torch.device | str | None,
) -> Request:
    decoding = decoding or Decoding()
    if decoding.stop and piece is None:
        raise InputError("stop strings need the bytes of a token: piece=codec.piece")
    if read and len(read) != len(prompts):
        raise InputError(f"read has {len(read)} rows, prompts {len(prompts)}")
    strategy = decoding.strategy
    if strategy.drafts and draft is None:
        raise InputError(f"the strategy {strategy.name} needs a smaller model: draft=Draft(model)")
    if draft is not None and not strategy.drafts:
        raise InputError(
            f"the strategy {strategy.name} needs no draft; leave it out, or take speculative"
        )
    if device is None:
        clock = getattr(state, "next", None)
        device = clock.device if isinstance(clock, torch.Tensor) else "cpu"
    return Request(
        step=prepared(step, decoding.max_tokens),
        prompts=prompts,
        state=state,
        read=read,
        filters=decoding.filters,
        acting=tuple(each.begin(piece, end) for each in decoding.filters),
        min_tokens=decoding.min_tokens,
        max_tokens=decoding.max_tokens,
        end=end,
        stop=tuple(word.encode() for word in decoding.stop),
        piece=piece,
        seed=secrets.randbits(63) if decoding.seed is None else decoding.seed,
        alternatives=alternatives,
        device=device,
        draft=draft and replace(draft, step=prepared(draft.step, decoding.max_tokens)),
    )
