"""A question, what it is about, and where its answers stand there."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from longspan.errors import DataError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """A span of a context.

    Attributes:
        text: without white space around it; never empty.
        start: place of its first character in the context.
    """

    text: str
    start: int


@dataclass(frozen=True)
class Question:
    """A question about a context.

    Attributes:
        place: what an error calls it.
        text: of the question.
        context: what it is about.
        answers: any of them is right; () if there is none.
    """

    place: str
    text: str
    context: str
    answers: tuple[Answer, ...]

    @property
    def references(self) -> tuple[str, ...]:
        """Texts of the answers; ("",) if there is none."""
        return tuple(answer.text for answer in self.answers) or ("",)


class Checker:
    """Makes questions of what a file says, and counts what had to be put right.

    Args:
        name: of the file.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.moved: list[str] = []

    def question(
        self, place: str, text: object, context: object, answers: Sequence[tuple[object, object]]
    ) -> Question:
        """The question, if it is sound.

        Args:
            place: what an error calls it.
            text: of the question.
            context: what it is about.
            answers: text of each, and the place of its first character.

        Raises:
            DataError: a field is no text or empty, or an answer stands nowhere in the context.
        """
        asked, about = _text(text, "question", place), _text(context, "context", place)
        found = tuple(self._answer(place, about, *answer) for answer in answers)
        return Question(place, asked, about, found)

    def told(self) -> None:
        """Says what had to be put right."""
        if self.moved:
            log.warning(
                "%s: %d answers do not stand where answer_start says and are taken from the "
                "nearest place where they do; the first is that of %s",
                self.name,
                len(self.moved),
                self.moved[0],
            )

    def _answer(self, place: str, context: str, text: object, start: object) -> Answer:
        given = _text(text, "answer", place, "give no answers if there is none")
        if type(start) is not int:
            raise DataError(f"{place}: answer_start must be a whole number, not {start!r}")
        bare = given.strip()
        lead = len(given) - len(given.lstrip())
        # some count the white space before an answer, some do not
        for at in (start + lead, start):
            if at >= 0 and context.startswith(bare, at):
                return Answer(bare, at)
        nearest = _nearest(context, bare, start)
        if nearest is None:
            raise DataError(
                f"{place}: the answer {_short(bare)!r} does not stand in its context; write it as "
                "it stands there, or remove it"
            )
        self.moved.append(place)
        return Answer(bare, nearest)


def _nearest(context: str, text: str, start: int) -> int | None:
    """Where `text` stands nearest to `start`; None if it does nowhere."""
    start = max(0, start)
    places = [context.rfind(text, 0, start + len(text)), context.find(text, start)]
    return min((at for at in places if at >= 0), key=lambda at: abs(at - start), default=None)


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


def _text(
    value: object, field: str, place: str, repair: str = "remove the record or fill it"
) -> str:
    if not isinstance(value, str):
        held = "null" if value is None else type(value).__name__
        raise DataError(f"{place}: the {field} is {held}, not text")
    if not value.strip():
        raise DataError(f"{place}: the {field} is empty; {repair}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{place}: the {field} has half a character (\\u{ord(value[error.start]):04x} in "
            f"place {error.start}), which is no text"
        ) from error
    return value
