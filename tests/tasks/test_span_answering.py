"""Answers as spans: over windows, with a margin for no answer, and a tiny run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import longspan
from longspan.answers import agreement
from longspan.config import write_yaml
from longspan.data.spans.question import Question
from longspan.data.spans.windows import gather
from longspan.data.tokenizers.bytes import Bytes
from longspan.errors import ConfigError, DataError, DivergedError, IncompatibleConfig
from longspan.tasks.span_answering import Found, SpanAnswering, answered, find, tuned
from longspan.training.recipe import read_recipe
from tests.tiny import SETTINGS, call, refused


class Liking(nn.Module):
    """Likes spans that begin and end with certain bytes."""

    def __init__(self, likes: dict[str, float], none: float = 0.0) -> None:
        super().__init__()
        self.somewhere = nn.Parameter(torch.zeros(()))
        self.likes, self.none = likes, none

    def forward(self, tokens: Tensor, kinds: Tensor, legal: Tensor, valid: Tensor | None) -> Tensor:
        scores = torch.zeros(tokens.shape)
        for letter, score in self.likes.items():
            scores[tokens == ord(letter)] = score
        scores[:, 0] = self.none
        return torch.stack([scores, scores], 1).masked_fill(~legal[:, None], -torch.inf)


def spans(*contexts: str, window: int | None = None) -> Any:
    questions = [Question(f"q{n}", "x?", about, ()) for n, about in enumerate(contexts)]
    return gather(questions, Bytes().fit([]), window, None)


@pytest.mark.parametrize("window", [None, 4, 7])
def test_the_best_span_of_all_windows_is_found(window: int | None) -> None:
    model: Any = Liking({"B": 2.0, "C": 3.0, "D": 1.0}, none=0.5)
    asked = spans("aaaaaaaaBaaaaaaaaaaCaaaDaaa", "aDaaaaaaaaaaaaa", window=window)
    found = find(model, asked, 1)
    assert [each.text for each in found] == ["C", "D"]
    assert [each.score for each in found] == pytest.approx([5.0, 1.0])


def test_an_answer_is_at_most_so_long_and_never_of_the_question() -> None:
    asked = gather([Question("q", "BC?", "aaBaaaCaaa", ())], Bytes().fit([]), None, None)
    model: Any = Liking({"B": 2.0, "C": 3.0})
    assert find(model, asked, 4)[0].text == "C"
    assert find(model, asked, 5)[0].text == "BaaaC" or find(model, asked, 5)[0].score == 6.0
    broad: Any = Liking({"B": 2.0, "C": 3.0, "a": -1.0})
    assert find(broad, asked, 5)[0].text == "C"


def test_scores_that_are_no_numbers_are_not_passed_on() -> None:
    model: Any = Liking({"a": float("nan")})
    with pytest.raises(DivergedError):
        find(model, spans("aaa"), 3)


FOUND = [Found("cat", 5.0), Found("dog", 4.0), Found("cow", 2.0), Found("hen", 1.0)]


@pytest.mark.parametrize(
    "references",
    [
        [["cat"], ["dog"], [""], [""]],
        [["cat"], [""], ["cow"], ["hen"]],
        [[""], [""], [""], [""]],
        [["cat"], ["dog"], ["cow"], ["hen"]],
        [["red cat"], [""], ["cow", ""], ["x"]],
    ],
)
def test_the_margin_is_the_best_of_all(references: list[list[str]]) -> None:
    def score(margin: float) -> float:
        return agreement(answered(FOUND, margin), references)["f1"]

    best = max(score(margin) for margin in (0.5, 1.5, 3.0, 4.5, 6.0))
    assert score(tuned(FOUND, references)) == pytest.approx(best)


def test_questions_of_one_score_are_answered_or_left_together() -> None:
    found = [Found("cat", 1.0), Found("dog", 1.0), Found("cow", 0.0)]
    margin = tuned(found, [["cat"], [""], [""]])
    assert answered(found, margin) in ([["cat", "dog", ""], ["", "", ""]])
    with pytest.raises(DataError, match="no questions to choose a margin by"):
        tuned([], [])


# -- a run ----------------------------------------------------------------------------------------


def records(path: Path, count: int) -> str:
    """The answer is the number after the letter that is asked for; for some there is none."""
    lines = []
    for number in range(count):
        letter = "PQRS"[number % 4]
        value = str(10 + number * 7 % 90)
        about = f"aaa {letter}{value} bbb"
        known = number % 3 > 0
        answers = (
            {"text": [value], "answer_start": [5]} if known else {"text": [], "answer_start": []}
        )
        question = letter if known else "X"
        lines.append(json.dumps({"question": question, "context": about, "answers": answers}))
    path.write_text("\n".join(lines), "utf-8")
    return str(path)


def recipe(folder: Path) -> str:
    tree = {
        "task": "span_answering",
        "data": {
            "path": records(folder / "train.jsonl", 60),
            "valid": records(folder / "valid.jsonl", 12),
            "test": "",
            "form": "rows",
            "tokenizer": "bytes",
        },
        "model": {"width": 16, "layers": 2, "heads": 2, "feed_forward": 16, "position": "rotary"},
        "train": {"steps": 80, "tokens": 600, "learning_rate": 1e-2, "warmup": 5},
        "run": str(folder / "run"),
    }
    (folder / "tiny.yaml").write_text(write_yaml(tree), "utf-8")
    return str(folder / "tiny.yaml")


def test_a_tiny_encoder_learns_to_find_spans_and_that_there_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = longspan.train(recipe(tmp_path), **SETTINGS)
    scores = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert set(scores) == {"step", "valid_f1", "valid_exact_match", "valid_margin"}
    assert scores["valid_exact_match"] > 90, "nothing always is 33"
    others = records(tmp_path / "others.jsonl", 30)
    result = call(monkeypatch, capsys, "evaluate", folder, "--data", others, "--json")
    told = json.loads(result.out)
    assert told["exact_match"] > 90
    assert told["records"] == 30
    assert told["margin"] == pytest.approx(scores["valid_margin"], abs=1e-3)
    few = call(monkeypatch, capsys, "evaluate", folder, "--data", others, "--limit", 3, "--json")
    assert json.loads(few.out)["records"] == 3
    replies = call(monkeypatch, capsys, "predict", folder, others).out.splitlines()
    rows = [json.loads(line) for line in Path(others).read_text().splitlines()]
    right = [row["answers"]["text"] or [""] for row in rows]
    assert sum(text in several for text, several in zip(replies, right, strict=True)) > 27
    for words, said in {
        ("evaluate", folder, "--data", others, "--memory", 3): "--memory is of language models",
        ("evaluate", folder, "--data", others, "--beams", 3): "span_answering writes no text",
        ("predict", folder, "--text", "who?"): "--text is one field, and span_answering asks",
        ("predict", folder, others, "--explain"): "writes nothing step by step",
    }.items():
        assert said in refused(call(monkeypatch, capsys, *words))


@pytest.mark.parametrize(
    ("changes", "rule", "said"),
    [
        ({"train.tokens": None}, "T6", "reads batches of records of like length"),
        ({"train.batch": 3}, "T7", "train.batch=3 is of tasks that read streams"),
        ({"train.smoothing": 0.1}, "T9", "would hold likely what no span may be"),
        (
            {"model.position": {"name": "learned", "length": 64}},
            "T10",
            "has 64 places, and contexts are read whole",
        ),
    ],
)
def test_choices_that_exclude_each_other(
    tmp_path: Path, changes: dict[str, Any], rule: str, said: str
) -> None:
    with pytest.raises(IncompatibleConfig) as caught:
        read_recipe(recipe(tmp_path), changes)
    (conflict,) = caught.value.conflicts
    assert conflict.rule == rule
    assert said in str(conflict)


def test_an_answer_has_a_token_or_more() -> None:
    with pytest.raises(ConfigError, match=r"task\.longest must be 1 or more, not 0"):
        SpanAnswering(longest=0)
