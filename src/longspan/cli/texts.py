"""Texts: how they are written, and where to."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from longspan.cli.decoding import DecodingOptions
from longspan.errors import ConfigError, DataError
from longspan.task import Answering
from longspan.transduction import Transduction

Line = Callable[[str, Mapping[str, Any]], None]
"""Writes a text, or what is known of it, as a line."""


@contextmanager
def written(path: Path | None, as_json: bool = False) -> Iterator[Line]:
    """Gives a function that writes a text, or what is known of it, as a line.

    Args:
        path: a file; None for standard output. In lines of text a line break is written as two
            characters, a backslash and an n.
        as_json: lines are of JSON; those of a file that is called so (.jsonl) always are.

    Raises:
        DataError: it cannot be written.
    """
    if path is None:
        yield lambda text, facts: print(_json(facts) if as_json else _line(text))
        sys.stdout.flush()
        return
    try:
        with open(path, "w", encoding="utf-8") as file:
            if as_json or path.suffix == ".jsonl":
                yield lambda _, facts: print(_json(facts), file=file)
            else:
                yield lambda text, _: print(_line(text), file=file)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror})") from error


def decoded(task: Answering, options: DecodingOptions | None) -> Answering:
    """The task with texts written as the options say.

    Raises:
        ConfigError: it writes nothing token by token.
    """
    if options is None:
        return task
    if not isinstance(task, Transduction):
        raise ConfigError(f"{task.name} writes no text; leave out how to write")
    return replace(task, decode=options.over(task.decode))


def said(task: Answering) -> str:
    """How texts are written, in a word or two and a comma; nothing if none are."""
    if not isinstance(task, Transduction):
        return ""
    strategy = task.decode.strategy
    beams = getattr(strategy, "beams", None)
    return f"{strategy.name} {beams}, " if beams else f"{strategy.name}, "


def _json(facts: Mapping[str, Any]) -> str:
    return json.dumps(facts, ensure_ascii=False)


def _line(text: str) -> str:
    return text.replace("\n", "\\n")
