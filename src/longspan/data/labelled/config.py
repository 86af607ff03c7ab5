"""Which records to train on: the `data` section of tasks that tell classes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from longspan.data.input import Input
from longspan.data.inputs.text import Text
from longspan.errors import ConfigError

Paths = str | tuple[str, ...]

EVALUATED = ("valid", "test")


@dataclass(frozen=True, kw_only=True)
class LabelledConfig:
    """Which records to train on.

    Attributes:
        path: a table or a folder with a folder for each class (`collection.py`), or several.
        valid: fraction of `path`'s records for validation, by a hash of their contents; or paths of
            its own; "" for none.
        test: the same for the test.
        source: column of a table that holds contents.
        label: column of a table that holds classes.
        input: how a content becomes a sequence.
        longest: records of training with longer sequences are left out, and counted in a warning;
            null for none.
        first: of longer sequences only so many tokens or vectors are read, in training and after
            it, and those that were cut are counted in a warning; null for none.

    Raises:
        ConfigError: with every problem.
    """

    path: str | tuple[str, ...]
    valid: float | str | tuple[str, ...] = 0.05
    test: float | str | tuple[str, ...] = 0.05
    source: str = "text"
    label: str = "label"
    input: Input = field(default_factory=Text)
    longest: int | None = None
    first: int | None = None

    def __post_init__(self) -> None:
        problems = _paths("path", self.path)
        for name in EVALUATED:
            value = getattr(self, name)
            if isinstance(value, str | tuple):
                problems += _paths(name, value) if value else []
            elif not _is_fraction(value):
                problems.append(
                    f"data.{name} must be a fraction from 0 to below 1, a path, or '' for none, "
                    f"not {value!r}"
                )
        if not problems and self.fraction("valid") + self.fraction("test") >= 1:
            problems.append(
                f"data.valid + data.test must be below 1, not {self.valid} + {self.test}; "
                "nothing would be left to train on"
            )
        for name in ("source", "label"):
            if not isinstance(value := getattr(self, name), str) or not value:
                problems.append(f"data.{name} must be the name of a column, not {value!r}")
        if not problems and self.source == self.label:
            problems.append(
                f"data.source and data.label are both {self.source!r}; name two columns"
            )
        if not isinstance(self.input, Input):
            problems.append(f"data.input must be an input such as Text(), not {self.input!r}")
        for name in ("longest", "first"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                problems.append(f"data.{name} must be 1 or more, or null, not {value!r}")
        if problems:
            raise ConfigError(problems)

    def fraction(self, split: str) -> float:
        """The fraction of `path`'s records that goes to `split`: 0 if it has its own path."""
        value = getattr(self, split)
        return 0.0 if isinstance(value, str | tuple) else value


def _paths(name: str, value: Any) -> list[str]:
    paths = (value,) if isinstance(value, str) else value
    if isinstance(paths, tuple) and paths and all(isinstance(p, str) and p.strip() for p in paths):
        return []
    return [f"data.{name} must be a table or a folder, or a list of them, not {value!r}"]


def _is_fraction(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and math.isfinite(value) and 0 <= value < 1
