"""What is learnt of labelled records before the model is: how they are read, and their classes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longspan.data.input import Encoding, Input
from longspan.data.labelled.item import Item
from longspan.errors import CheckpointError, ConfigError, DataError, did_you_mean

FILE = "classes.json"
"""Name of the file that `Reading.save` writes beside that of the encoding."""


@dataclass(frozen=True)
class Reading:
    """How records are read.

    Attributes:
        kind: name of the input.
        encoding: contents to sequences.
        classes: of training, sorted; numbers by their size. The model knows them by their place.
    """

    kind: str
    encoding: Encoding
    classes: tuple[str, ...]

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) of what defines it."""
        content = json.dumps([self.kind, self.encoding.fingerprint, self.classes])
        return hashlib.sha256(content.encode()).hexdigest()

    def number(self, item: Item) -> int:
        """The place of a record's class; -1 of one without.

        Raises:
            DataError: training has not seen it.
        """
        if item.label is None:
            return -1
        try:
            return self.classes.index(item.label)
        except ValueError:
            raise DataError(
                f"{item.beside} is of the class '{item.label}', which training has not seen"
                f"{did_you_mean(item.label, self.classes)}"
            ) from None

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes the encoding's files and `classes.json`, whole or not at all.

        Raises:
            CheckpointError: they cannot be written.
        """
        self.encoding.save(folder)
        path = Path(folder) / FILE
        part = path.with_name(f"{FILE}.part")
        content = {"format": 1, "input": self.kind, "classes": self.classes}
        try:
            part.write_text(json.dumps(content, ensure_ascii=False, indent=1), "utf-8")
            os.replace(part, path)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise CheckpointError(f"{path}: could not be written: {error}") from error

    @staticmethod
    def load(folder: str | os.PathLike[str]) -> Reading:
        """Reads what `save` wrote.

        Raises:
            CheckpointError: a file is missing or damaged.
        """
        path = Path(folder) / FILE
        try:
            content = json.loads(path.read_bytes())
            kind, classes = content["input"], content["classes"]
            if not classes or not all(isinstance(name, str) for name in classes):
                raise ValueError("classes are words")
            found = Input.find(kind)
        except FileNotFoundError as error:
            raise CheckpointError(f"{path}: there is no such file of classes") from error
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
        except (ValueError, KeyError, TypeError, ConfigError) as error:
            raise CheckpointError(f"{path}: is damaged ({error}); copy it anew") from error
        return Reading(kind, found.encoding.load(folder), tuple(classes))


def learnt(items: Iterable[Item], path: str) -> tuple[str, ...]:
    """The classes of training records.

    Args:
        items: the records.
        path: what an error calls all of them.

    Raises:
        DataError: there are less than two.
    """
    names = {item.label for item in items if item.label is not None}
    if len(names) < 2:
        raise DataError(
            f"{path}: all records of training are of the class '{next(iter(names), '')}', and "
            "there is nothing to tell it from; name data with two classes or more"
        )
    return tuple(sorted(names, key=_rank(list(names))))


def _rank(names: Sequence[str]) -> Callable[[str], Any]:
    return int if all(_whole(name) for name in names) else str


def _whole(name: str) -> bool:
    try:
        return str(int(name)) == name
    except ValueError:
        return False
