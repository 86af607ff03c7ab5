"""A folder with a folder of files for each class, as IMDB's reviews lie and most sets of images."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from longspan.data.disk import unreadable, walk
from longspan.data.labelled.collection import Collection
from longspan.data.labelled.item import File, Item
from longspan.errors import DataError


@dataclass(frozen=True)
class Folders(Collection, name="folders"):
    """Records are files; the class is the name of the folder in `path` that they lie in, however
    deep. What begins with a dot is passed over.
    """

    @classmethod
    def holds(cls, path: str) -> bool:
        return os.path.isdir(os.path.expanduser(path))

    def items(self) -> Iterator[Item]:
        root = os.path.expanduser(self.path)
        try:
            with os.scandir(root) as scan:
                entries = sorted((e for e in scan if not _hidden(e.name)), key=lambda e: e.name)
        except OSError as error:
            raise unreadable(error, self.path) from error
        classes = [entry for entry in entries if entry.is_dir()]
        if not classes:
            raise DataError(f"{self.path}: has no folders, of which each would be a class")
        if loose := [entry.name for entry in entries if not entry.is_dir()]:
            raise DataError(
                f"{os.path.join(self.path, loose[0])}: lies in no folder of a class; move it into "
                f"one, or out of {self.path}"
            )
        for entry in classes:
            files = _files(entry.path)
            if not files:
                raise DataError(f"{os.path.join(self.path, entry.name)}: there are no files in it")
            yield from (Item(file, File(file), entry.name) for file in files)

    def contents(self) -> Iterator[Item]:
        files = _files(os.path.expanduser(self.path))
        if not files:
            raise DataError(f"{self.path}: there are no files in this folder")
        yield from (Item(file, File(file)) for file in files)


def _hidden(name: str) -> bool:
    return name.startswith(".")


def _files(folder: str) -> list[str]:
    found = walk(folder, lambda name: not _hidden(name))
    return [file for file in found if not _hidden(os.path.basename(file))]
