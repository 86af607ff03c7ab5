"""What a token is: a `Tokenizer` is the choice, a `Codec` is what fitting it to text gives.

A codec turns bytes into ids and back. What it gives does not depend on how the bytes arrive: fed
in pieces cut anywhere, they become the same ids as in one piece (`units.py` says how), so that a
stream is scored and continued exactly as the file would be.
"""

from __future__ import annotations

import hashlib
import json
import os
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from longspan.errors import CheckpointError, DataError, InputError, LongspanError
from longspan.registry import Component

FILE = "tokenizer.json"
"""Name of the file that `Codec.save` writes."""


@dataclass(frozen=True)
class Tokenizer(Component, kind="tokenizer", folder="longspan.data.tokenizers"):
    """The choice of a tokenizer and of its size."""

    codec: ClassVar[type[Codec]]

    @property
    @abstractmethod
    def expected_size(self) -> int | None:
        """Ids that fitting will give, the start symbol's among them; None if the text decides."""

    @abstractmethod
    def fit(self, documents: Iterable[bytes]) -> Codec:
        """Learns the vocabulary from the training documents; each is read once.

        Raises:
            DataError: a document is not UTF-8 and this tokenizer needs it.
        """


class Codec:
    """A fitted tokenizer.

    Attributes:
        kind: name of the tokenizer that fits it.
        unit: what a token is, and so what a perplexity is per: "byte", "token" or "word".
        start: id of the start symbol, which precedes every document and stands for no bytes.
        closing: id of the symbol after a text that another one follows; usually the start symbol.
    """

    kind: ClassVar[str]
    unit: ClassVar[str]

    def __init__(self, pieces: Sequence[bytes], start: int) -> None:
        self._pieces = list(pieces)
        self.start = self.closing = start

    @property
    def size(self) -> int:
        """Number of ids, the start symbol's among them."""
        return len(self._pieces)

    @abstractmethod
    def definition(self) -> dict[str, Any]:
        """What defines it, as JSON."""

    @classmethod
    @abstractmethod
    def restore(cls, definition: Mapping[str, Any]) -> Self:
        """The codec that `definition` describes."""

    @abstractmethod
    def blocks(
        self, document: bytes, start: int = 0, stop: int | None = None
    ) -> Iterator[NDArray[Any]]:
        """The ids of document[start:stop], integers, some 100,000 at a time.

        Raises:
            DataError: it is not UTF-8 and this tokenizer needs it; the byte is named.
        """

    @abstractmethod
    def feed(self, pending: bytes, more: bytes, final: bool) -> tuple[list[int], bytes]:
        """The ids of what `more` completes, and the bytes that still wait for their end.

        Args:
            pending: what the call before left over; b"" at first.
            more: the bytes that have arrived.
            final: nothing more will come, so nothing is left over.

        Raises:
            DataError: as `blocks`; the byte is counted from the beginning of `pending`.
        """

    def encode(self, document: bytes) -> NDArray[np.int64]:
        """The ids (N,) int64 of a document, without the start symbol.

        Raises:
            DataError: as `blocks`.
        """
        return np.concatenate([np.empty(0, np.int64), *self.blocks(document)], dtype=np.int64)

    def source(self, ids: NDArray[Any]) -> NDArray[Any]:
        """Ids of a text as an encoder reads them: between symbols, if it learnt texts so."""
        return ids

    def located(self, document: bytes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """`encode`, and (N,) int64 the byte after each token in the document.

        Raises:
            DataError: as `blocks`, or the tokens do not give the document back.
        """
        ids = self.encode(document)
        if self.decode(ids) != document:
            raise DataError(
                f"the tokenizer '{self.kind}' does not give its text back, so no span can be "
                "found in it; use data.tokenizer=bpe or bytes"
            )
        return ids, np.cumsum([len(self.piece(id)) for id in ids.tolist()], dtype=np.int64)

    def each(self, documents: Iterable[bytes]) -> Iterator[NDArray[np.int64]]:
        """`encode` for many short documents, which some codecs do faster together.

        Raises:
            DataError: as `blocks`, after the ids of every document before the one at fault.
        """
        return map(self.encode, documents)

    def decode(self, ids: Iterable[int] | NDArray[Any]) -> bytes:
        """The bytes that `ids` stand for: those of each piece, joined.

        Raises:
            InputError: an id is outside the vocabulary.
        """
        each = np.asarray(ids if isinstance(ids, np.ndarray) else list(ids), np.int64)
        if len(outside := each[(each < 0) | (each >= self.size)]):
            raise self._outside(int(outside[0]))
        return b"".join(map(self._pieces.__getitem__, each.tolist()))

    def piece(self, id: int) -> bytes:
        """The bytes of one token; b"" for the start symbol.

        Raises:
            InputError: there is no such id.
        """
        if not 0 <= id < self.size:
            raise self._outside(id)
        return self._pieces[id]

    def _outside(self, id: int) -> InputError:
        return InputError(f"token {id} is outside the vocabulary of {self.size} tokens")

    def prompt(self, text: str) -> NDArray[np.int64]:
        """`encode` for what somebody typed.

        Raises:
            InputError: the vocabulary cannot say it.
        """
        try:
            # what a terminal could not decode reaches us as lone surrogates: the bytes themselves
            return self.encode(text.encode("utf-8", "surrogateescape"))
        except (UnicodeEncodeError, DataError) as error:
            raise InputError(f"the prompt is not valid text: {error}") from error

    def gap(self, text: str) -> bytes:
        """What stands between a prompt as it was typed and its continuation.

        The space or line break that is part of the last token of words and numbers.

        Raises:
            InputError: as `prompt`.
        """
        last = self.decode(self.prompt(text)[-1:])[-1:]
        given = text.encode("utf-8", "surrogateescape")[-1:]
        return last if last.isspace() and last != given else b""

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) of what defines it: equal for codecs that give equal ids."""
        return _fingerprint(self.kind, self.definition())

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes `tokenizer.json` into `folder`, whole or not at all; an existing one is replaced.

        Raises:
            CheckpointError: it cannot be written.
        """
        content = {"format": 1, "kind": self.kind, "fingerprint": self.fingerprint}
        path = Path(folder) / FILE
        part = path.with_name(f"{FILE}.part")
        try:
            part.write_text(json.dumps(content | {"definition": self.definition()}), "utf-8")
            os.replace(part, path)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise CheckpointError(f"{path}: the tokenizer could not be written: {error}") from error

    @staticmethod
    def load(folder: str | os.PathLike[str]) -> Codec:
        """Reads what `save` wrote.

        Raises:
            CheckpointError: the file is missing, damaged or of a tokenizer unknown here.
        """
        path = Path(folder) / FILE
        try:
            content = json.loads(path.read_bytes())
            kind, definition = content["kind"], content["definition"]
            if content["fingerprint"] != _fingerprint(kind, definition):
                raise ValueError("it was changed after it was written")
            return Tokenizer.find(kind).codec.restore(definition)
        except FileNotFoundError as error:
            raise CheckpointError(f"{path}: there is no such tokenizer file") from error
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
        except LongspanError as error:
            raise CheckpointError(f"{path}: {error}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{path}: the tokenizer file is damaged ({error}); copy it anew"
            ) from error


def _fingerprint(kind: str, definition: Mapping[str, Any]) -> str:
    content = json.dumps([kind, definition], separators=(",", ":"))
    return hashlib.sha256(content.encode()).hexdigest()
