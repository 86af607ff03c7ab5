"""A tar file with a folder of files for each class, also compressed."""

from __future__ import annotations

import lzma
import os
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from longspan.data.disk import near
from longspan.data.labelled.collection import Collection
from longspan.data.labelled.item import Item
from longspan.errors import DataError

ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")


@dataclass(frozen=True)
class Archive(Collection, name="archive"):
    """Records are the archive's files, read into memory; the class is the first folder in which
    they do not all lie. What begins with a dot is passed over.
    """

    @classmethod
    def holds(cls, path: str) -> bool:
        return path.lower().endswith(ENDINGS)

    def items(self) -> Iterator[Item]:
        files = self._files()
        folders = [name.split("/")[:-1] for name, _ in files]
        first, shared = folders[0], 0
        # of one class alone all files lie in its folder too
        depth = len(first) - all(folder == first for folder in folders)
        while shared < depth and all(f[: shared + 1] == first[: shared + 1] for f in folders):
            shared += 1
        if loose := [n for (n, _), f in zip(files, folders, strict=True) if len(f) == shared]:
            raise DataError(
                f"{self.path}: {loose[0]} lies in no folder of a class; move it into one"
            )
        for (name, content), folder in zip(files, folders, strict=True):
            yield Item(f"{self.path}: {name}", content, folder[shared])

    def contents(self) -> Iterator[Item]:
        return (Item(f"{self.path}: {name}", content) for name, content in self._files())

    def _files(self) -> list[tuple[str, bytes]]:
        path = os.path.expanduser(self.path)
        if not os.path.lexists(path):
            raise DataError(f"{self.path}: there is no such file{near(path)}")
        found = []
        try:
            with tarfile.open(path) as archive:
                for member in archive:
                    name = member.name.removeprefix("./")
                    file = archive.extractfile(member) if _holds(member) else None
                    if file is not None and not any(p.startswith(".") for p in name.split("/")):
                        found.append((name, file.read()))
        except (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, OSError, KeyError) as error:
            raise DataError(
                f"{self.path}: is no sound archive ({error}); make it or copy it anew"
            ) from error
        if not found:
            raise DataError(f"{self.path}: there are no files in this archive; name another")
        return sorted(found)


def _holds(member: tarfile.TarInfo) -> bool:
    # of a file with two names the second is a link within the archive
    return member.isfile() or member.islnk()
