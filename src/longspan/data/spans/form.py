"""How files hold questions, contexts and answers. The recipe says which form it is:

squad       SQuAD's JSON (1606.05250, 1806.03822)
rows        a table with the fields question, context and answers, as the Hub has SQuAD
subjqa      SubjQA's CSV
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

from longspan.data.spans.question import Question
from longspan.registry import Component


@dataclass(frozen=True)
class Form(Component, kind="form", folder="longspan.data.spans.forms"):
    """How a file holds questions."""

    @abstractmethod
    def questions(self, path: str) -> Iterator[Question]:
        """The questions of a file, always in the same order.

        Raises:
            DataError: it cannot be read, is of another form, or a question is unsound.
        """
