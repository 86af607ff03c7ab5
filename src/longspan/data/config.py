"""What to train on: the `data` section of a recipe."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from longspan.data.tokenizer import Tokenizer
from longspan.data.tokenizers.bytes import Bytes
from longspan.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What to train on.

    Attributes:
        path: where the documents are (`reader.py` has the prefixes), one path or several.
        valid: fraction of the documents for validation, by a hash of their names; or a path of
            its own. What that path names is left out of training.
        test: the same for the test.
        documents: each file is a document, whose memory starts afresh; False: all of a split is
            one stream.
        tokenizer: fitted to the training documents alone.
        cache: folder for tokenised data; "" for `$LONGSPAN_CACHE`, or else `~/.cache/longspan`.

    Raises:
        ConfigError: with every problem.
    """

    path: str | tuple[str, ...]
    valid: float | str = 0.05
    test: float | str = 0.05
    documents: bool = True
    tokenizer: Tokenizer = field(default_factory=Bytes)
    cache: str = ""

    def __post_init__(self) -> None:
        problems = []
        paths = (self.path,) if isinstance(self.path, str) else self.path
        if not isinstance(paths, tuple) or not paths or not all(_is_path(p) for p in paths):
            problems.append(
                "data.path must be a path, or several: a file, a folder, a pattern, '-', "
                f"'hf:NAME' or 'stdlib:', not {self.path!r}"
            )
        for name in ("valid", "test"):
            value = getattr(self, name)
            if not _is_path(value) and not _is_fraction(value):
                problems.append(
                    f"data.{name} must be a fraction from 0 to below 1, or a path, not {value!r}"
                )
        if not problems and self.fraction("valid") + self.fraction("test") >= 1:
            problems.append(
                f"data.valid + data.test must be below 1, not {self.valid} + {self.test}; "
                "nothing would be left to train on"
            )
        if not isinstance(self.documents, bool):
            problems.append(f"data.documents must be true or false, not {self.documents!r}")
        if not isinstance(self.tokenizer, Tokenizer):
            problems.append(
                f"data.tokenizer must be a tokenizer such as Bytes(), not {self.tokenizer!r}"
            )
        if not isinstance(self.cache, str):
            problems.append(f"data.cache must be a folder, or '', not {self.cache!r}")
        if problems:
            raise ConfigError(problems)

    def fraction(self, split: str) -> float:
        """The fraction of `path`'s documents that goes to `split`: 0 if it has its own path."""
        value = getattr(self, split)
        return 0.0 if isinstance(value, str) else value


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_fraction(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and math.isfinite(value) and 0 <= value < 1
