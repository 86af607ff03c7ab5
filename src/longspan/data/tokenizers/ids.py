"""Ids: text that is numbers already, "17 4 99", each a token.

For checkpoints that come without a tokenizer, and for tokens that were made elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from longspan.data.tokenizer import Codec, Tokenizer
from longspan.data.units import UnitCodec, texts
from longspan.errors import ConfigError, DataError


class IdCodec(UnitCodec):
    """Ids are the numbers themselves.

    Args:
        size: numbers 0 .. size - 1.
        start: the one that precedes every document.
    """

    kind: ClassVar[str] = "ids"
    unit: ClassVar[str] = "token"
    whole_words: ClassVar[bool] = True

    def __init__(self, size: int, start: int) -> None:
        pieces = [f"{number} ".encode() for number in range(size)]
        super().__init__(pieces, start)

    def definition(self) -> dict[str, Any]:
        return {"size": self.size, "start": self.start}

    @classmethod
    def restore(cls, definition: Mapping[str, Any]) -> Self:
        return cls(definition["size"], definition["start"])

    def unit_ids(self, texts: list[str]) -> Iterator[list[int]]:
        for text in texts:
            yield [self._number(word) for word in text.split()]

    def _number(self, word: str) -> int:
        number = int(word) if word.isascii() and word.isdigit() else self.size
        if number >= self.size:
            raise DataError(
                f"{word!r} is no token: this tokenizer reads numbers from 0 to {self.size - 1}, "
                "separated by spaces"
            )
        return number


@dataclass(frozen=True)
class Ids(Tokenizer, name="ids"):
    """Numbers separated by whitespace.

    Attributes:
        size: one more than the highest number; None for what the training documents hold.
    """

    codec: ClassVar[type[Codec]] = IdCodec

    size: int | None = None

    def __post_init__(self) -> None:
        if self.size is not None and self.size < 1:
            raise ConfigError(f"data.tokenizer.size must be 1 or more, not {self.size}")

    @property
    def expected_size(self) -> int | None:
        return None if self.size is None else self.size + 1

    def fit(self, documents: Iterable[bytes]) -> IdCodec:
        size = self.size
        if size is None:
            highest = -1
            for document in documents:
                for text in texts(document, name=self.name, words=True):
                    for word in text.split():
                        if not (word.isascii() and word.isdigit()):
                            raise DataError(f"{word!r} is no number; tokenizer 'ids' reads numbers")
                        highest = max(highest, int(word))
            size = highest + 1
        # one more, so that the start symbol is none of them
        return IdCodec(size + 1, size)
