"""Lines of text files, numbered from 1; compressed files (.gz, .xz, .bz2) are read as they are.

A line ends at a newline and nowhere else (not at U+2028, say), so that parallel files stay
parallel. A carriage return before the newline and a byte order mark are no text.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any

from longspan.data.disk import near, regular, unreadable
from longspan.errors import DataError

OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}

MARK = b"\xef\xbb\xbf"


def suffix(path: str) -> str:
    """The ending that says what is in a file: ".jsonl" of "train.jsonl.gz"; "" if there is none."""
    stem, last = os.path.splitext(path.lower())
    return os.path.splitext(stem)[1] if last in OPENERS else last


def lines(path: str) -> Iterator[tuple[int, str]]:
    """Number and text of each line, without its end.

    Raises:
        DataError: there is no such file, it is empty, cannot be read again and again (a pipe), is
            damaged, or a line is not UTF-8.
    """
    number = 0
    for number, line in enumerate(_read(path), 1):
        text = line.removesuffix(b"\n").removesuffix(b"\r")
        try:
            yield number, (text.removeprefix(MARK) if number == 1 else text).decode()
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path} line {number}: byte {error.start} of the line "
                f"(0x{text[error.start]:02x}) is not UTF-8; convert the file to UTF-8"
            ) from error
    if number == 0:
        raise DataError(f"{path}: the file is empty")


def _read(path: str) -> Iterator[bytes]:
    file = os.path.expanduser(path)
    if not os.path.lexists(file):
        raise DataError(f"{path}: there is no such file{near(file)}")
    if os.path.isdir(file):
        raise DataError(f"{path}: is a folder; name a file in it")
    if not regular(file):
        raise DataError(f"{path}: can be read only once; save it as a file")
    opener = OPENERS.get(os.path.splitext(file.lower())[1], open)
    stream: IO[bytes]
    try:
        with opener(file, "rb") as stream:
            yield from stream
    except (gzip.BadGzipFile, lzma.LZMAError, zlib.error, EOFError) as error:
        raise DataError(f"{path}: damaged, or not compressed as it is called ({error})") from error
    except OSError as error:
        if error.strerror is None:  # bz2's way to say it
            raise DataError(
                f"{path}: damaged, or not compressed as it is called ({error})"
            ) from error
        raise unreadable(error, path) from error
