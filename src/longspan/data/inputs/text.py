"""Texts as tokens, each after a start symbol."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from longspan.data.corpus import dtype
from longspan.data.input import Encoding, Input
from longspan.data.labelled.item import Item, text_of
from longspan.data.tokenizer import Codec, Tokenizer
from longspan.data.tokenizers.bpe import BPE
from longspan.errors import DataError

GROUP = 1 << 19
"""Characters that are encoded together."""


class TextEncoding(Encoding):
    """Texts as [start, ids…], or ids alone; as the tokenizer frames them if it does (BERT's).

    Args:
        codec: the tokenizer.
        begins: the start symbol comes first.
    """

    def __init__(self, codec: Codec, begins: bool = True) -> None:
        self.codec, self.begins = codec, begins

    @property
    def size(self) -> int:
        return self.codec.size

    @property
    def features(self) -> None:
        return None

    @property
    def fingerprint(self) -> str:
        return self.codec.fingerprint

    def encode(self, items: Iterable[Item]) -> Iterator[NDArray[Any]]:
        start = [self.codec.start] if self.begins else []
        for group in _groups(items):
            found = self.codec.each(text.encode() for _, text in group)
            for item, _ in group:
                try:
                    ids = next(found)
                except DataError as error:
                    raise DataError(f"{item.place}: {error}") from error
                if not len(ids):
                    raise DataError(f"{item.place}: the text has no tokens")
                framed = self.codec.source(ids)
                if framed[0] != self.codec.start:
                    framed = np.concatenate([start, framed])
                yield framed.astype(dtype(self.codec))

    def model_input(self, values: NDArray[Any]) -> Tensor:
        return torch.from_numpy(values.astype(np.int64))

    def save(self, folder: str | os.PathLike[str]) -> None:
        self.codec.save(folder)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Self:
        return cls(Codec.load(folder))


@dataclass(frozen=True)
class Text(Input, name="text"):
    """Tokens of a text.

    Attributes:
        tokenizer: fitted to training alone.
    """

    encoding: ClassVar[type[Encoding]] = TextEncoding

    tokenizer: Tokenizer = field(default_factory=BPE)

    def fit(self, items: Iterable[Item]) -> TextEncoding:
        place = ""

        def contents() -> Iterator[bytes]:
            nonlocal place
            for item in items:
                text = text_of(item).encode()
                place = f"{item.place}: "
                yield text
                place = ""  # an error of reading names the record itself

        try:
            return TextEncoding(self.tokenizer.fit(contents()))
        except DataError as error:
            raise DataError(f"{place}{error}") from error


def _groups(items: Iterable[Item]) -> Iterator[list[tuple[Item, str]]]:
    group: list[tuple[Item, str]] = []
    size = 0
    for item in items:
        group.append((item, text_of(item)))
        size += len(group[-1][1])
        if size >= GROUP:
            yield group
            group, size = [], 0
    yield group
