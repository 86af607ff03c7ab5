"""How files hold records of a content and a class. The path says which form it is:

train.jsonl  reviews.parquet  hf:NAME       a table with a column of contents and one of classes
aclImdb/train/                              a folder with a folder of files for each class
cifar/train.tar.xz                          the same in an archive
train-images-idx3-ubyte.gz                  MNIST's files
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

from longspan.data.disk import near
from longspan.data.labelled.item import Item
from longspan.data.table import endings
from longspan.errors import DataError
from longspan.registry import Component


@dataclass(frozen=True)
class Collection(Component, kind="collection", folder="longspan.data.labelled.collections"):
    """A source of records.

    Attributes:
        path: as the recipe gives it.
        source: the column that holds contents, where there are columns.
        label: the column that holds classes.
    """

    path: str = ""
    source: str = "text"
    label: str = "label"

    @classmethod
    @abstractmethod
    def holds(cls, path: str) -> bool:
        """Whether `path` is of this form."""

    @abstractmethod
    def items(self) -> Iterator[Item]:
        """Records with their classes, always in the same order.

        Raises:
            DataError: there are none, one has no class, or they cannot be read.
        """

    @abstractmethod
    def contents(self) -> Iterator[Item]:
        """Records alone, for which no classes need be there.

        Raises:
            DataError: there are none, or they cannot be read.
        """


def collection(path: str, source: str = "text", label: str = "label") -> Collection:
    """What reads `path`.

    Raises:
        DataError: its name does not say, or there is no such folder.
    """
    for member in Collection.all().values():
        if member.holds(path):
            return member(path, source, label)
    missing = (
        "" if os.path.lexists(os.path.expanduser(path)) else f" (nothing is there{near(path)})"
    )
    raise DataError(
        f"{path}: is neither a folder (or a tar file) with a folder for each class, nor MNIST's "
        f"idx3, nor a table ({endings()}, also compressed: .gz, .xz, .bz2; hf:NAME){missing}"
    )
