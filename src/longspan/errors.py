"""What can go wrong, each said in one line that names the field or file and the repair.

Everything longspan raises on purpose is a `LongspanError`; the command line prints its message
and leaves with status 2. Anything else is a bug of ours and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints


class LongspanError(Exception):
    """The base of every error that longspan raises on purpose."""


class ConfigError(LongspanError):
    """A recipe or an argument says something that cannot be: every problem at once, a line each."""

    def __init__(self, problems: str | Sequence[str], source: str = "") -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        head = f"{source}: " if source else ""
        if len(self.problems) == 1:
            super().__init__(head + self.problems[0])
        else:
            lines = "".join(f"\n  {problem}" for problem in self.problems)
            super().__init__(f"{head}{len(self.problems)} problems{lines}")


@dataclass(frozen=True)
class Conflict:
    """Two choices that exclude each other: the rule's id, the reason and the repair."""

    rule: str
    reason: str
    repair: str

    def __str__(self) -> str:
        return f"[{self.rule}] {self.reason} {self.repair}"


class IncompatibleConfig(ConfigError):
    """Choices that are legal alone but not together (`compat.py`)."""

    def __init__(self, conflicts: Sequence[Conflict], source: str = "") -> None:
        self.conflicts = list(conflicts)
        super().__init__([str(conflict) for conflict in conflicts], source)


class DataError(LongspanError):
    """Data that is missing, empty, unreadable or too short."""


class CheckpointError(LongspanError):
    """A run, checkpoint or imported folder that is missing, truncated or of another shape."""


class StateError(LongspanError):
    """A state that is truncated, of another shape or of another run."""


class InputError(LongspanError):
    """Tokens or masks that the model cannot take."""


class DecodingError(LongspanError):
    """Nothing may be written next: what is asked for cannot be met."""


class DivergedError(LongspanError):
    """The loss or its gradient is no longer a number."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`, did you mean 'recent'? (cache, none, recent)`: the nearest name and all of them."""
    names = sorted(known)
    near = get_close_matches(word, names, n=1, cutoff=0.5)
    hint = f", did you mean '{near[0]}'?" if near else "; choose one of:"
    return f"{hint} ({', '.join(names)})"


@cache
def _words(choice: type[Any]) -> dict[str, tuple[Any, ...]]:
    hints = get_type_hints(choice)
    return {n: get_args(hint) for n, hint in hints.items() if get_origin(hint) is Literal}


def unlisted(section: str, choice: object) -> list[str]:
    """What is wrong with those fields of a dataclass that take one of some words (`Literal`)."""
    problems = []
    for name, words in _words(type(choice)).items():
        if (value := getattr(choice, name)) not in words:
            *others, last = map(repr, words)
            known = f"{', '.join(others)} or {last}"
            problems.append(f"{section}.{name} must be {known}, not {value!r}")
    return problems
