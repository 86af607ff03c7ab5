"""Tokens, windows and batches of questions, compared with loops over the text."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longspan.data.spans.config import SpansConfig
from longspan.data.spans.forms.rows import Rows
from longspan.data.spans.question import Answer, Question
from longspan.data.spans.windows import (
    CONTEXT,
    QUESTION,
    SHARED,
    Spans,
    WindowBatches,
    gather,
    prepare,
    stretches,
)
from longspan.data.tokenizer import Codec
from longspan.data.tokenizers.bpe import BPE
from longspan.data.tokenizers.bytes import Bytes
from longspan.data.tokenizers.words import Words
from longspan.errors import ConfigError, DataError

TEXT = "Ann lives in Köln, and Bob lives in Rome. Cid lives nowhere at all, they say. " * 3


def asked(context: str, *answers: str, text: str = "Where does Bob live?") -> Question:
    found = tuple(Answer(answer, context.index(answer)) for answer in answers)
    return Question("here", text, context, found)


def codec(kind: str = "bpe") -> Codec:
    return {"bpe": BPE(vocab=300), "bytes": Bytes(), "words": Words()}[kind].fit([TEXT.encode()])


@pytest.mark.parametrize("kind", ["bpe", "bytes"])
@pytest.mark.parametrize("answer", ["Rome", "Köln", "ö", "Köln, and Bob", "Ann", "say. Ann", "e"])
def test_the_tokens_of_an_answer_are_the_fewest_that_hold_it(kind: str, answer: str) -> None:
    made = codec(kind)
    spans = gather([asked(TEXT, answer)], made, None, None)
    (window,) = spans.windows
    context = spans.contexts[0]
    assert window.span is not None
    first, last = window.span
    pieces = [made.piece(id) for id in context.ids.tolist()]
    begin = len(TEXT[: TEXT.index(answer)].encode())
    end = begin + len(answer.encode())
    held = [
        place
        for place in range(len(pieces))
        if len(b"".join(pieces[:place])) < end and len(b"".join(pieces[: place + 1])) > begin
    ]
    assert [first, last] == [held[0], held[-1]]
    assert answer in context.span(first, last)
    if kind == "bytes":
        assert context.span(first, last) == answer


@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 20))
def test_windows_cover_a_context_without_a_gap(length: int, window: int, stride: int) -> None:
    stride = min(stride, window)
    found = stretches(length, window, stride)
    assert found[0][0] == 0
    assert found[-1][1] == length
    for (low, high), (after, _) in pairwise(found):
        assert low < after <= min(high, low + stride)
    assert {high - low for low, high in found} == {min(length, window)}
    assert stretches(length, None, None) == [(0, length)]


def test_an_answer_is_learnt_from_the_windows_that_hold_it_whole() -> None:
    spans = gather([asked(TEXT, "Rome")], codec("bytes"), 40, 10)
    begin = len(TEXT[: TEXT.index("Rome")].encode())
    assert len(spans.windows) > 10
    for window in spans.windows:
        whole = window.low <= begin and begin + 4 <= window.high
        assert window.span == ((begin, begin + 3) if whole else None)


def test_a_row_is_question_and_context_and_what_is_legal_is_the_context() -> None:
    made = codec()
    questions = [
        asked(TEXT, "Rome"),
        asked("Bob is in Rome.", text="Who?"),
        asked("Rome", "Rome"),
    ]
    spans = gather(questions, made, None, None)
    batch = spans.rows([2, 0, 1])
    for row, number in enumerate([2, 0, 1]):
        question = made.encode(questions[number].text.encode()).tolist()
        context = made.encode(questions[number].context.encode()).tolist()
        want = [made.start, *question, made.start, *context]
        length, offset = len(want), len(question) + 2
        assert batch.tokens[row, :length].tolist() == want
        assert batch.valid[row].tolist() == [
            place < length for place in range(batch.valid.shape[1])
        ]
        assert batch.offsets[row] == offset
        for place in range(batch.tokens.shape[1]):
            about = offset <= place < length
            assert batch.legal[row, place] == (about or place == 0)
            both = about and want[place] in question
            assert batch.kinds[row, place] == (SHARED if both else CONTEXT if about else QUESTION)
        first, last = batch.spans[row].tolist()
        if questions[number].answers:
            written = made.decode(batch.tokens[row, first : last + 1].tolist()).decode()
            assert written.strip().strip(".") == "Rome"
        else:
            assert (first, last) == (0, 0)


def many(count: int = 30) -> Spans:
    return gather([asked(TEXT[: 20 + 5 * n], "Ann") for n in range(count)], codec(), 32, 16)


def test_every_window_is_read_once_an_epoch_within_the_budget() -> None:
    spans = many()
    batches = WindowBatches(spans, 200, seed=3)
    step, orders = 0, []
    for _ in range(2):
        seen: list[int] = []
        while len(seen) < len(spans.windows):
            chosen = batches.chosen(step).tolist()
            assert len(chosen) * spans.lengths[chosen].max() <= 200
            seen += chosen
            step += 1
        assert sorted(seen) == list(range(len(spans.windows)))
        orders.append(seen)
    assert orders[0] != orders[1], "the second epoch is shuffled anew"
    again = WindowBatches(spans, 200, seed=3)
    # a step's batch does not depend on what was asked before
    assert again.chosen(step - 1).tolist() == batches.chosen(step - 1).tolist()
    assert again.chosen(0).tolist() == batches.chosen(0).tolist()
    whole = [number for chosen in spans.batches(200) for number in chosen.tolist()]
    assert sorted(whole) == list(range(len(spans.windows)))


def test_what_is_longer_than_a_batch_is_refused_with_the_repair() -> None:
    spans = gather([asked("Ann"), asked(TEXT)], codec(), None, None)
    with pytest.raises(DataError, match=r"here: with its context it has \d+ tokens, more than tr"):
        WindowBatches(spans, 50, seed=1)


def test_the_first_questions_come_with_all_their_windows() -> None:
    spans = many()
    for tokens in (1, 100, 1000, 10**6):
        part = spans.first(tokens)
        assert 1 <= len(part) <= len(spans)
        assert [w.question for w in part.windows] == [
            w.question for w in spans.windows if w.question < len(part)
        ]
        assert len(part) == 1 or part.lengths.sum() <= tokens
    assert len(part) == len(spans)


def test_a_tokenizer_that_loses_the_text_is_refused() -> None:
    with pytest.raises(DataError, match="'words' does not give its text back"):
        gather([asked("Ann  lives")], codec("words"), None, None)


# -- prepared -------------------------------------------------------------------------------------


def rows(count: int, context: int) -> str:
    lines = []
    for number in range(count):
        about = f"In the town {number // context} lives Ann."
        answers = {"text": ["Ann"], "answer_start": [about.index("Ann")]}
        record = {"question": f"Who {number}?", "context": about, "answers": answers}
        lines.append(json.dumps(record))
    return "\n".join(lines)


def config(file: Path, **more: Any) -> SpansConfig:
    form = {"form": Rows()}
    return SpansConfig(**{"path": str(file), "tokenizer": BPE(vocab=300), **form, **more})


def test_questions_about_one_context_stay_together(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(rows(60, 3))
    splits = prepare(config(tmp_path / "a.jsonl", valid=0.2, test=0.2))
    parts = [splits.train, splits.valid, splits.test]
    contexts = [{question.context for question in part.questions} for part in parts]
    assert [len(part) for part in parts] == [3 * len(about) for about in contexts]
    assert sum(map(len, parts)) == 60
    assert len(set.union(*contexts)) == sum(map(len, contexts)) == 20
    assert all(contexts)


def test_parts_of_their_own(tmp_path: Path) -> None:
    for name, count in (("a", 6), ("b", 3), ("c", 2)):
        (tmp_path / f"{name}.jsonl").write_text(rows(count, 1))
    both = (str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl"))
    splits = prepare(
        config(tmp_path / "a.jsonl", path=both, valid=str(tmp_path / "c.jsonl"), test="")
    )
    assert [len(splits.train), len(splits.valid), len(splits.test)] == [9, 2, 0]
    assert len(splits.test.tokens) == 0
    other = prepare(config(tmp_path / "a.jsonl", test=""), splits.codec)
    assert other.codec is splits.codec


def test_what_is_learnt_from_tells_whether_it_is_the_same(tmp_path: Path) -> None:
    spans = gather([asked(TEXT, "Rome")], codec(), None, None)
    other = gather([asked(TEXT, "Ann")], codec(), None, None)
    assert np.array_equal(spans.tokens, gather([asked(TEXT, "Rome")], codec(), None, None).tokens)
    assert not np.array_equal(spans.tokens, other.tokens)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"path": ""}, "data.path must be a file, or a list of files, not ''"),
        ({"path": ()}, "data.path must be a file, or a list of files, not ()"),
        ({"valid": 1.0}, "data.valid must be a fraction from 0 to below 1"),
        ({"valid": 0.5, "test": 0.5}, "data.valid + data.test must be below 1"),
        ({"window": 0}, "data.window must be 1 or more, or null, not 0"),
        ({"window": 8, "stride": 9}, "data.stride=9 leaves out what lies between windows of 8"),
        ({"stride": 9}, "data.stride=9 leaves out what lies between windows of None"),
        ({"form": "squad"}, "data.form must be a form such as SQuAD(), not 'squad'"),
        ({"tokenizer": "bpe"}, "data.tokenizer must be a tokenizer such as BPE(), not 'bpe'"),
    ],
)
def test_choices_that_cannot_be(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SpansConfig(**{"path": "a.json", **change})
    (problem,) = caught.value.problems
    assert problem.startswith(said)
