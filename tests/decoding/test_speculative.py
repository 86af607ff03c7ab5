"""Speculative decoding is distributed as plain sampling is, whatever the draft, and only faster."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import longspan
from longspan import (
    LSTM,
    Cache,
    Causal,
    Decoder,
    DecoderConfig,
    Decoding,
    Draft,
    NoRepeat,
    Recent,
    Repetition,
    Rotary,
    Sample,
    Segments,
    Speculative,
    Temperature,
    TopK,
    TopP,
    decode,
)
from longspan.decoding.decode import stream
from longspan.decoding.generate import hypotheses
from longspan.decoding.search import Filter
from longspan.errors import ConfigError, DecodingError, InputError
from tests.decoding.table import Table, ragged
from tests.tiny import train_tiny

END, SIZE, ROWS = 0, 5, 4000
TARGET, DRAFT = Table.drawn(SIZE, 1, scale=1.5), Table.drawn(SIZE, 2, scale=1.5)


def exact(prompt: list[int], filters: tuple[Filter, ...], longest: int) -> dict[Any, float]:
    """The probability of every text, by the definition of sampling."""
    found: dict[Any, float] = {}

    def follow(text: list[int], chance: float) -> None:
        logits = TARGET.after([*prompt, *text])[None].double()
        for each in filters:
            logits = each(logits, torch.tensor([[*prompt, *text]]))
        for token, p in enumerate(logits[0].softmax(-1).tolist()):
            after = [*text, token]
            if token == END or len(after) == longest:
                found[tuple(after)] = found.get(tuple(after), 0) + chance * p
            elif p:
                follow(after, chance * p)

    follow([], 1.0)
    return found


def surprise(counts: Counter[Any], chances: dict[Any, float]) -> tuple[float, int]:
    """Chi-square of the counts, and its degrees of freedom; rare texts count as one."""
    total = counts.total()
    assert all(chances[text] > 0 for text in counts)
    common = [text for text, p in chances.items() if p * total >= 5]
    cells = [(counts[text], chances[text] * total) for text in common]
    rest = sum(counts.values()) - sum(n for n, _ in cells), total - sum(e for _, e in cells)
    cells += [rest] if rest[1] >= 5 else []
    return sum((n - e) ** 2 / e for n, e in cells), len(cells) - 1


@pytest.mark.parametrize("ahead", [1, 2, 5])
@pytest.mark.parametrize(
    "filters",
    [(), (Temperature(0.7), TopK(3)), (Repetition(1.3), NoRepeat(2), TopP(0.95))],
    ids=["plain", "shaped", "looking back"],
)
def test_the_joint_distribution_is_that_of_sampling(
    filters: tuple[Filter, ...], ahead: int
) -> None:
    longest, prompt = 3, [2, 3]
    how = Decoding(
        strategy=Speculative(ahead=ahead), filters=filters, max_tokens=longest, seed=ahead
    )
    found = decode(TARGET, [prompt] * ROWS, decoding=how, end=END, draft=Draft(DRAFT))
    texts = [text.tokens + (END,) * (text.finish == "end") for (text,) in found]
    chances = exact(prompt, filters, longest)
    assert sum(chances.values()) == pytest.approx(1)
    value, freedom = surprise(Counter(texts), chances)
    assert freedom >= 4
    # four standard deviations of chi-square
    assert value < freedom + 4 * (2 * freedom) ** 0.5
    drafted = sum(text.drafted for (text,) in found)
    accepted = sum(text.accepted for (text,) in found)
    # the draft is quite another model: were it believed, or never, the test would say nothing
    assert 0.2 < accepted / drafted < 0.8


def test_a_draft_believed_would_be_found_out() -> None:
    """The measure above tells the draft's distribution from the model's."""
    how = Decoding(strategy=Sample(), max_tokens=3, seed=1)
    found = decode(DRAFT, [[2, 3]] * ROWS, decoding=how, end=END)
    texts = [text.tokens + (END,) * (text.finish == "end") for (text,) in found]
    value, freedom = surprise(Counter(texts), exact([2, 3], (), 3))
    assert value > 10 * freedom


@cache
def model(seed: int, kind: str) -> Decoder:
    torch.manual_seed(seed)
    choices: dict[str, Any] = {
        "cache": {"position": Rotary(), "pattern": Causal(), "memory": Cache()},
        "recent": {"position": Rotary(), "pattern": Segments(3, 4), "memory": Recent(4)},
        "lstm": {"mixer": LSTM()},
    }
    config = DecoderConfig(width=16, heads=2, layers=2, feed_forward=24, **choices[kind])
    return Decoder(config, 11).double().eval()


@pytest.mark.parametrize("kind", ["cache", "recent", "lstm"])
@pytest.mark.parametrize("ahead", [1, 3, 4])
def test_greedily_it_is_greedy_with_ragged_rows(kind: str, ahead: int) -> None:
    """Rows accept different counts; every state must go back by its own."""
    prompts, limits = ragged(6, 7, 11, seed=ahead), {"max_tokens": 17}
    greedy = decode(model(1, kind), prompts, decoding=Decoding(**limits), end=END)
    how = Decoding(strategy=Speculative(ahead=ahead), filters=(TopK(1),), seed=1, **limits)
    found = decode(model(1, kind), prompts, decoding=how, end=END, draft=Draft(model(2, kind)))
    assert [text.tokens for (text,) in found] == [text.tokens for (text,) in greedy]
    for (mine,), (theirs,) in zip(found, greedy, strict=True):
        assert mine.log_probs == pytest.approx(theirs.log_probs, abs=1e-9)
        assert mine.finish == theirs.finish


@pytest.mark.parametrize("kind", ["cache", "recent", "lstm"])
def test_a_row_does_not_depend_on_its_neighbours(kind: str) -> None:
    prompts = ragged(5, 6, 11, seed=4)
    how = Decoding(strategy=Speculative(ahead=3), max_tokens=12, seed=5)
    draft = Draft(model(2, kind))
    together = decode(model(1, kind), prompts, decoding=how, end=END, draft=draft)
    # the first row has the same stream by itself
    (alone,) = decode(model(1, kind), prompts[:1], decoding=how, end=END, draft=draft)
    assert together[0][0].tokens == alone[0].tokens
    assert (together[0][0].drafted, together[0][0].accepted) == (
        alone[0].drafted,
        alone[0].accepted,
    )


def test_the_model_as_its_own_draft_is_always_believed() -> None:
    calls = []

    class Counted:
        def __call__(self, tokens: Tensor, state: Any, /, *, valid: Tensor | None = None) -> Any:
            calls.append(tokens.shape[1])
            return model(1, "cache")(tokens, state, valid=valid)

    how = Decoding(strategy=Speculative(ahead=4), max_tokens=20, seed=3)
    ((text,),) = decode(Counted(), [[1, 2]], decoding=how, draft=Draft(model(1, "cache")))
    assert text.drafted == text.accepted == 16
    # the prompt, four tokens after it, then each time the newest and four more
    assert calls == [2, 4, 5, 5, 5]


def test_no_row_goes_beyond_its_length() -> None:
    """Not even in what is drafted and thrown away: a table of positions may end there."""
    reached = []

    class Watched:
        def __call__(self, tokens: Tensor, state: Any, /, *, valid: Tensor | None = None) -> Any:
            logits, state = model(1, "cache")(tokens, state, valid=valid)
            reached.append(int(state.next.max()))
            return logits, state

    how = Decoding(strategy=Speculative(ahead=6), max_tokens=9, seed=1)
    prompts = [[1], [1, 2, 3, 4]]
    found = decode(Watched(), prompts, decoding=how, draft=Draft(model(2, "cache")))
    assert [len(text.tokens) for (text,) in found] == [9, 9]
    assert max(reached) <= 4 + 9


def test_minimum_stop_and_stream() -> None:
    how = Decoding(
        strategy=Speculative(ahead=3), max_tokens=30, min_tokens=4, stop=("\x03",), seed=2
    )
    given: dict[str, Any] = {
        "decoding": how,
        "end": END,
        "piece": lambda token: bytes([token]),
        "draft": Draft(DRAFT),
        "alternatives": 2,
    }
    found = decode(TARGET, [[1], [2, 3], [4]] * 4, **given)
    assert {text.finish for (text,) in found} >= {"end", "stop"}
    for (text,) in found:
        assert len(text.log_probs) >= 4
        assert 3 not in text.tokens[3:-1]
        assert len(text.considered) == len(text.log_probs)
        for step, log_prob in zip(text.considered, text.log_probs, strict=True):
            (chosen,) = (c for c in step if c.fate == "chosen")
            assert chosen.log_prob == pytest.approx(log_prob)
    rows: dict[int, list[int]] = {}
    for each in stream(TARGET, [[1], [2, 3], [4]] * 4, **given):
        rows.setdefault(each.row, []).append(each.token)
    for row, (text,) in enumerate(found):
        assert tuple(rows[row]) == text.tokens + (END,) * (text.finish == "end")


def test_a_draft_run(trained: Path, trained_bpe: Path, corpus: Path, tmp_path: Path) -> None:
    small = train_tiny(tmp_path / "small", corpus, **{"model.layers": 1, "train.steps": 10})
    run, draft = (longspan.load(each, device="cpu", dtype="float64") for each in (trained, small))
    limits: dict[str, Any] = {"max_tokens": 40, "seed": 1}
    greedy = hypotheses(run, "ab", decoding=Decoding(**limits))
    how = Decoding(strategy=Speculative(), filters=(TopK(1),), **limits)
    (found,) = hypotheses(run, "ab", decoding=how, draft=draft)
    assert found.tokens == greedy[0].tokens
    assert 0 < found.accepted < found.drafted
    other = longspan.load(trained_bpe, device="cpu")
    with pytest.raises(InputError, match="the draft has another tokenizer than the run"):
        hypotheses(run, "ab", decoding=how, draft=other)


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="ahead must be 1 or more, not 0"):
        Speculative(ahead=0)
    how = Decoding(strategy=Speculative())
    with pytest.raises(InputError, match=r"needs a smaller model: draft=Draft\(model\)"):
        decode(TARGET, [[1]], decoding=how)
    with pytest.raises(InputError, match="greedy needs no draft"):
        decode(TARGET, [[1]], draft=Draft(DRAFT))
    with pytest.raises(InputError, match="vocabulary of 4 tokens, the model one of 5"):
        decode(TARGET, [[1]], decoding=how, draft=Draft(Table.drawn(4, 1)))
    nan = Table(torch.full_like(DRAFT.logits, torch.nan))
    with pytest.raises(DecodingError, match="the draft's logits are no numbers"):
        decode(TARGET, [[1]], decoding=how, draft=Draft(nan))
    for seed in range(9):
        unsound = replace(how, seed=seed)
        with pytest.raises(DecodingError, match="row 0 after 0 tokens: the model's logits are no"):
            decode(nan, [[1]], decoding=unsound, draft=Draft(DRAFT))
    full = Decoding(strategy=Speculative(), filters=(NoRepeat(1),), max_tokens=9, seed=1)
    with pytest.raises(DecodingError, match=r"row 0 after 4 tokens: .* no_repeat bans"):
        decode(TARGET, [[1]], decoding=full, draft=Draft(DRAFT))
