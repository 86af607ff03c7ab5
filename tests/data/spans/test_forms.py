"""Questions of files in every form, and what is said of those that are unsound."""

from __future__ import annotations

import json
import logging
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from longspan.data.spans.forms.rows import Rows
from longspan.data.spans.forms.squad import SQuAD
from longspan.data.spans.forms.subjqa import SubjQA
from longspan.data.spans.question import Answer
from longspan.errors import ConfigError, DataError

SHARED = Path(__file__).parents[4] / "shared" / "data"
CONTEXT = "Ann lives in Köln. Bob lives in Rome."

Write = Callable[[str, str], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(name: str, text: str) -> str:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return str(tmp_path / name)

    return written


def squad(*questions: dict[str, Any]) -> str:
    usual = {"question": "Where is Bob?", "answers": [{"text": "Rome", "answer_start": 32}]}
    each = [{"id": f"q{number}", **usual, **asked} for number, asked in enumerate(questions)]
    return json.dumps({"data": [{"paragraphs": [{"context": CONTEXT, "qas": each}]}]})


def test_squad_with_and_without_an_answer(write: Write) -> None:
    none = {"is_impossible": True, "answers": []}
    path = write("a.json", squad({}, none))
    one, two = SQuAD().questions(path)
    assert (one.text, one.context) == ("Where is Bob?", CONTEXT)
    assert one.answers == (Answer("Rome", 32),)
    assert one.place == f"{path} question q0"
    assert two.answers == ()
    assert two.references == ("",)


def test_a_compressed_file_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.json.xz"
    path.write_bytes(lzma.compress(squad({}).encode()))
    assert len(list(SQuAD().questions(str(path)))) == 1


@pytest.mark.parametrize(
    ("text", "start", "found"),
    [
        (" Rome", 31, 32),  # the white space is counted
        (" Rome", 32, 32),  # it is not, as in COVID-QA
        ("Rome. ", 32, 32),
        ("Köln", 13, 13),
    ],
)
def test_white_space_around_an_answer_is_no_part_of_it(
    write: Write, text: str, start: int, found: int, caplog: pytest.LogCaptureFixture
) -> None:
    answers = [{"text": text, "answer_start": start}]
    (question,) = SQuAD().questions(write("a.json", squad({"answers": answers})))
    assert question.answers == (Answer(text.strip(), found),)
    assert not caplog.records


def test_an_answer_that_stands_elsewhere_is_taken_from_the_nearest_place_and_told(
    write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    answers = [{"text": "lives", "answer_start": 20}]
    path = write("a.json", squad({}, {"answers": answers}))
    with caplog.at_level(logging.WARNING):
        _, moved = SQuAD().questions(path)
    assert moved.answers == (Answer("lives", 23),)
    assert "1 answers do not stand where answer_start says" in caplog.text
    assert "question q1" in caplog.text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"answers": [{"text": "Paris", "answer_start": 3}]}, "'Paris' does not stand in its"),
        ({"answers": [{"text": " ", "answer_start": 3}]}, "the answer is empty; give no answers"),
        ({"answers": [{"text": "Rome", "answer_start": "3"}]}, "must be a whole number, not '3'"),
        ({"answers": [{"text": "Rome"}]}, "there is no field 'answer_start'"),
        ({"answers": "Rome"}, "field 'answers' must be a list, not str"),
        ({"question": " "}, "the question is empty; remove the record or fill it"),
        ({"question": None}, "the question is null, not text"),
        ({"question": "\ud800?"}, "the question has half a character"),
    ],
)
def test_what_is_unsound_is_named_with_file_and_id(
    write: Write, change: dict[str, Any], said: str
) -> None:
    path = write("a.json", squad({}, change))
    with pytest.raises(DataError) as caught:
        list(SQuAD().questions(path))
    assert str(caught.value).startswith(f"{path} question q1: ")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "a.json: not JSON"),
        ("[]", "a.json: must be an object with fields, not list"),
        ('{"data": [{}]}', "a.json data[0]: there is no field 'paragraphs'"),
        ('{"data": [{"paragraphs": [{"qas": []}]}]}', "data[0].paragraphs[0]: there is no field"),
        (
            '{"data": [{"paragraphs": [{"context": "x", "qas": [{}]}]}]}',
            "qas[0]: there is no field",
        ),
    ],
)
def test_what_is_no_squad_is_refused(write: Write, text: str, said: str) -> None:
    with pytest.raises(DataError, match=said.replace("[", r"\[").replace(".", r"\.")):
        list(SQuAD().questions(write("a.json", text)))


def row(**change: Any) -> str:
    answers = {"text": ["Rome", "Köln"], "answer_start": [32, 13]}
    usual = {"question": "Where?", "context": CONTEXT, "answers": answers}
    return json.dumps(usual | change) + "\n"


def test_rows_as_the_hub_has_them(write: Write) -> None:
    none = {"text": [], "answer_start": []}
    path = write("a.jsonl", row() + row(answers=none))
    one, two = Rows().questions(path)
    assert one.answers == (Answer("Rome", 32), Answer("Köln", 13))
    assert one.place == f"{path} line 1"
    assert two.answers == ()


def test_fields_of_rows_may_have_other_names(write: Write) -> None:
    path = write(
        "a.jsonl", json.dumps({"q": "Where?", "c": CONTEXT, "a": json.loads(row())["answers"]})
    )
    (question,) = Rows(question="q", context="c", answers="a").questions(path)
    assert question.references == ("Rome", "Köln")
    with pytest.raises(ConfigError, match="three fields"):
        Rows(question="q", context="q")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"answers": ["Rome"]}, "line 1: field 'answers' must hold"),
        ({"answers": {"text": ["Rome"], "answer_start": []}}, "lists 'text' and 'answer_start' of"),
        ({"answers": {"text": ["Rome"]}}, "lists 'text' and 'answer_start' of"),
        ({"context": ""}, "line 1: the context is empty"),
    ],
)
def test_rows_that_are_unsound(write: Write, change: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError) as caught:
        list(Rows().questions(write("a.jsonl", row(**change))))
    assert said in str(caught.value)


HEADER = "question,review,human_ans_spans,human_ans_indices\n"


def test_subjqa_takes_the_reviews_own_text(write: Write) -> None:
    lines = [
        'How?,"It is n\'t bad , I say ANSWERNOTFOUND",is n\'t bad,"(3, 12)"',
        'How?,It is. ANSWERNOTFOUND,ANSWERNOTFOUND,"(7, 21)"',
        'How?,It is. ANSWERNOTFOUND,is. ANSWERNOTFOUND,"(3, 21)"',
    ]
    one, two, three = SubjQA().questions(write("a.csv", HEADER + "\n".join(lines)))
    assert one.context == "It is n't bad , I say"
    assert one.answers == (Answer("is n't ba", 3),)
    assert two.context == "It is."
    assert two.answers == ()
    assert three.answers == (Answer("is.", 3),)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('How?,It is. ANSWERNOTFOUND,It,"0, 2"', "line 2: human_ans_indices must be"),
        (
            'How?,It is. ANSWERNOTFOUND,It,"(0, 99)"',
            "end after the review, which has 21 characters",
        ),
        (',It is. ANSWERNOTFOUND,It,"(0, 2)"', "line 2: the question is empty"),
    ],
)
def test_subjqa_that_is_unsound(write: Write, line: str, said: str) -> None:
    with pytest.raises(DataError) as caught:
        list(SubjQA().questions(write("a.csv", HEADER + line)))
    assert said in str(caught.value)


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is not here")
def test_real_files(caplog: pytest.LogCaptureFixture) -> None:
    covid = list(SQuAD().questions(str(SHARED / "qa_covid/200423_covidQA.json.xz")))
    assert len(covid) == 1380
    assert "38 answers do not stand" in caplog.text
    reviews = list(SubjQA().questions(str(SHARED / "qa_subjqa/electronics_train.csv.xz")))
    assert len(reviews) == 2345
    assert sum(not question.answers for question in reviews) == 1399
    for question in covid + reviews:
        for answer in question.answers:
            assert question.context.startswith(answer.text, answer.start)
