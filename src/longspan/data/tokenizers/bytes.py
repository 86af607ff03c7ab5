"""Bytes: every byte is a token. Nothing to fit, nothing unknown, nothing to wait for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from longspan.data.tokenizer import Codec, Tokenizer

START = 256
BLOCK = 1 << 17


class ByteCodec(Codec):
    """Id = byte; 256 is the start symbol."""

    kind: ClassVar[str] = "bytes"
    unit: ClassVar[str] = "byte"

    def __init__(self) -> None:
        super().__init__([*(bytes([b]) for b in range(START)), b""], START)

    def definition(self) -> dict[str, Any]:
        return {}

    @classmethod
    def restore(cls, definition: Mapping[str, Any]) -> Self:
        return cls()

    def blocks(
        self, document: bytes, start: int = 0, stop: int | None = None
    ) -> Iterator[NDArray[Any]]:
        whole = np.frombuffer(document, np.uint8)[start:stop]
        for begin in range(0, len(whole), BLOCK):
            yield whole[begin : begin + BLOCK]

    def feed(self, pending: bytes, more: bytes, final: bool) -> tuple[list[int], bytes]:
        return list(pending + more), b""


@dataclass(frozen=True)
class Bytes(Tokenizer, name="bytes"):
    """256 bytes and the start symbol."""

    codec: ClassVar[type[Codec]] = ByteCodec

    @property
    def expected_size(self) -> int:
        return START + 1

    def fit(self, documents: Iterable[bytes]) -> ByteCodec:
        return ByteCodec()
