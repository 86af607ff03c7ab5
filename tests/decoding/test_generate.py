"""Generation token by token."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

import longspan
from longspan import Beam, Decoding, Greedy, Repetition, Sample, Temperature, TopK
from longspan.decoding.generate import hypotheses, tokens
from longspan.decoding.search import Request, Search, Strategy
from longspan.decoding.writing import write
from longspan.errors import ConfigError, InputError
from longspan.models.decoder import Decoder
from longspan.training.run import Run
from tests.tiny import train_tiny


@pytest.fixture(scope="module")
def run(trained: Path) -> Run:
    return longspan.load(trained, device="cpu")


def drawing(longest: int, seed: int) -> Decoding:
    return Decoding(strategy=Sample(), max_tokens=longest, seed=seed)


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
    greedy = Decoding(strategy=Greedy(), max_tokens=100)
    steps = list(tokens(run, "x y", decoding=greedy))
    ids = [run.tokenizer.start, *b"x y", *(step.token for step in steps)]
    with torch.no_grad():
        logits, _ = run.model(torch.tensor([ids]))
    assert [step.token for step in steps] == logits[0, 3:-1].argmax(-1).tolist()
    bits = -logits[0, 3:-1].log_softmax(-1).max(-1).values / math.log(2)
    # each is kept as float32
    assert [step.bits for step in steps] == pytest.approx(bits.tolist(), abs=1e-6)


def test_bits_are_the_models_own_whatever_was_drawn_from(trained: Path) -> None:
    run = longspan.load(trained, device="cpu", dtype="float64")
    odd = Decoding(strategy=Sample(), filters=(Temperature(3.0), TopK(5)), max_tokens=50, seed=4)
    steps = list(tokens(run, "x", decoding=odd))
    text = bytes(step.token for step in steps)
    streamed = list(longspan.stream(run, b"x" + text))[1:]
    assert [step.bits for step in steps] == pytest.approx(
        [step.bits for step in streamed], abs=1e-5
    )


def test_a_prompt_is_echoed_if_asked_for(run: Run) -> None:
    three = drawing(3, 1)
    steps = list(tokens(run, "äb", decoding=three, echo=True))
    assert b"".join(step.bytes for step in steps[:3]) == "äb".encode()
    assert [step.prompt for step in steps] == [True] * 3 + [False] * 3
    streamed = [step.bits for step in longspan.stream(run, "äb")]
    assert [step.bits for step in steps[:3]] == pytest.approx(streamed, abs=1e-4)
    assert not any(step.prompt for step in tokens(run, "äb", decoding=three))


def test_the_continuation_does_not_hold_the_prompt(run: Run) -> None:
    drawn = [step.bytes for step in tokens(run, "def main(", decoding=drawing(20, 7))]
    text = longspan.generate(run, "def main(", max_tokens=20, seed=7)
    assert text == b"".join(drawn).decode("utf-8", errors="replace")
    assert longspan.generate(run, "def main(", max_tokens=0) == ""


def test_tokens_come_as_they_are_made(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    hidden = Decoder.hidden

    def counted(self: Decoder, *inputs: Any, **named: Any) -> Any:
        calls.append(inputs[0].shape)
        return hidden(self, *inputs, **named)

    monkeypatch.setattr(Decoder, "hidden", counted)
    steps = tokens(run, "some prompt", decoding=drawing(1000, 1))
    for made in range(1, 5):
        next(steps)
        # one call a token after that which reads the prompt but for its last
        assert calls[1:] == [(1, 1)] * made


@dataclass(frozen=True, kw_only=True)
class Forced(Strategy):
    """Writes what it is told to, then the first of it for ever."""

    ids: tuple[int, ...]

    def search(self, request: Request) -> Search:
        following = iter(self.ids)
        return write(request, lambda *_: torch.tensor([next(following, self.ids[0])]))


def forced(ids: list[int], **limits: Any) -> Decoding:
    return Decoding(strategy=Forced(ids=tuple(ids)), **limits)


def test_the_end_of_the_document_ends_the_text(run: Run) -> None:
    how = forced([*b"abc", run.tokenizer.start, *b"never"], max_tokens=50)
    assert longspan.generate(run, decoding=how) == "abc"
    assert [step.bytes for step in tokens(run, decoding=how)] == [b"a", b"b", b"c"]


def test_bytes_that_are_no_text_are_replaced(run: Run) -> None:
    how = forced([*"ä".encode(), 0xC3, *b"!"], max_tokens=4)
    assert longspan.generate(run, decoding=how) == "ä\N{REPLACEMENT CHARACTER}!"


def test_a_stop_string_ends_the_text_and_is_no_part_of_it(run: Run) -> None:
    how = forced([*b"one two. three"], max_tokens=50, stop=("xyz", "o. t", "two."))
    # of those that end with the same token the earliest
    assert longspan.generate(run, decoding=how) == "one "
    (found,) = hypotheses(run, decoding=how)
    assert (bytes(found.tokens), found.finish, found.cut) == (b"one two.", "stop", 4)
    late = replace(how, min_tokens=9)
    assert longspan.generate(run, decoding=late) == "one tw"


def test_beams_find_a_likelier_text(run: Run) -> None:
    """And `tokens` tells the one that `hypotheses` finds best."""
    greedy = hypotheses(run, "ab", decoding=Decoding(strategy=Greedy(), max_tokens=12))
    how = Decoding(strategy=Beam(beams=6, n_best=3), max_tokens=12)
    found = hypotheses(run, "ab", decoding=how)
    assert sum(found[0].log_probs) > greedy[0].score
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)
    told = [step.token for step in tokens(run, "ab", decoding=how)]
    assert tuple(told) == found[0].tokens


def test_filters_look_back_at_the_prompt(run: Run) -> None:
    plain, penal = (
        hypotheses(run, "zq", decoding=Decoding(filters=f, max_tokens=1), alternatives=256)
        for f in ((), (Repetition(1000.0),))
    )
    before, after = (
        {c.token: c.filtered for c in found[0].considered[0]} for found in (plain, penal)
    )
    assert len(before) > 200
    # of the others all probabilities rise or fall alike
    shifts = {token: round(after[token] - before[token], 3) for token in before}
    usual = Counter(shifts.values()).most_common(1)[0][0]
    assert {token for token, shift in shifts.items() if abs(shift - usual) > 0.01} == set(b"zq")


def test_what_is_said_by_name_is_not_said_twice(run: Run) -> None:
    with pytest.raises(ConfigError, match="decoding says everything"):
        longspan.generate(run, "a", top_k=3, decoding=Decoding())


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
    steps = list(tokens(run, "ab", decoding=drawing(40, 1)))
    assert max(len(step.bytes) for step in steps) > 1
    assert longspan.generate(run, "ab", max_tokens=40, seed=1) == run.tokenizer.decode(
        [step.token for step in steps]
    ).decode("utf-8", errors="replace")


def test_another_memory_gives_other_text_only_where_it_is_shorter(run: Run) -> None:
    """More memory than trained with is allowed; the first segment does not know of it."""
    more = replace(run, model=run.model.remembering(128))
    a, b = (longspan.generate(each, "q", max_tokens=120, greedy=True) for each in (run, more))
    assert a[:20] == b[:20]
