"""Images and labels in the idx files of MNIST, also compressed."""

from __future__ import annotations

import gzip
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from longspan.data.disk import near, unreadable
from longspan.data.labelled.collection import Collection
from longspan.data.labelled.item import Item
from longspan.errors import DataError

IMAGES, LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"


@dataclass(frozen=True)
class Idx(Collection, name="idx"):
    """Records are grey images, counted from 0; the path names their file, and that of the labels
    lies beside it under the name that MNIST gave it.
    """

    @classmethod
    def holds(cls, path: str) -> bool:
        return IMAGES in os.path.basename(path)

    def items(self) -> Iterator[Item]:
        beside = self.path.replace(IMAGES, LABELS)
        images, labels = _read(self.path, 3), _read(beside, 1)
        if len(images) != len(labels):
            raise DataError(
                f"{self.path} has {len(images)} images and {beside} has {len(labels)} labels; "
                "label n must belong to image n"
            )
        for number, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
            yield Item(self._place(number), image, str(label))

    def contents(self) -> Iterator[Item]:
        for number, image in enumerate(_read(self.path, 3)):
            yield Item(self._place(number), image)

    def _place(self, number: int) -> str:
        return f"{self.path} image {number}"


def _read(path: str, dimensions: int) -> NDArray[np.uint8]:
    file = os.path.expanduser(path)
    if not os.path.lexists(file):
        raise DataError(f"{path}: there is no such file{near(path)}")
    try:
        with (gzip.open if file.endswith(".gz") else open)(file, "rb") as stream:
            content = stream.read()
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise DataError(f"{path}: damaged, or not compressed as it is called ({error})") from error
    except OSError as error:
        raise unreadable(error, path) from error
    head = 4 + 4 * dimensions
    # two zeros, 8 for bytes, how many dimensions, and each of them big-endian
    if len(content) < head or content[:4] != bytes([0, 0, 8, dimensions]):
        raise DataError(f"{path}: is no idx file of bytes in {dimensions} dimensions")
    shape = struct.unpack(f">{dimensions}I", content[4:head])
    if len(content) - head != np.prod(shape, dtype=np.int64):
        raise DataError(f"{path}: has {len(content) - head} bytes, not those of {shape}")
    return np.frombuffer(content, np.uint8, offset=head).reshape(shape)
