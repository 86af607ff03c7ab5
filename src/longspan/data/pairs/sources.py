"""Sources alone: what a trained model is asked about."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

from longspan.data.lines import lines
from longspan.data.table import kind
from longspan.errors import DataError


def sources(path: str, fields: Sequence[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """What errors call each source, and its texts.

    Args:
        path: a table with these fields, a text file with a source a line, or "-" for such lines on
            standard input.
        fields: of a table; lines are the only one.

    Raises:
        DataError: there is none, one is empty or no text, or a file cannot be read.
    """
    table = kind(path)
    where = ""
    for where, texts in _rows(table(path), fields) if table else _lines(path, fields):
        for field, text in zip(fields, texts, strict=True):
            if not isinstance(text, str):
                held = "null" if text is None else type(text).__name__
                raise DataError(f"{where}: field '{field}' holds {held}, not text")
            if not text.strip():
                what = f"field '{field}'" if table else "the line"
                raise DataError(f"{where}: {what} is empty; remove it or fill it")
        yield where, texts
    if not where:
        raise DataError(f"{path}: there is nothing to read")


def _rows(table: Any, fields: Sequence[str]) -> Iterator[tuple[str, tuple[Any, ...]]]:
    return ((table.place(number), texts) for number, texts in table.rows(fields))


def _lines(path: str, fields: Sequence[str]) -> Iterator[tuple[str, tuple[Any, ...]]]:
    if len(fields) > 1:
        raise DataError(
            f"{path}: needs the fields {' and '.join(fields)}; name a table (.jsonl, .tsv, .csv)"
        )
    if path != "-":
        yield from ((f"{path} line {number}", (text,)) for number, text in lines(path))
        return
    for number, line in enumerate(sys.stdin.buffer, 1):
        try:
            yield f"standard input, line {number}", (line.rstrip(b"\r\n").decode(),)
        except UnicodeDecodeError as error:
            raise DataError(
                f"standard input, line {number}: byte {error.start} is not UTF-8"
            ) from error
