"""Generation token by token."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from longspan.decoding.sampling import Sampling

import longspan
from longspan.decoding.generate import tokens
from longspan.errors import ConfigError, InputError
from longspan.models.decoder import Decoder
from longspan.training.run import Run
from tests.tiny import train_tiny


@pytest.fixture(scope="module")
def run(trained: Path) -> Run:
    return longspan.load(trained, device="cpu")


def test_a_seed_repeats(run: Run) -> None:
    texts = [longspan.generate(run, "ab", max_tokens=60, seed=seed) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    free = {longspan.generate(run, "ab", max_tokens=60) for _ in range(3)}
    assert len(free) > 1


def test_drawing_leaves_the_global_generator_alone(run: Run) -> None:
    before = torch.get_rng_state()
    longspan.generate(run, "ab", max_tokens=5)
    assert torch.equal(torch.get_rng_state(), before)


def test_greedy_takes_what_one_pass_finds_best(trained: Path) -> None:
    """The text is longer than segment and memory together, so that the memory is at work."""
    run = longspan.load(trained, device="cpu", dtype="float64")
    steps = list(tokens(run, "x y", max_tokens=100, sampling=Sampling(greedy=True)))
    ids = [run.tokenizer.start, *b"x y", *(step.token for step in steps)]
    with torch.no_grad():
        logits, _ = run.model(torch.tensor([ids]))
    assert [step.token for step in steps] == logits[0, 3:-1].argmax(-1).tolist()
    bits = -logits[0, 3:-1].log_softmax(-1).max(-1).values / math.log(2)
    # each is kept as float32
    assert [step.bits for step in steps] == pytest.approx(bits.tolist(), abs=1e-6)


def test_bits_are_the_models_own_whatever_was_drawn_from(trained: Path) -> None:
    run = longspan.load(trained, device="cpu", dtype="float64")
    odd = Sampling(temperature=3.0, top_k=5)
    steps = list(tokens(run, "x", max_tokens=50, sampling=odd, seed=4))
    text = bytes(step.token for step in steps)
    streamed = list(longspan.stream(run, b"x" + text))[1:]
    assert [step.bits for step in steps] == pytest.approx(
        [step.bits for step in streamed], abs=1e-5
    )


def test_a_prompt_is_echoed_if_asked_for(run: Run) -> None:
    steps = list(tokens(run, "äb", max_tokens=3, seed=1, echo=True))
    assert b"".join(step.bytes for step in steps[:3]) == "äb".encode()
    assert [step.prompt for step in steps] == [True] * 3 + [False] * 3
    streamed = [step.bits for step in longspan.stream(run, "äb")]
    assert [step.bits for step in steps[:3]] == pytest.approx(streamed, abs=1e-4)
    assert not any(step.prompt for step in tokens(run, "äb", max_tokens=3, seed=1))


def test_the_continuation_does_not_hold_the_prompt(run: Run) -> None:
    drawn = [step.bytes for step in tokens(run, "def main(", max_tokens=20, seed=7)]
    text = longspan.generate(run, "def main(", max_tokens=20, seed=7)
    assert text == b"".join(drawn).decode("utf-8", errors="replace")
    assert longspan.generate(run, "def main(", max_tokens=0) == ""


def test_tokens_come_as_they_are_made(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    forward = Decoder.forward

    def counted(self: Decoder, *inputs: Any, **named: Any) -> Any:
        calls.append(inputs[0].shape)
        return forward(self, *inputs, **named)

    monkeypatch.setattr(Decoder, "forward", counted)
    steps = tokens(run, "some prompt", max_tokens=1000, seed=1)
    for made in range(4):
        next(steps)
        assert calls == [(1, 1)] * made


def forced(run: Run, monkeypatch: pytest.MonkeyPatch, ids: list[int]) -> None:
    """Makes the draws of a generation give `ids`, then the first one for ever."""
    following = iter(ids)
    monkeypatch.setattr(
        Sampling, "draw", lambda self, logits, generator: torch.tensor([next(following, ids[0])])
    )


def test_the_end_of_the_document_ends_the_text(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    forced(run, monkeypatch, [*b"abc", run.tokenizer.start, *b"never"])
    assert longspan.generate(run, max_tokens=50) == "abc"


def test_bytes_that_are_no_text_are_replaced(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    forced(run, monkeypatch, [*"ä".encode(), 0xC3, *b"!"])
    assert longspan.generate(run, max_tokens=4) == "ä\N{REPLACEMENT CHARACTER}!"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_tokens": -1}, "max_tokens must be 0 or more"),
        ({"temperature": 0.0}, "temperature"),
        ({"top_p": 2.0, "top_k": -1}, "2 problems"),
    ],
)
def test_bad_settings_are_refused(run: Run, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        longspan.generate(run, "x", **settings)


def test_a_prompt_outside_the_vocabulary_is_refused(
    run: Run, tmp_path: Path, corpus: Path, trained_bpe: Path
) -> None:
    with pytest.raises(InputError, match="the prompt is not valid text"):
        longspan.generate(longspan.load(trained_bpe, device="cpu"), "\udcff")
    numbers = tmp_path / "numbers"
    numbers.write_text(" ".join(str(n * n % 13) for n in range(3000)))
    changes = {"data.tokenizer": {"name": "ids", "size": 13}, "train.steps": 2}
    ids = longspan.load(train_tiny(tmp_path / "run", numbers, **changes), device="cpu")
    assert longspan.generate(ids, "3 4 5", max_tokens=2, seed=1)
    for prompt in ("3 14", "3 x"):
        with pytest.raises(InputError):
            longspan.generate(ids, prompt)


def test_byte_pairs_generate_text(trained_bpe: Path) -> None:
    run = longspan.load(trained_bpe, device="cpu")
    steps = list(tokens(run, "ab", max_tokens=40, seed=1))
    assert max(len(step.bytes) for step in steps) > 1
    assert longspan.generate(run, "ab", max_tokens=40, seed=1) == run.tokenizer.decode(
        [step.token for step in steps]
    ).decode("utf-8", errors="replace")


def test_another_memory_gives_other_text_only_where_it_is_shorter(run: Run) -> None:
    """More memory than trained with is allowed; the first segment does not know of it."""
    more = replace(run, model=run.model.remembering(128))
    a, b = (longspan.generate(each, "q", max_tokens=120, greedy=True) for each in (run, more))
    assert a[:20] == b[:20]
