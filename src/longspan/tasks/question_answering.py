"""Question answering in words of the model's own, judged as SQuAD's answers are (`answers.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from longspan.answers import agreement
from longspan.decoding.decode import Decoding
from longspan.decoding.strategies.greedy import Greedy
from longspan.task import Scores
from longspan.transduction import Transduction


@dataclass(frozen=True)
class QuestionAnswering(Transduction, name="question_answering"):
    """A question and what it is about to an answer, which need not stand there.

    `data.source` names the fields in the order in which they are read, [question, context] or
    [context, question]; `data.target` the answer. That there is none is an answer like any other:
    write it down as a text.
    """

    decode: Decoding = field(default_factory=lambda: Decoding(strategy=Greedy()))

    def judge(self, texts: Sequence[str], references: Sequence[Sequence[str]]) -> Scores:
        return agreement(texts, references)
