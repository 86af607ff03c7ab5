"""Which questions to train on: the `data` section of the task that finds spans."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from longspan.data.spans.form import Form
from longspan.data.spans.forms.squad import SQuAD
from longspan.data.tokenizer import Tokenizer
from longspan.data.tokenizers.bpe import BPE
from longspan.errors import ConfigError

Paths = str | tuple[str, ...]

EVALUATED = ("valid", "test")


@dataclass(frozen=True, kw_only=True)
class SpansConfig:
    """Which questions to train on.

    Attributes:
        path: a file, or several.
        valid: fraction of `path`'s contexts, with all their questions, for validation, by a hash of
            their text; or paths of its own; "" for none.
        test: the same for the test.
        form: how files hold questions.
        window: tokens of context that are read at once; a longer context is read in windows, and
            the best span of all is the answer. None: every context is read whole.
        stride: tokens from one window's beginning to the next one's; None for half of `window`.
            An answer is learnt from the windows that hold it whole.
        tokenizer: fitted to training alone; one that gives back the text it was given.

    Raises:
        ConfigError: with every problem.
    """

    path: str | tuple[str, ...]
    valid: float | str | tuple[str, ...] = 0.05
    test: float | str | tuple[str, ...] = 0.05
    form: Form = field(default_factory=SQuAD)
    window: int | None = None
    stride: int | None = None
    tokenizer: Tokenizer = field(default_factory=BPE)

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
        for name in ("window", "stride"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                problems.append(f"data.{name} must be 1 or more, or null, not {value!r}")
        if not problems and self.stride is not None and self.stride > (self.window or 0):
            problems.append(
                f"data.stride={self.stride} leaves out what lies between windows of {self.window}; "
                "use a stride of at most data.window"
            )
        if not isinstance(self.form, Form):
            problems.append(f"data.form must be a form such as SQuAD(), not {self.form!r}")
        if not isinstance(self.tokenizer, Tokenizer):
            problems.append(
                f"data.tokenizer must be a tokenizer such as BPE(), not {self.tokenizer!r}"
            )
        if problems:
            raise ConfigError(problems)

    def fraction(self, split: str) -> float:
        """The fraction of `path`'s contexts that goes to `split`: 0 if it has its own path."""
        value = getattr(self, split)
        return 0.0 if isinstance(value, str | tuple) else value


def _paths(name: str, value: Any) -> list[str]:
    paths = (value,) if isinstance(value, str) else value
    if isinstance(paths, tuple) and paths and all(isinstance(p, str) and p.strip() for p in paths):
        return []
    return [f"data.{name} must be a file, or a list of files, not {value!r}"]


def _is_fraction(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and math.isfinite(value) and 0 <= value < 1
