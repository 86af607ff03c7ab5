"""`longspan generate`."""

from __future__ import annotations

import codecs
import math
import sys
from collections.abc import Sequence
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from longspan.cli.decoding import DecodingOptions
from longspan.cli.options import Checkpoint, Device, DType, Threads, open_run
from longspan.decoding.decode import Decoding
from longspan.decoding.explain import Explanation
from longspan.decoding.generate import hypotheses, tokens
from longspan.decoding.hypothesis import Hypothesis
from longspan.decoding.strategies.sample import Sample
from longspan.errors import ConfigError
from longspan.training.run import Run

ALTERNATIVES = 5
"""Candidates of each step that --explain shows."""


def generate(
    run: str,
    /,
    *,
    prompt: str = "",
    how: DecodingOptions | None = None,
    draft: str | None = None,
    scores: Annotated[bool, Parameter(negative="")] = False,
    explain: Annotated[bool, Parameter(negative="")] = False,
    checkpoint: Checkpoint = "best",
    device: Device = "auto",
    dtype: DType = "auto",
    threads: Threads = 0,
) -> None:
    """Continue a prompt, token by token as they come.

    Texts of beams come when they are found, those of --n-best one after another.

    Parameters
    ----------
    run
        A run's folder.
    prompt
        What the text begins with; it is printed too.
    draft
        Of the strategy speculative, the folder of a smaller run with the same tokenizer, which
        writes ahead.
    scores
        Below each text its score, its log-probability and what ended it.
    explain
        Instead of the text alone, step by step what was considered, and why the winner won.
    """
    decoding = (how or DecodingOptions()).over(Decoding(strategy=Sample()))
    if decoding.strategy.drafts != (draft is not None):
        raise ConfigError("--strategy speculative and --draft RUN go together")
    loaded = open_run(run, checkpoint, device, dtype, threads)
    ahead = None if draft is None else open_run(draft, checkpoint, device, dtype, threads)
    if not (scores or explain or getattr(decoding.strategy, "n_best", 1) > 1):
        _as_it_comes(loaded, prompt, decoding, ahead)
        return
    codec = loaded.tokenizer
    found = hypotheses(
        loaded,
        prompt,
        decoding=decoding,
        draft=ahead,
        alternatives=ALTERNATIVES if explain else 0,
    )
    # nothing was considered for no token
    if explain and decoding.max_tokens:
        Explanation(found, decoding, codec.piece, codec.start).print(Console())
    for text in found:
        content = codec.gap(prompt) + text.text(codec.piece)
        print(_typed(prompt) + content.decode("utf-8", "replace"))
        if scores:
            print(_score(text))
        _warn(text, decoding)


def _as_it_comes(run: Run, prompt: str, decoding: Decoding, draft: Run | None) -> None:
    # a character may come as several tokens
    text = codecs.getincrementaldecoder("utf-8")(errors="replace")
    stops = [word.encode() for word in decoding.stop]
    steps = tokens(run, prompt, decoding=decoding, draft=draft)
    between = text.decode(run.tokenizer.gap(prompt))  # refused before anything is printed
    _say(_typed(prompt) + between)
    held = b""
    last = None
    for step in steps:
        held += step.bytes
        if step.hypothesis is not None:
            last = step.hypothesis
            held = held[: len(held) - step.hypothesis.cut]
            break
        sure = len(held) - _begun(held, stops)
        _say(text.decode(held[:sure]))
        held = held[sure:]
    _say(text.decode(held, final=True) + "\n")
    if last is not None:
        _warn(last, decoding)


def _begun(content: bytes, stops: Sequence[bytes]) -> int:
    """Bytes at the end of `content` with which a stop string may have begun."""
    begun = (n for stop in stops for n in range(1, len(stop)) if content.endswith(stop[:n]))
    return max(begun, default=0)


def _typed(prompt: str) -> str:
    # bytes that are no text reach us as lone surrogates, which cannot be printed
    return prompt.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _warn(text: Hypothesis, decoding: Decoding) -> None:
    """Says of a text of some form that it may have been cut."""
    if text.finish == "length" and any(each.name == "constraint" for each in decoding.filters):
        print(
            f"longspan: the text was ended by its length ({decoding.max_tokens} tokens) and may be "
            "unfinished; raise --max-tokens",
            file=sys.stderr,
        )


def _score(text: Hypothesis) -> str:
    total, count = sum(text.log_probs), len(text.log_probs)
    bits = -total / math.log(2) / max(count, 1)
    return (
        f"  score {text.score:.4f}, log-probability {total:.4f} nats, {count} tokens, "
        f"{bits:.3f} bits a token, ended by {text.finish}"
        + (f", {text.accepted} of {text.drafted} drafted tokens taken" if text.drafted else "")
    )
