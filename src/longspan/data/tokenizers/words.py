"""Words: the vocabulary of the papers' word-level corpora (Penn Treebank, WikiText).

A line is cut at whitespace, its newline becomes `<eos>`, and a word outside the vocabulary becomes
`<unk>`, as in the evaluation of those corpora, so that perplexities per word can be compared with
the papers'. Ids go by frequency, most frequent first, which is what an adaptive softmax wants.

Decoding gives the corpus' normal form: a space after every word, a newline for every `<eos>`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from longspan.data.tokenizer import Codec, Tokenizer
from longspan.data.units import UnitCodec, texts
from longspan.errors import ConfigError, InputError

EOS = "<eos>"
UNK = "<unk>"


class WordCodec(UnitCodec):
    """Ids are places in `vocabulary`; the start symbol comes after the last.

    Args:
        vocabulary: all words, `<eos>` and `<unk>` among them, most frequent first.
        start: word that precedes every document; None for a symbol of its own, after the last.
    """

    kind: ClassVar[str] = "words"
    unit: ClassVar[str] = "word"
    whole_words: ClassVar[bool] = True

    def __init__(self, vocabulary: Iterable[str], start: str | None = None) -> None:
        self.vocabulary = list(vocabulary)
        self._id = {word: id for id, word in enumerate(self.vocabulary)}
        if len(self._id) != len(self.vocabulary):
            raise ValueError("a word stands in the vocabulary twice")
        self._eos, self._unk = self._id[EOS], self._id[UNK]
        pieces = [b"\n" if w == EOS else f"{w} ".encode() for w in self.vocabulary]
        self.first = start
        if start is None:
            super().__init__([*pieces, b""], len(pieces))
        else:
            super().__init__(pieces, self._id[start])

    def definition(self) -> dict[str, Any]:
        own = {} if self.first is None else {"start": self.first}
        return {"words": self.vocabulary, **own}

    @classmethod
    def restore(cls, definition: Mapping[str, Any]) -> Self:
        return cls(definition["words"], definition.get("start"))

    def unit_ids(self, texts: list[str]) -> Iterator[list[int]]:
        find, unknown = self._id.get, self._unk
        for text in texts:
            ids = [find(word, unknown) for word in text.split()]
            if text.endswith("\n"):
                ids.append(self._eos)
            yield ids

    def prompt(self, text: str) -> NDArray[np.int64]:
        strange = [word for word in dict.fromkeys(text.split()) if word not in self._id]
        if strange:
            named = ", ".join(repr(word) for word in strange[:5])
            more = f" and {len(strange) - 5} more" if len(strange) > 5 else ""
            raise InputError(
                f"the prompt has words outside the vocabulary: {named}{more}; "
                f"write {UNK} in their place"
            )
        return super().prompt(text)


@dataclass(frozen=True)
class Words(Tokenizer, name="words"):
    """Every word of the training text, or the most frequent.

    Attributes:
        limit: ids at most, `<eos>`, `<unk>` and the start symbol among them; None for all words.
    """

    codec: ClassVar[type[Codec]] = WordCodec

    limit: int | None = None

    @property
    def expected_size(self) -> int | None:
        return None

    def __post_init__(self) -> None:
        if self.limit is not None and (type(self.limit) is not int or self.limit < 4):
            raise ConfigError(
                "data.tokenizer.limit must be 4 (a word, <eos>, <unk> and the start symbol) or "
                f"more, or null, not {self.limit!r}"
            )

    def fit(self, documents: Iterable[bytes]) -> WordCodec:
        counts: Counter[str] = Counter()
        for document in documents:
            for text in texts(document, name=self.name, words=True):
                counts.update(text.split())
                counts[EOS] += text.endswith("\n")
        special = Counter({EOS: counts.pop(EOS, 0), UNK: counts.pop(UNK, 0)})
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        kept = len(ranked) if self.limit is None else self.limit - 3
        special[UNK] += sum(counts[word] for word in ranked[kept:])
        counts.update(special)
        words = [*ranked[:kept], EOS, UNK]
        return WordCodec(sorted(words, key=lambda word: (-counts[word], word)))
