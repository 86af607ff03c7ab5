"""The source code of Python's standard library: some ten megabytes that every machine has.

Left out is what is not written to be read: installed packages (`site-packages`, `dist-packages`),
tests (folders named `test`, `tests`, `idle_test` or `test_…`), `pydoc_data` and `encodings`
(tables), build settings (`config-…`), files of Debian's own (`sitecustomize.py`), empty files, and
generated files and tables: those that say so within their first five lines, and those of which
most is rows of values. Which files there are depends on the version of Python.
"""

from __future__ import annotations

import os
import re
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch

from longspan.data.disk import document, walk
from longspan.data.reader import Document, Reader
from longspan.errors import DataError

FOLDERS = (
    "site-packages",
    "dist-packages",
    "test",
    "tests",
    "idle_test",
    "test_*",
    "pydoc_data",
    "encodings",
    "config-*",
    "__pycache__",
    ".*",
)
FILES = ("sitecustomize.py", "usercustomize.py", "test_*.py")

GENERATED = re.compile(
    rb"auto-?generated|automatically generated|is generated|configuration generated|do not edit",
    re.IGNORECASE,
)
ROW = re.compile(rb"""\s*[\[({]*(?:['"]|0x|-?\d).*[,\])}]\s*(?:#.*)?""")
"""A line that begins with a literal and ends with a comma or bracket."""

ROWS = 0.6
"""The share of a file's bytes in such lines that makes it a table."""


@dataclass(frozen=True)
class Stdlib(Reader, name="stdlib"):
    """The `.py` files of the library of the running Python. The path after the prefix is empty,
    or a folder or file within the library: `stdlib:asyncio`.
    """

    def documents(self) -> Iterator[Document]:
        root = sysconfig.get_path("stdlib")
        wanted = self.path.strip("/")
        found = False
        for file in walk(root, lambda folder: not _matches(folder, FOLDERS)):
            source = document(file, root)
            within = not wanted or f"{source.name}/".startswith(f"{wanted}/")
            if within and _is_source(file) and is_written(source.read()):
                found = True
                yield source
        if not found:
            where = f"under '{wanted}' " if wanted else ""
            raise DataError(
                f"stdlib:{self.path}: no source code {where}in {root}; "
                "is this Python installed without it?"
            )


def _is_source(file: str) -> bool:
    name = os.path.basename(file)
    return name.endswith(".py") and not _matches(name, FILES)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def is_written(content: bytes) -> bool:
    """Whether somebody wrote this file: neither empty, nor generated, nor a table."""
    lines = content.splitlines()
    rows = sum(len(line) for line in lines if ROW.fullmatch(line))
    generated = GENERATED.search(b"\n".join(lines[:5]))
    return bool(content.strip()) and not generated and rows <= ROWS * sum(map(len, lines))
