"""Files: one, a folder with all that lies beneath it, or a pattern such as `logs/**/*.log`.

Bytes are bytes: no file is passed over for its name or content. Only folders whose names begin
with a dot (`.git`) are left out, and what is no file at all (sockets, devices) inside a folder. A
pattern matches what it would in a shell, with `**` for any number of folders.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass

from longspan.data.disk import document, near, regular, walk
from longspan.data.reader import Document, Reader
from longspan.errors import DataError


@dataclass(frozen=True)
class Files(Reader, name="files"):
    """Documents are files. A name is the path beneath the folder, or beneath that part of a
    pattern which is fixed; of a single file, its own name.
    """

    def documents(self) -> Iterator[Document]:
        path = os.path.expanduser(self.path)
        if os.path.isdir(path):
            files, root = walk(path, lambda folder: not folder.startswith(".")), path
            if not files:
                raise DataError(f"{self.path}: there are no files in this folder")
        elif os.path.lexists(path):
            files, root = [path], os.path.dirname(path)
            if regular(path) and os.path.getsize(path) == 0:
                raise DataError(f"{self.path}: the file is empty")
        elif glob.has_magic(path):
            files, root = _match(path), _fixed(path)
            if not files:
                raise DataError(f"{self.path}: no file matches this pattern")
        else:
            raise DataError(f"{self.path}: there is no such file or folder{near(path)}")
        yield from (document(file, root) for file in files)


def _match(pattern: str) -> list[str]:
    found = [f for f in glob.glob(pattern, recursive=True) if not os.path.isdir(f)]
    return sorted(f for f in found if os.path.isfile(f) or os.path.islink(f))


def _fixed(pattern: str) -> str:
    folder = os.path.dirname(pattern)
    while glob.has_magic(folder):
        folder = os.path.dirname(folder)
    return folder
