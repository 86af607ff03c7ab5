"""Keeps what can be read only once: standard input, rows of a stream, pipes."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from types import TracebackType
from typing import IO, Self

from longspan.data.reader import Document


class Spool:
    """A temporary file without a name, gone when it is closed or the process ends in any way."""

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None
        self._end = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()

    def keep(self, document: Document, content: bytes) -> Document:
        """The document, with its `content` read from here from now on."""
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the spool
        file, start, size = self._file, self._end, len(content)
        file.seek(start)
        file.write(content)
        self._end += size

        def read() -> bytes:
            file.seek(start)
            return file.read(size)

        return replace(document, read=read, once=False)
