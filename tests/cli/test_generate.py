"""`longspan generate` on a terminal."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
import torch

import longspan
from longspan import Beam, Decoding, NoRepeat, Repetition, Sample, Temperature, TopK
from longspan.cli.decoding import FILTERS, STRATEGY, DecodingOptions
from longspan.decoding.generate import hypotheses
from longspan.decoding.search import Filter, Request, Search, Strategy
from longspan.decoding.writing import write
from longspan.errors import ConfigError
from tests.tiny import PATIENCE, Result, refused, start

GENERATE = ("generate", "--threads", 1)


def forced(monkeypatch: pytest.MonkeyPatch, ids: list[int]) -> None:
    """Makes sampling write `ids`."""
    following = iter(ids)

    def search(self: Sample, request: Request) -> Search:
        return write(request, lambda *_: torch.tensor([next(following)]))

    monkeypatch.setattr(Sample, "search", search)


def test_the_prompt_and_what_follows(cli: Callable[..., Result], trained: Path) -> None:
    asked = (*GENERATE, trained, "--prompt", "äb", "--max-tokens", 30, "--top-p", 0.9, "--seed", 3)
    text = longspan.generate(longspan.load(trained), "äb", max_tokens=30, top_p=0.9, seed=3)
    assert cli(*asked) == Result(0, f"äb{text}\n", "")


def test_a_character_of_several_tokens_is_printed_when_it_is_whole(
    cli: Callable[..., Result], trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what was printed by then is seen: nothing waits in a buffer."""
    ids = [*"aä€".encode(), 0xE2, 0x82, *b"b", 0xC3]
    pieces: list[str] = []

    class Screen(io.StringIO):
        def flush(self) -> None:
            pieces.append(self.getvalue())

    forced(monkeypatch, ids)
    monkeypatch.setattr(sys, "stdout", Screen())
    cli(*GENERATE, trained, "--prompt", ">", "--max-tokens", 10)
    lost = "\N{REPLACEMENT CHARACTER}"
    seen = [">", ">a", ">a", ">aä", ">aä", ">aä", ">aä€", ">aä€", ">aä€", f">aä€{lost}b"]
    assert pieces[:10] == seen
    assert pieces[10] == f">aä€{lost}b{lost}\n"


def test_what_may_begin_a_stop_string_is_held_back(
    cli: Callable[..., Result], trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces: list[str] = []

    class Screen(io.StringIO):
        def flush(self) -> None:
            pieces.append(self.getvalue())

    forced(monkeypatch, list(b"one two. three"))
    monkeypatch.setattr(sys, "stdout", Screen())
    cli(*GENERATE, trained, "--stop", "two. ", "--stop", " no", "--max-tokens", 40)
    texts = ["", "o", "on", "one", "one", "one ", "one ", "one ", "one "]
    assert pieces == [*texts, "one \n"]


def test_a_reader_who_has_enough_ends_it_cleanly(trained: Path) -> None:
    process = start(*GENERATE, trained, "--max-tokens", 10**6, "--seed", 1)
    head = ["head", "-c", "5"]
    subprocess.run(head, stdin=process.stdout, stdout=subprocess.DEVNULL, timeout=PATIENCE)
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(PATIENCE) == 0
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()


def test_bad_settings_are_refused(cli: Callable[..., Result], trained: Path) -> None:
    said = refused(cli(*GENERATE, trained, "--temperature", 0, "--top-p", 3))
    assert "2 problems" in said
    assert "max_tokens must be 0 or more" in refused(cli(*GENERATE, trained, "--max-tokens", -2))


def test_a_prompt_that_the_vocabulary_cannot_say_is_refused(
    cli: Callable[..., Result], trained_bpe: Path
) -> None:
    # what a terminal could not decode reaches a program as a lone surrogate
    result = cli(*GENERATE, trained_bpe, "--prompt", "\udcff")
    assert "the prompt is not valid text" in refused(result)
    assert result.out == ""


def test_a_prompt_that_is_no_text_is_bytes_where_bytes_will_do(
    cli: Callable[..., Result], trained: Path
) -> None:
    result = cli(*GENERATE, trained, "--prompt", "a\udcff", "--max-tokens", 0)
    assert result == Result(0, "a\N{REPLACEMENT CHARACTER}\n", "")


def test_several_texts_and_their_scores(cli: Callable[..., Result], trained: Path) -> None:
    how = Decoding(
        strategy=Beam(beams=4, n_best=3, length_penalty=0.5, early_stopping=True),
        filters=(Repetition(1.2), NoRepeat(2)),
        max_tokens=6,
    )
    found = hypotheses(longspan.load(trained), "ab", decoding=how)
    words = ("--strategy", "beam", "--beams", 4, "--n-best", 3, "--length-penalty", 0.5)
    words += ("--early-stopping", "true", "--repetition-penalty", 1.2, "--no-repeat", 2)
    asked = (*GENERATE, trained, "--prompt", "ab", "--max-tokens", 6, *words)
    texts = [f"ab{bytes(text.tokens).decode(errors='replace')}" for text in found]
    assert len(set(texts)) == 3
    assert cli(*asked) == Result(0, "\n".join([*texts, ""]), "")
    lines = cli(*asked, "--scores").out.split("\n")
    scores = [line for line in lines if line.startswith("  score ")]
    assert [line.split()[1] for line in scores] == [f"{text.score:.4f}," for text in found]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--greedy", "--top-p", 0.5), ["--top-p shapes what is drawn from, and greedy draws"]),
        (("--beams", 3), ["--beams is of the strategy beam or diverse, not of sample; leave it"]),
        (("--strategy", "beam", "--groups", 2, "--top-k", 2), ["--groups is of", "--top-k shapes"]),
        (("--strategy", "beam", "--n-best", 9), ["n_best must be 1 or more and at most beams"]),
        (("--strategy", "beem"), ["unknown strategy 'beem', did you mean 'beam'?"]),
        (("--greedy", "--strategy", "beam"), ["--greedy is a strategy, and so is --strategy beam"]),
        (("--min-tokens", 9, "--max-tokens", 3), ["min_tokens must be 0 or more and at most max"]),
    ],
)
def test_what_a_strategy_does_not_take_is_refused(
    cli: Callable[..., Result], words: tuple[object, ...], said: list[str]
) -> None:
    """Before the run is looked for."""
    message = refused(cli(*GENERATE, "no-such-run", *words))
    assert all(each in message for each in said)


SAMPLED = Decoding(strategy=Sample())


def test_options_are_the_settings_of_strategies_and_filters() -> None:
    settings = {f.name for member in Strategy.all().values() for f in fields(member)}
    assert set(STRATEGY) == settings
    assert {name for name, _ in FILTERS.values()} == set(Filter.all())
    made = DecodingOptions(temperature=0.5, top_k=3, no_repeat=2, seed=4, stop=("x",)).over(SAMPLED)
    assert made == Decoding(
        strategy=Sample(),
        filters=(NoRepeat(2), Temperature(0.5), TopK(3)),
        seed=4,
        stop=("x",),
    )
    base = Decoding(strategy=Beam(beams=5, n_best=2), filters=(NoRepeat(3), Repetition(1.1)))
    assert DecodingOptions().over(base) == base
    changed = DecodingOptions(n_best=1, no_repeat=0, max_tokens=9).over(base)
    assert changed == Decoding(
        strategy=Beam(beams=5, n_best=1), filters=(Repetition(1.1),), max_tokens=9
    )
    # another strategy has settings of its own; where nothing is drawn, nothing shapes draws
    assert DecodingOptions(strategy="greedy").over(made).filters == (NoRepeat(2),)
    assert DecodingOptions(strategy="beam").over(made).strategy == Beam()
    with pytest.raises(ConfigError, match="2 problems"):
        DecodingOptions(beams=2, groups=2).over(SAMPLED)


def test_explain_shows_each_step_and_why(cli: Callable[..., Result], trained: Path) -> None:
    asked = (*GENERATE, trained, "--prompt", "ab", "--explain")
    out = cli(*asked, "--max-tokens", 4, "--top-k", 3, "--seed", 2).out
    assert "\n".join(out.splitlines()[:-1]).isascii()
    assert out.count(" taken ") == 4
    assert "after filters" in out
    assert "' '" in out, "a space can be seen"
    assert "drawn by what the filters left (top_k)" in out
    assert out.splitlines()[-1].startswith("ab"), "the text comes last"
    contrastive = cli(*asked, "--max-tokens", 2, "--strategy", "contrastive").out
    assert "penalty |  score" in contrastive
    assert "taken by its score (no filters)" in contrastive
    out = cli(*asked, "--max-tokens", 3, "--strategy", "beam").out
    assert [f"Step {n}" in out for n in (1, 2, 3, 4)] == [True, True, True, False]
    assert "beam 3" in out
    assert "dropped" in out
    assert "after filters" not in out, "there are none"
    how = Decoding(strategy=Beam(), max_tokens=3)
    best, *_ = hypotheses(longspan.load(trained), "ab", decoding=how)
    total = sum(best.log_probs)
    assert f"The first won with {total:.3f} / 3^1 = {best.score:.3f}, ended by its length" in out
    assert "the next of 4 complete texts is worth" in " ".join(out.split())
