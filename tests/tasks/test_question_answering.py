"""Answers in words: what is read, what is refused, and a tiny run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import longspan
from longspan.config import write_yaml
from longspan.data.pairs.config import PairsConfig
from longspan.data.pairs.records import Records
from longspan.errors import ConfigError, DataError
from longspan.tasks.question_answering import QuestionAnswering
from longspan.training.run import section
from longspan.transduction import Transduction
from tests.tiny import SETTINGS

PLACES = ("garden", "kitchen", "office")


def records(path: Path, count: int = 12, **change: Any) -> str:
    """Records in which the answer is the only place that is named."""
    lines = []
    for number in range(count):
        place = PLACES[number % 3]
        record = {"context": f"Ann {number} went to the {place}", "question": "where is she"}
        lines.append(json.dumps({**record, "answer": place, **change}))
    path.write_text("\n".join(lines), "utf-8")
    return str(path)


def test_several_fields_are_read_in_their_order(tmp_path: Path) -> None:
    path = records(tmp_path / "a.jsonl", 1)
    read = Records(path, ("question", "context"), "answer")
    assert next(iter(read)).source == "where is she\nAnn 0 went to the garden"
    read = Records(path, ("context", "question"), "answer", " | ")
    assert next(iter(read)).source == "Ann 0 went to the garden | where is she"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"question": " "}, "line 1: field 'question' is empty"),
        ({"context": None}, "line 1: field 'context' holds null, not text"),
        ({"answer": []}, "line 1: field 'answer' is an empty list"),
    ],
)
def test_a_record_that_is_unsound(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    path = records(tmp_path / "a.jsonl", **change)
    with pytest.raises(DataError) as caught:
        list(Records(path, ("context", "question"), "answer"))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"source": ()}, "data.source must be the name of a field, or of several, not ()"),
        ({"source": ("a", "a")}, "data.source names a field twice: ['a', 'a']"),
        ({"source": ("a", "b"), "target": "b"}, "data.source and data.target are both 'b'"),
        ({"separator": 3}, "data.separator must be text, not 3"),
    ],
)
def test_fields_that_cannot_be(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        PairsConfig(path="a.jsonl", **change)
    (problem,) = caught.value.problems
    assert problem.startswith(said)


def test_answers_are_judged_as_squads() -> None:
    scores = QuestionAnswering().judge(["The garden.", "a red house"], [["garden"], ["house", "x"]])
    assert scores == pytest.approx({"f1": 100 * (1 + 2 / 3) / 2, "exact_match": 50})
    assert next(iter(scores)) == "f1", "the first one chooses the checkpoint"


def test_a_tiny_decoder_learns_to_read_a_context_and_answers(tmp_path: Path) -> None:
    tree = {
        "task": "question_answering",
        "data": {
            "path": records(tmp_path / "train.jsonl", 30),
            "valid": records(tmp_path / "valid.jsonl", 3),
            "test": "",
            "source": ["context", "question"],
            "separator": " ",
            "target": "answer",
            "tokenizer": "words",
            "cache": str(tmp_path / "cache"),
        },
        "model": {
            "width": 16,
            "layers": 1,
            "heads": 2,
            "feed_forward": 16,
            "position": "xl",
            "pattern": "causal",
            "memory": "cache",
        },
        "train": {"steps": 60, "tokens": 300, "learning_rate": 1e-2, "warmup": 5},
        "run": str(tmp_path / "run"),
    }
    (tmp_path / "tiny.yaml").write_text(write_yaml(tree), "utf-8")
    run = longspan.load(longspan.train(str(tmp_path / "tiny.yaml"), **SETTINGS))
    task = run.task
    assert isinstance(task, Transduction)
    data = section(run)
    pairs = task.read(data, [records(tmp_path / "test.jsonl", 6)], run.tokenizer)
    scores, found = task.examine(run.model, pairs, run.tokenizer)  # type: ignore[arg-type]
    assert scores["exact_match"] == 100
    assert found[1][0].text == "kitchen"
    (asked, *_) = task.asked(data, str(tmp_path / "test.jsonl"))
    assert asked.texts == ("Ann 0 went to the garden", "where is she")
