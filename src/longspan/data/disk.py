"""Files of this disk as documents: finding them, naming them, reading them."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from pathlib import Path

from longspan.data.reader import Document
from longspan.errors import DataError


def document(file: str, root: str) -> Document:
    """The file as a document that is named by its path beneath `root`."""
    name = Path(os.path.relpath(file, root or ".")).as_posix()
    return Document(
        unicodedata.normalize("NFC", name),  # macOS and Linux write accents differently
        lambda: _read(file),
        os.path.realpath(file),
        once=not regular(file),
    )


def walk(folder: str, enter: Callable[[str], bool]) -> list[str]:
    """Every file beneath `folder`, sorted; links are followed, sockets and devices are no files.

    Args:
        folder: where to begin.
        enter: says by its name whether a folder is entered.

    Raises:
        DataError: a folder cannot be read.
    """
    return sorted(_walk(folder, enter, frozenset()))


def _walk(folder: str, enter: Callable[[str], bool], above: frozenset[str]) -> Iterator[str]:
    here = os.path.realpath(folder)
    if here in above:  # a link back to a folder that we are in
        return
    try:
        with os.scandir(folder) as scan:
            entries = list(scan)
    except OSError as error:
        raise unreadable(error, folder) from error
    for entry in entries:
        if entry.is_dir():
            if enter(entry.name):
                yield from _walk(entry.path, enter, above | {here})
        elif entry.is_file() or entry.is_symlink():  # a broken link is an error, not a gap
            yield entry.path


def regular(file: str) -> bool:
    """Whether it is a file that can be read again and again, unlike a pipe.

    Raises:
        DataError: it cannot be reached.
    """
    try:
        return stat.S_ISREG(os.stat(file).st_mode)
    except OSError as error:
        raise unreadable(error, file) from error


def unreadable(error: OSError, path: str) -> DataError:
    """What to say when `path` cannot be read."""
    repair = "; check its permissions" if isinstance(error, PermissionError) else ""
    return DataError(f"{path}: cannot be read ({error.strerror}){repair}")


def near(path: str) -> str:
    """`, did you mean '…'?` where a file that is there is called much like one that is not."""
    folder, name = os.path.split(path.rstrip(os.sep))
    try:
        siblings = os.listdir(folder or ".")
    except OSError:
        siblings = []
    found = get_close_matches(name, siblings, n=1, cutoff=0.5)
    return f", did you mean '{os.path.join(folder, found[0])}'?" if found else ""


def _read(file: str) -> bytes:
    try:
        with open(file, "rb") as stream:
            return stream.read()
    except OSError as error:
        raise unreadable(error, file) from error
