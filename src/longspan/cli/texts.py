"""Texts that were written, to a file or to standard output."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from longspan.decoding.decode import Decoding
from longspan.errors import DataError


@contextmanager
def written(path: Path | None) -> Iterator[Callable[[str, Mapping[str, Any]], None]]:
    """Gives a function that writes a text, or what is known of it, as a line.

    Args:
        path: a file, of JSON if it is called so (.jsonl); None for standard output. In lines of
            text a line break is written as two characters, a backslash and an n.

    Raises:
        DataError: it cannot be written.
    """
    if path is None:
        yield lambda text, _: print(_line(text))
        sys.stdout.flush()
        return
    try:
        with open(path, "w", encoding="utf-8") as file:
            if path.suffix == ".jsonl":
                yield lambda _, facts: print(json.dumps(facts, ensure_ascii=False), file=file)
            else:
                yield lambda text, _: print(_line(text), file=file)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror})") from error


def said(decoding: Decoding) -> str:
    """How texts were written, in a word or two."""
    strategy = decoding.strategy
    beams = getattr(strategy, "beams", None)
    return f"{strategy.name} {beams}" if beams else strategy.name


def _line(text: str) -> str:
    return text.replace("\n", "\\n")
