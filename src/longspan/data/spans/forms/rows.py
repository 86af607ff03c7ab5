"""A table whose rows have a question, a context and answers, as the Hub has SQuAD."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from longspan.data.spans.form import Form
from longspan.data.spans.question import Checker, Question
from longspan.data.table import kind
from longspan.errors import ConfigError, DataError


@dataclass(frozen=True)
class Rows(Form, name="rows"):
    """Fields of JSON lines, or of a dataset (`hf:squad_v2@train`).

    Attributes:
        question, context: fields with text.
        answers: field with {"text": [...], "answer_start": [...]}; both empty if there is none.
    """

    question: str = "question"
    context: str = "context"
    answers: str = "answers"

    def __post_init__(self) -> None:
        if len({self.question, self.context, self.answers}) < 3:
            raise ConfigError("data.form must name three fields, and names one twice")

    def questions(self, path: str) -> Iterator[Question]:
        table = kind(path)
        if table is None:
            raise DataError(
                f"{path}: the form 'rows' needs a table (.jsonl, also compressed) or hf:"
            )
        rows, checker = table(path), Checker(path)
        for number, row in rows.rows((self.question, self.context, self.answers)):
            text, context, answers = row
            place = rows.place(number)
            if not isinstance(answers, dict):
                raise DataError(
                    f"{place}: field '{self.answers}' must hold "
                    f'{{"text": [...], "answer_start": [...]}}, not {type(answers).__name__}'
                )
            both = [answers.get(name) for name in ("text", "answer_start")]
            texts, starts = (list(one) if isinstance(one, list | tuple) else None for one in both)
            if texts is None or starts is None or len(texts) != len(starts):
                raise DataError(
                    f"{place}: field '{self.answers}' must hold lists 'text' and 'answer_start' of "
                    "one length"
                )
            yield checker.question(place, text, context, list(zip(texts, starts, strict=True)))
        checker.told()
