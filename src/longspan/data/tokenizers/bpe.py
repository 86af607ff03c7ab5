"""Byte-level BPE: the most frequent neighbours become one token, again and again (1508.07909).

Beneath it lie the 256 bytes, so that nothing is unknown and decoding gives back every byte. The
`tokenizers` library learns the merges and applies them, within the words that its byte-level
pre-tokenizer (GPT-2's) cuts. Unlike there, a token never spans a newline and what follows it,
because every unit (`units.py`) is encoded on its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain, count
from typing import Any, ClassVar, Self

import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from longspan.data.tokenizer import Codec, Tokenizer
from longspan.data.units import UnitCodec, texts
from longspan.errors import ConfigError

START = 256


def _letters() -> list[str]:
    """How the library writes each byte: as itself if it prints in Latin-1, else beyond 255."""
    prints = {*range(33, 127), *range(161, 173), *range(174, 256)}
    spare = count(256)
    return [chr(byte if byte in prints else next(spare)) for byte in range(256)]


LETTERS = _letters()


class BPECodec(UnitCodec):
    """Ids 0 to 255 are the bytes, 256 the start symbol, then what the merges make, in order.

    Args:
        merges: pairs of ids, first learned first.
    """

    kind: ClassVar[str] = "bpe"
    unit: ClassVar[str] = "token"

    def __init__(self, merges: Iterable[tuple[int, int]]) -> None:
        self.merges = [(left, right) for left, right in merges]
        pieces = [*(bytes([b]) for b in range(START)), b""]
        ids = {piece: id for id, piece in enumerate(pieces) if piece}
        for left, right in self.merges:
            if not (0 <= left < len(pieces) and 0 <= right < len(pieces)):
                raise ValueError(f"merge ({left}, {right}) joins what is not there yet")
            piece = pieces[left] + pieces[right]
            if piece not in ids:  # two ways may lead to the same piece
                ids[piece] = len(pieces)
                pieces.append(piece)
        super().__init__(pieces, START)
        written = [_written(piece) for piece in pieces]
        self._library = tokenizers.Tokenizer(
            models.BPE(
                vocab={_written(piece): id for piece, id in ids.items()},
                merges=[(written[left], written[right]) for left, right in self.merges],
            )
        )
        self._library.pre_tokenizer = _words()

    def definition(self) -> dict[str, Any]:
        return {"merges": [list(pair) for pair in self.merges]}

    @classmethod
    def restore(cls, definition: Mapping[str, Any]) -> Self:
        return cls(definition["merges"])

    def unit_ids(self, texts: list[str]) -> Iterable[list[int]]:
        return (unit.ids for unit in self._library.encode_batch_fast(texts))


@dataclass(frozen=True)
class BPE(Tokenizer, name="bpe"):
    """Merges pairs that occur at least twice until there are `vocab` tokens.

    Attributes:
        vocab: ids, the 256 bytes and the start symbol among them. A small text may give fewer.
    """

    codec: ClassVar[type[Codec]] = BPECodec

    vocab: int = 8192

    def __post_init__(self) -> None:
        if type(self.vocab) is not int or self.vocab <= START:
            raise ConfigError(
                f"data.tokenizer.vocab must be 257 (the bytes and the start symbol) or more, "
                f"not {self.vocab!r}"
            )

    @property
    def expected_size(self) -> int:
        return self.vocab

    def fit(self, documents: Iterable[bytes]) -> BPECodec:
        library = tokenizers.Tokenizer(models.BPE())
        library.pre_tokenizer = _words()
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocab - 1,  # the start symbol is ours
            min_frequency=2,
            initial_alphabet=sorted(LETTERS),
            show_progress=False,
        )
        units = (texts(document, name=self.name, words=False) for document in documents)
        library.train_from_iterator(chain.from_iterable(units), trainer)
        ids = {letter: byte for byte, letter in enumerate(LETTERS)}
        merges = []
        for left, right in json.loads(library.to_str())["model"]["merges"]:
            merges.append((ids[left], ids[right]))
            ids.setdefault(left + right, len(ids) + 1)  # one further: 256 is the start symbol
        return BPECodec(merges)


def _words() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False)


def _written(piece: bytes) -> str:
    return "".join(LETTERS[byte] for byte in piece)
