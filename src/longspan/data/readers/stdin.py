"""Standard input: everything that is piped in is one document."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass

from longspan.data.reader import Document, Reader
from longspan.errors import DataError


@dataclass(frozen=True)
class Stdin(Reader, name="stdin"):
    """The document `stdin`. It can be read once."""

    def documents(self) -> Iterator[Document]:
        yield Document("stdin", _read, "standard input", once=True)


def _read() -> bytes:
    content = sys.stdin.buffer.read()
    if not content:
        raise DataError("standard input is empty; pipe the text into it, or name a file")
    return content
