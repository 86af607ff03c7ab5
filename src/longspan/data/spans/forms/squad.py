"""SQuAD's JSON (1606.05250; with questions that have no answer 1806.03822); COVID-QA has it too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from longspan.data.lines import lines
from longspan.data.spans.form import Form
from longspan.data.spans.question import Checker, Question
from longspan.errors import DataError


@dataclass(frozen=True)
class SQuAD(Form, name="squad"):
    """Articles of paragraphs of questions. `is_impossible` means that there is no answer."""

    def questions(self, path: str) -> Iterator[Question]:
        try:
            tree = json.loads("\n".join(text for _, text in lines(path)))
        except (json.JSONDecodeError, RecursionError) as error:
            raise DataError(f"{path}: not JSON ({error})") from error
        checker = Checker(path)
        for paragraph, where in _each(tree, path, "data", "paragraphs"):
            context = _member(paragraph, "context", where)
            for number, asked in enumerate(_list(paragraph, "qas", where)):
                place = f"{where} qas[{number}]"
                place = f"{path} question {_member(asked, 'id', place)}"
                answers = [
                    (_member(answer, "text", place), _member(answer, "answer_start", place))
                    for answer in _list(asked, "answers", place)
                ]
                none = asked.get("is_impossible", False)
                text = _member(asked, "question", place)
                yield checker.question(place, text, context, [] if none else answers)
        checker.told()


def _each(tree: Any, path: str, outer: str, inner: str) -> Iterator[tuple[Any, str]]:
    for first, article in enumerate(_list(tree, outer, path)):
        where = f"{path} {outer}[{first}]"
        for second, paragraph in enumerate(_list(article, inner, where)):
            yield paragraph, f"{where}.{inner}[{second}]"


def _member(tree: Any, name: str, where: str) -> Any:
    if not isinstance(tree, dict):
        raise DataError(f"{where}: must be an object with fields, not {type(tree).__name__}")
    if name not in tree:
        raise DataError(f"{where}: there is no field '{name}'")
    return tree[name]


def _list(tree: Any, name: str, where: str) -> list[Any]:
    value = _member(tree, name, where)
    if not isinstance(value, list):
        raise DataError(f"{where}: field '{name}' must be a list, not {type(value).__name__}")
    return value
