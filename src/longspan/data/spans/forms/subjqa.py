"""SubjQA's CSV (Bjerva et al. 2020): questions about reviews, many without an answer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from longspan.data.spans.form import Form
from longspan.data.spans.question import Checker, Question
from longspan.data.tables.csv import CSV
from longspan.errors import DataError

NONE = "ANSWERNOTFOUND"
"""Stands at the end of every review and for the answer that there is none."""

INDICES = re.compile(r"\(\s*(\d+)\s*,\s*(\d+)\s*\)")


@dataclass(frozen=True)
class SubjQA(Form, name="subjqa"):
    """Where an answer stands is taken from its indices: its text is tokenised, the review is not.

    The answer is the review's own text between them, without `NONE` where it runs into it.
    """

    def questions(self, path: str) -> Iterator[Question]:
        rows, checker = CSV(path), Checker(path)
        fields = ("question", "review", "human_ans_spans", "human_ans_indices")
        for number, (text, review, span, indices) in rows.rows(fields):
            place = rows.place(number)
            context = review.removesuffix(NONE).rstrip()
            if span == NONE:
                yield checker.question(place, text, context, [])
                continue
            both = INDICES.fullmatch(indices.strip())
            if both is None:
                raise DataError(f"{place}: human_ans_indices must be (begin, end), not {indices!r}")
            begin, end = map(int, both.groups())
            if end > len(review):
                raise DataError(
                    f"{place}: human_ans_indices ({begin}, {end}) end after the review, which has "
                    f"{len(review)} characters; correct them or remove the row"
                )
            yield checker.question(place, text, context, [(context[begin:end], begin)])
        checker.told()
