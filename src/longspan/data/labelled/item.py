"""A record of a content and a class, as it lies in a file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from longspan.data.disk import unreadable
from longspan.errors import DataError


@dataclass(frozen=True)
class File:
    """A file that is a content; read when it is wanted."""

    path: str

    def read(self) -> bytes:
        """Its bytes.

        Raises:
            DataError: it cannot be read.
        """
        try:
            with open(self.path, "rb") as file:
                return file.read()
        except OSError as error:
            raise unreadable(error, self.path) from error


@dataclass(frozen=True)
class Item:
    """A record.

    Attributes:
        place: what an error calls it.
        content: text of a table's cell, a `File`, its bytes, or an array; the input knows what to
            do with it.
        label: its class; None where nobody asks.
        columns: of a table, that of the content and that of the class.
    """

    place: str
    content: Any
    label: str | None = None
    columns: tuple[str, str] | None = None

    @property
    def inside(self) -> str:
        """What an error calls the content."""
        return self.place if self.columns is None else f"{self.place}: field '{self.columns[0]}'"

    @property
    def beside(self) -> str:
        """What an error calls the class."""
        return self.place if self.columns is None else f"{self.place}: field '{self.columns[1]}'"

    @property
    def digest(self) -> str:
        """sha256 (hex) of the content: equal ones get into one split."""
        content = self.content.read() if isinstance(self.content, File) else self.content
        if isinstance(content, str):
            content = content.encode("utf-8", "surrogatepass")
        elif isinstance(content, np.ndarray):
            content = f"{content.shape}".encode() + content.tobytes()
        elif not isinstance(content, bytes):
            content = repr(content).encode()  # no content, which the input will say
        return hashlib.sha256(content).hexdigest()


def text_of(item: Item) -> str:
    """The content of a record that is a text.

    Raises:
        DataError: it is empty, no text, or not UTF-8.
    """
    content = item.content
    if isinstance(content, File):
        content = content.read()
    if isinstance(content, bytes):
        try:
            content = content.decode()
        except UnicodeDecodeError as error:
            raise DataError(
                f"{item.inside}: byte {error.start} is not UTF-8; convert the file to UTF-8"
            ) from error
    if not isinstance(content, str):
        held = "null" if content is None else type(content).__name__
        raise DataError(f"{item.inside} holds {held}, not text; put the text there as a string")
    if not content.strip():
        raise DataError(f"{item.inside} is empty; remove the record or fill it")
    try:
        content.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{item.inside} has half a character (\\u{ord(content[error.start]):04x} in place "
            f"{error.start}), which is no text"
        ) from error
    return content
