"""Text from a run: token by token as it is written, or whole."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from longspan.config import build
from longspan.decoding.decode import Decoding, decode, stream
from longspan.decoding.hypothesis import Hypothesis
from longspan.decoding.step import Draft
from longspan.decoding.strategies.sample import Sample
from longspan.errors import ConfigError, InputError
from longspan.state import State
from longspan.training.run import Run


@dataclass(frozen=True)
class Token:
    """One token of a text.

    Attributes:
        token: its number in the vocabulary.
        bytes: what it stands for.
        bits: its surprisal under the model (before temperature and filters).
        prompt: it was given, not generated.
        hypothesis: the whole text, with its last token.
    """

    token: int
    bytes: bytes
    bits: float
    prompt: bool = False
    hypothesis: Hypothesis | None = None


def tokens(
    run: Run,
    prompt: str = "",
    *,
    decoding: Decoding | None = None,
    draft: Run | None = None,
    echo: bool = False,
) -> Iterator[Token]:
    """Generates tokens as they come, until the longest length, the end of the document or a stop.

    Args:
        run: a loaded run.
        prompt: what the text begins with.
        decoding: how; drawn from the model's distribution by default.
        draft: a smaller run that writes ahead, for the strategy `speculative`.
        echo: yield the prompt's tokens too, with their surprisal.

    The token that ends a document is not told. A stop string is told as far as it belongs to tokens
    (`Hypothesis.cut`).

    Raises:
        InputError: the prompt has something that the vocabulary does not, or the draft has another.
        DecodingError: nothing may come next.
    """
    codec, decoding = run.tokenizer, decoding or Decoding(strategy=Sample())
    given = codec.prompt(prompt).tolist()
    state, bits = _read(run, given)
    if echo:
        for token, surprisal in zip(given, bits, strict=True):
            yield Token(token, codec.piece(token), surprisal, prompt=True)
    before, ahead, state = _begin(run, given, state, decoding)
    for each in stream(
        run.language_model,
        [ahead],
        state,
        decoding=decoding,
        end=codec.start,
        piece=codec.piece,
        read=[before],
        draft=_drafting(run, draft),
    ):
        if each.token == codec.start:
            return
        surprisal = -each.log_prob / math.log(2)
        yield Token(each.token, codec.piece(each.token), surprisal, hypothesis=each.hypothesis)


@torch.no_grad()
def _read(run: Run, given: list[int]) -> tuple[State, list[float]]:
    """The state before the last token of the start symbol and `given`, and the bits of `given`."""
    model, start = run.language_model, run.tokenizer.start
    state = model.start(1)
    if not given:
        return state, []
    inputs = torch.tensor([[start, *given]], device=state.next.device)
    h, state = model.hidden(inputs[:, :-1], state)
    nats = model.head.nll(h[0], inputs[0, 1:])
    return state, (nats / math.log(2)).tolist()


def _begin(
    run: Run, given: list[int], state: State, decoding: Decoding
) -> tuple[list[int], list[int], State]:
    """What `state` has read, what is to be read, and the state to begin from."""
    *before, last = [run.tokenizer.start, *given]
    if decoding.strategy.rereads:
        return [], [*before, last], run.language_model.start(1)
    return before, [last], state


def hypotheses(
    run: Run,
    prompt: str = "",
    *,
    decoding: Decoding | None = None,
    draft: Run | None = None,
    alternatives: int = 0,
) -> list[Hypothesis]:
    """The continuations of `prompt` that decoding finds, best first.

    Args:
        run: a loaded run.
        prompt: what the texts begin with.
        decoding: how; drawn from the model's distribution by default.
        draft: as for `tokens`.
        alternatives: tell so many candidates of each step.

    Raises:
        InputError, DecodingError: as `tokens`.
    """
    codec, decoding = run.tokenizer, decoding or Decoding(strategy=Sample())
    given = codec.prompt(prompt).tolist()
    state, _ = _read(run, given)
    before, ahead, state = _begin(run, given, state, decoding)
    (found,) = decode(
        run.language_model,
        [ahead],
        state,
        decoding=decoding,
        end=codec.start,
        piece=codec.piece,
        read=[before],
        alternatives=alternatives,
        draft=_drafting(run, draft),
    )
    return found


def _drafting(run: Run, draft: Run | None) -> Draft | None:
    if draft is None:
        return None
    if draft.tokenizer.fingerprint != run.tokenizer.fingerprint:
        raise InputError(
            "the draft has another tokenizer than the run; train it with the same one "
            "(data.tokenizer), on the same data"
        )
    return Draft(draft.language_model)


def generate(
    run: Run,
    prompt: str = "",
    *,
    max_tokens: int | None = None,
    greedy: bool = False,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int | None = None,
    decoding: Decoding | None = None,
) -> str:
    """The continuation of `prompt`, without the prompt and without a stop string.

        longspan.generate(run, "def main(", max_tokens=200, top_p=0.9, seed=1)
        longspan.generate(run, "def main(", decoding=Decoding(strategy=Beam(beams=4)))

    Bytes that are no UTF-8 come out as the replacement character.

    Args:
        run: a loaded run.
        prompt: what the text begins with.
        max_tokens, greedy, temperature, top_k, top_p, seed: the common choices, by name.
        decoding: all choices, in place of these.

    Raises:
        ConfigError: a setting out of range, or choices both by name and by `decoding`.
        InputError: the prompt has something that the vocabulary does not.
        DecodingError: nothing may come next.
    """
    if decoding is None:
        settings = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
        tree = {
            "strategy": "greedy" if greedy else "sample",
            "filters": [
                {"name": name, field: settings[name]}
                for name, field, neutral in _COMMON
                if settings[name] != neutral
            ],
            "max_tokens": 200 if max_tokens is None else max_tokens,
            "seed": seed,
        }
        decoding = build(Decoding, tree)
    elif (max_tokens, greedy, temperature, top_k, top_p, seed) != (None, False, 1.0, 0, 1.0, None):
        raise ConfigError(
            "decoding says everything; leave the other choices out, or put them in it"
        )
    best, *_ = hypotheses(run, prompt, decoding=decoding)
    content = run.tokenizer.gap(prompt) + best.text(run.tokenizer.piece)
    return content.decode("utf-8", errors="replace")


_COMMON = (("temperature", "value", 1.0), ("top_k", "k", 0), ("top_p", "p", 1.0))
"""Filters by name, the field that a number sets, and the number that means none."""
