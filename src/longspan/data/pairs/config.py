"""Which pairs to train on: the `data` section of tasks that have a source and a target."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from longspan.data.table import kind, unknown
from longspan.data.tokenizer import Tokenizer
from longspan.data.tokenizers.bpe import BPE
from longspan.errors import ConfigError

Location = str | tuple[str, str]
"""A table (`table.py`), or two parallel text files: the sources' lines and the targets'."""

EVALUATED = ("valid", "test")


@dataclass(frozen=True, kw_only=True)
class PairsConfig:
    """Which pairs to train on.

    Attributes:
        path: where they are: a table, or two parallel text files, [sources, targets].
        valid: fraction of `path`'s records for validation, by a hash of their sources; or a path
            of its own; "" for none.
        test: the same for the test.
        source: field of a table that is read, or several that are read one after the other: a
            question and its context, say. Records that share one of several fields may go to
            different parts; give the parts paths of their own where that matters.
        separator: what stands between several fields.
        target: field that is written about it. In JSON and datasets it may hold several texts, of
            which the first is learnt and all are references.
        longest: records of training with more tokens than this in source or target are left out,
            and counted in a warning; null for none.
        tokenizer: shared by sources and targets, fitted to those of training alone.
        cache: folder for tokenised data; "" for `$LONGSPAN_CACHE`, or else `~/.cache/longspan`.

    Raises:
        ConfigError: with every problem.
    """

    path: Location
    valid: float | Location = 0.05
    test: float | Location = 0.05
    source: str | tuple[str, ...] = "source"
    separator: str = "\n"
    target: str = "target"
    longest: int | None = None
    tokenizer: Tokenizer = field(default_factory=BPE)
    cache: str = ""

    def __post_init__(self) -> None:
        problems = _path("path", self.path)
        for name in EVALUATED:
            value = getattr(self, name)
            if isinstance(value, str | tuple):
                problems += _path(name, value) if value else []
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
        sources = (self.source,) if isinstance(self.source, str) else self.source
        several = isinstance(sources, tuple) and len(sources) > 0
        if not several or not all(isinstance(one, str) and one for one in sources):
            problems.append(
                f"data.source must be the name of a field, or of several, not {self.source!r}"
            )
        elif len(set(sources)) < len(sources):
            problems.append(f"data.source names a field twice: {list(sources)}")
        if not isinstance(self.target, str) or not self.target:
            problems.append(f"data.target must be the name of a field, not {self.target!r}")
        elif several and self.target in sources:
            problems.append(
                f"data.source and data.target are both {self.target!r}; name two fields"
            )
        if not isinstance(self.separator, str):
            problems.append(f"data.separator must be text, not {self.separator!r}")
        if self.longest is not None and (type(self.longest) is not int or self.longest < 1):
            problems.append(f"data.longest must be 1 or more, or null, not {self.longest!r}")
        if not isinstance(self.tokenizer, Tokenizer):
            problems.append(
                f"data.tokenizer must be a tokenizer such as BPE(), not {self.tokenizer!r}"
            )
        if not isinstance(self.cache, str):
            problems.append(f"data.cache must be a folder, or '', not {self.cache!r}")
        if problems:
            raise ConfigError(problems)

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of a table that are read."""
        return (self.source,) if isinstance(self.source, str) else self.source

    def fraction(self, split: str) -> float:
        """The fraction of `path`'s records that goes to `split`: 0 if it has its own path."""
        value = getattr(self, split)
        return 0.0 if isinstance(value, str | tuple) else value


def _path(name: str, value: Any) -> list[str]:
    """What is wrong with a path."""
    if isinstance(value, str) and value.strip():
        return [] if kind(value) else [f"data.{name}: {unknown(value)}"]
    pair = isinstance(value, tuple) and len(value) == 2
    if not pair or not all(isinstance(one, str) and one.strip() for one in value):
        return [
            f"data.{name} must be a table such as 'train.jsonl' or 'hf:NAME', or two parallel "
            f"text files, [sources, targets], not {value!r}"
        ]
    tables = [one for one in value if kind(one)]
    return [f"data.{name}: {one!r} is a table, no parallel text file" for one in tables]


def _is_fraction(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and math.isfinite(value) and 0 <= value < 1
