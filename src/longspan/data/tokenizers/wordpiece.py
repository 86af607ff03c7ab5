"""WordPiece, the tokens of BERT: of a word the longest piece that is known, then of what is left.

(1609.08144, section 4.1; as in 1810.04805, with "##" before a piece that goes on.) Text is cut at
white space and punctuation before, and in lower case without accents if so asked. The `tokenizers`
library does all of it.

What a text becomes does not give it back: decoding gives its normal form, a space before each word
and each sign. Where in a text a token stands is known all the same (`located`).

Differs from Hugging Face's: "[SEP]" in a text is text, and never the symbol.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any, ClassVar, Self

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import models, normalizers, pre_tokenizers, trainers

from longspan.data.tokenizer import Codec, Tokenizer
from longspan.data.units import UnitCodec, texts
from longspan.errors import ConfigError

PAD, UNK, CLS, SEP, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
SYMBOLS = [PAD, UNK, CLS, SEP, MASK]
"""What stands for no text."""

GOES_ON = "##"
LONGEST_WORD = 100
"""Characters; a longer word is unknown, as in BERT."""


class WordPieceCodec(UnitCodec):
    """Ids are places in `vocabulary`; [CLS] is the start symbol.

    Args:
        vocabulary: all pieces, `SYMBOLS` among them.
        lower: texts are read in lower case.
        accents: letters keep their accents; None for unless they are read in lower case.
        characters: each Chinese character is a word.
    """

    kind: ClassVar[str] = "wordpiece"
    unit: ClassVar[str] = "token"
    whole_words: ClassVar[bool] = True

    def __init__(
        self,
        vocabulary: Iterable[str],
        *,
        lower: bool = True,
        accents: bool | None = None,
        characters: bool = True,
    ) -> None:
        self.vocabulary = list(vocabulary)
        self.lower, self.accents, self.characters = lower, accents, characters
        ids = {piece: id for id, piece in enumerate(self.vocabulary)}
        if len(ids) != len(self.vocabulary):
            raise ValueError("a piece stands in the vocabulary twice")
        if missing := [symbol for symbol in SYMBOLS if symbol not in ids]:
            raise ValueError(f"the vocabulary lacks {', '.join(missing)}")
        super().__init__([_bytes(piece) for piece in self.vocabulary], ids[CLS])
        self.closing = ids[SEP]
        self._library = tokenizers.Tokenizer(
            models.WordPiece(ids, unk_token=UNK, max_input_chars_per_word=LONGEST_WORD)
        )
        self._library.normalizer = _normal(lower, accents, characters)
        self._library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()

    def definition(self) -> dict[str, Any]:
        return {
            "vocabulary": self.vocabulary,
            "lower": self.lower,
            "accents": self.accents,
            "characters": self.characters,
        }

    @classmethod
    def restore(cls, definition: Mapping[str, Any]) -> Self:
        return cls(**definition)

    def unit_ids(self, texts: list[str]) -> Iterable[list[int]]:
        return (unit.ids for unit in self._library.encode_batch_fast(texts))

    def source(self, ids: NDArray[Any]) -> NDArray[Any]:
        return np.concatenate([[self.start], ids, [self.closing]]).astype(ids.dtype)

    def located(self, document: bytes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        ids, ends, before = [], [], 0
        for text in texts(document, name=self.kind, words=self.whole_words):
            # where each character ends, in bytes
            places = before + np.cumsum([len(letter.encode()) for letter in text])
            unit = self._library.encode(text)
            ids += unit.ids
            ends += [int(places[end - 1]) for _, end in unit.offsets]
            before = int(places[-1])
        return np.array(ids, np.int64), np.array(ends, np.int64)


@dataclass(frozen=True)
class WordPiece(Tokenizer, name="wordpiece"):
    """Pieces of words, the ones that make the text most likely first.

    Attributes:
        vocab: ids, the five symbols among them. A small text may give fewer, and one of very many
            characters more: each is a piece.
        lower: texts are read in lower case, without accents.
    """

    codec: ClassVar[type[Codec]] = WordPieceCodec

    vocab: int = 8192
    lower: bool = True

    def __post_init__(self) -> None:
        if type(self.vocab) is not int or self.vocab <= len(SYMBOLS):
            raise ConfigError(
                f"data.tokenizer.vocab must be {len(SYMBOLS) + 1} ({', '.join(SYMBOLS)} and a "
                f"piece) or more, not {self.vocab!r}"
            )

    @property
    def expected_size(self) -> int:
        return self.vocab

    def fit(self, documents: Iterable[bytes]) -> WordPieceCodec:
        normal, words = _normal(self.lower, None, True), Counter[str]()
        before = pre_tokenizers.BertPreTokenizer()
        for document in documents:
            for text in texts(document, name=self.name, words=True):
                found = before.pre_tokenize_str(normal.normalize_str(text))
                words.update(word for word, _ in found)
        # named first, or the library takes them in the order of a hash, which differs each time
        begins, goes_on = sorted({*"".join(words)}), sorted({*"".join(w[1:] for w in words)})
        letters = [*begins, *(GOES_ON + letter for letter in goes_on)]
        trainer = trainers.WordPieceTrainer(
            vocab_size=self.vocab, special_tokens=[*SYMBOLS, *letters], show_progress=False
        )
        library = tokenizers.Tokenizer(models.WordPiece({}, unk_token=UNK))
        library.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        repeated = (repeat(word, count) for word, count in sorted(words.items()))
        library.train_from_iterator(chain.from_iterable(repeated), trainer)
        ids = library.get_vocab()
        return WordPieceCodec(sorted(ids, key=ids.__getitem__), lower=self.lower)


def _normal(lower: bool, accents: bool | None, characters: bool) -> normalizers.Normalizer:
    return normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=characters,
        strip_accents=None if accents is None else not accents,
        lowercase=lower,
    )


def _bytes(piece: str) -> bytes:
    if piece in SYMBOLS and piece != UNK:
        return b""
    return (piece[len(GOES_ON) :] if piece.startswith(GOES_ON) else f" {piece}").encode()
