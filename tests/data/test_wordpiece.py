"""WordPiece: the ids and places that another library gives, and a vocabulary that is learnt."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from longspan.data.tokenizer import Codec
from longspan.data.tokenizers.wordpiece import SYMBOLS, WordPiece, WordPieceCodec
from longspan.errors import ConfigError, DataError

SAMPLE = "The cat sat, naïve as cats are; 汉字 and Étages!\nThe dog sat on the cat's mat. " * 30
SETTINGS: dict[str, dict[str, Any]] = {
    "lower": {},
    "as it is": {"lower": False},
    "lower, with accents": {"accents": True},
    "as it is, without accents": {"lower": False, "accents": False},
    "Chinese words": {"characters": False},
}
every = pytest.mark.parametrize("name", SETTINGS)

# what the normal form takes out or apart, beside words that are known, half known and too long
text = st.lists(
    st.one_of(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
        st.sampled_from(
            ["The cat", "cats", "Étages", "汉字", "\n", "\r\n", "\x00", "\u00a0", "e\u0301", "İ",
             "ﬁ", "x" * 120, "##s", "🙂", "\u200b", "\ufffd", "\t", "..."]
        ),
    ),
    max_size=8,
).map("".join)  # fmt: skip


@cache
def learnt(lower: bool = True) -> WordPieceCodec:
    return WordPiece(vocab=200, lower=lower).fit([SAMPLE.encode()])


@cache
def codec(name: str) -> WordPieceCodec:
    own = SETTINGS[name]
    return WordPieceCodec(learnt(own.get("lower", True)).vocabulary, **own)


@cache
def peer(name: str) -> Any:
    transformers = pytest.importorskip("transformers", reason="the peer is in the extra 'dev'")
    mine = codec(name)
    return transformers.BertTokenizerFast(
        vocab={piece: id for id, piece in enumerate(mine.vocabulary)},
        do_lower_case=mine.lower,
        strip_accents=None if mine.accents is None else not mine.accents,
        tokenize_chinese_chars=mine.characters,
    )


@every
@settings(deadline=None, max_examples=60)
@given(content=text)
@example(SAMPLE)
@example("")
def test_ids_and_places_are_those_of_the_peer(name: str, content: str) -> None:
    assume(not any(symbol in content for symbol in SYMBOLS))  # theirs takes them from a text, too
    mine, theirs = codec(name), peer(name)
    told = theirs(content, add_special_tokens=False, return_offsets_mapping=True)
    ids, ends = mine.located(content.encode())
    assert ids.tolist() == told["input_ids"] == mine.encode(content.encode()).tolist()
    assert ends.tolist() == [len(content[:end].encode()) for _, end in told["offset_mapping"]]


def test_the_settings_are_not_all_one() -> None:
    told = {tuple(codec(name).encode("Étages, the 汉字".encode()).tolist()) for name in SETTINGS}
    assert len(told) >= 4


def test_a_source_stands_between_the_symbols_of_the_peer() -> None:
    mine, theirs = codec("lower"), peer("lower")
    assert mine.source(mine.encode(b"The cat")).tolist() == theirs("The cat")["input_ids"]
    assert (mine.start, mine.closing) == (theirs.cls_token_id, theirs.sep_token_id)


def test_the_name_of_a_symbol_in_a_text_is_text() -> None:
    made = codec("lower")
    assert not {made.start, made.closing} & {*made.encode(b"[CLS] a [SEP]").tolist()}


def test_the_longest_piece_that_is_known_comes_first() -> None:
    pieces = [*SYMBOLS, "un", "unaff", "##aff", "##able", "##a", "a"]
    made = WordPieceCodec(pieces)
    read = [pieces[id] for id in made.encode(b"Unaffable, una unx").tolist()]
    assert read == ["unaff", "##able", "[UNK]", "un", "##a", "[UNK]"]
    assert made.decode(made.encode(b"UNAFFABLE a")) == b" unaffable a"


def test_a_long_line_has_places_too() -> None:
    content = ("Köln cat " * 5000).encode()
    made = codec("lower")
    ids, ends = made.located(content)
    assert ids.tolist() == made.encode(content).tolist()
    assert (ends[1:] >= ends[:-1]).all()
    assert ends[-1] == len(content) - 1
    cats = [content[end - 3 : end] for id, end in zip(ids, ends, strict=True)
            if made.vocabulary[id] == "cat"]  # fmt: skip
    assert cats == [b"cat"] * 5000


def test_a_vocabulary_is_learnt_is_the_same_again_and_is_kept(tmp_path: Path) -> None:
    made = learnt()
    assert 50 < made.size <= 200
    assert made.vocabulary[: len(SYMBOLS)] == SYMBOLS
    assert "cat" in made.vocabulary
    assert len(made.encode(b"the cat sat")) == 3
    assert "[UNK]" not in {made.vocabulary[id] for id in made.encode(SAMPLE.encode())}
    again = WordPiece(vocab=200).fit([SAMPLE.encode()])
    assert again.fingerprint == made.fingerprint
    made.save(tmp_path)
    restored = Codec.load(tmp_path)
    assert isinstance(restored, WordPieceCodec)
    assert restored.fingerprint == made.fingerprint
    assert restored.encode(SAMPLE.encode()).tolist() == made.encode(SAMPLE.encode()).tolist()
    assert learnt(lower=False).fingerprint != made.fingerprint


@pytest.mark.parametrize("vocab", [5, 0, 7.5, True])
def test_a_vocabulary_holds_more_than_the_symbols(vocab: Any) -> None:
    with pytest.raises(ConfigError, match=r"^data\.tokenizer\.vocab must be 6 .* or more, not"):
        WordPiece(vocab=vocab)


def test_what_is_no_vocabulary_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        WordPieceCodec([*SYMBOLS, "a", "a"])
    with pytest.raises(ValueError, match=r"lacks \[CLS\], \[MASK\]"):
        WordPieceCodec(["[PAD]", "[UNK]", "[SEP]", "a"])
    with pytest.raises(DataError, match=r"byte 1 \(0xff\) is not UTF-8.*'wordpiece'"):
        learnt().located(b"a\xff")
