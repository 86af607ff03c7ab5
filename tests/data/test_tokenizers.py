"""Bytes in, ids out, and back: whatever the bytes, and wherever a stream of them is cut."""

from __future__ import annotations

import json
from collections import Counter
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from longspan.data import units as cutting
from longspan.data.tokenizer import FILE, Codec, Tokenizer
from longspan.data.tokenizers.bpe import BPE
from longspan.data.tokenizers.bytes import Bytes
from longspan.data.tokenizers.wordpiece import WordPiece
from longspan.data.tokenizers.words import EOS, UNK, Words
from longspan.data.units import LONGEST, units
from longspan.errors import CheckpointError, ConfigError, DataError, InputError

SAMPLE = (
    "the cat sat on the mat \n the dog sat on the cat \n\n"
    "    def étage(self):\r\n        return self.étage  # 🙂🙂 naïve\x00\n" * 20
).encode()

NAMES = ["bytes", "bpe", "words", "wordpiece"]


@cache
def fitted(name: str) -> Codec:
    choices: dict[str, Tokenizer] = {
        "bytes": Bytes(),
        "bpe": BPE(vocab=400),
        "words": Words(),
        "wordpiece": WordPiece(vocab=200),
    }
    return choices[name].fit([SAMPLE])


# lines long and short, every kind of end, characters of one to four bytes, runs beyond a unit
text = st.lists(
    st.one_of(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
        st.sampled_from(["\n", "\r\n", "\x00", " ", "\t", "🙂", "the cat ", "é" * 30, "  \n\n  "]),
        st.builds(
            lambda piece, count: piece * count,
            st.sampled_from(["a", "é", "汉", "🙂", "ab ", " "]),
            st.integers(LONGEST // 4 - 3, LONGEST + 5),
        ),
    ),
    max_size=6,
).map(lambda parts: "".join(parts).encode())


@pytest.mark.parametrize("name", ["bytes", "bpe"])
@settings(deadline=None)
@given(content=text)
@example(b"")
@example(b"a" * LONGEST + b"\n")
@example("🙂".encode() * LONGEST)
def test_decoding_gives_back_every_byte(name: str, content: bytes) -> None:
    codec = fitted(name)
    ids = codec.encode(content)
    assert ids.dtype == np.int64
    assert codec.decode(ids) == content
    assert b"".join(codec.piece(int(i)) for i in ids) == content
    assert codec.start not in ids


@given(content=st.binary(max_size=300))
def test_bytes_need_no_text(content: bytes) -> None:
    codec = fitted("bytes")
    assert codec.encode(content).tolist() == list(content)
    assert codec.decode(codec.encode(content)) == content


@given(content=text)
def test_words_have_a_normal_form_which_decoding_gives_and_encoding_keeps(content: bytes) -> None:
    codec = Words().fit([content])
    normal = codec.decode(codec.encode(content))
    assert codec.decode(codec.encode(normal)) == normal
    if max((len(word) for word in content.decode().split()), default=0) * 4 < LONGEST:
        assert normal.decode().split() == content.decode().split()
        assert normal.count(b"\n") == content.count(b"\n")


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None)
@given(content=text, cuts=st.lists(st.floats(0, 1), max_size=8))
@example(("é" * LONGEST).encode(), [0.1, 0.24999, 0.25, 0.3, 0.9])
def test_a_stream_gives_the_same_ids_wherever_it_is_cut(
    name: str, content: bytes, cuts: list[float]
) -> None:
    codec = fitted(name)
    places = [0, *sorted(round(cut * len(content)) for cut in cuts), len(content)]
    ids: list[int] = []
    pending = b""
    for begin, end in pairwise(places):
        more, pending = codec.feed(pending, content[begin:end], False)
        ids += more
        assert len(pending) < LONGEST  # whoever feeds holds little
    more, pending = codec.feed(pending, b"", True)
    assert pending == b""
    assert ids + more == codec.encode(content).tolist()


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=40)
@given(contents=st.lists(text, max_size=5))
@example([b"", b"a b", b"", b"x" * 120, b"c\nd"])
def test_many_documents_together_are_each_by_itself(name: str, contents: list[bytes]) -> None:
    codec = fitted(name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cutting, "BLOCK", 50)
        together = list(codec.each(iter(contents)))
    assert [ids.tolist() for ids in together] == [codec.encode(c).tolist() for c in contents]
    assert all(ids.dtype == np.int64 for ids in together)


def test_the_document_at_fault_comes_after_all_before_it() -> None:
    ids = fitted("bpe").each([b"a", b"b", b"\xff", b"c"])
    assert [next(ids).tolist(), next(ids).tolist()] == [[97], [98]]
    with pytest.raises(DataError, match=r"byte 0 \(0xff\) is not UTF-8"):
        next(ids)


@pytest.mark.parametrize("name", NAMES)
def test_a_stream_of_single_bytes(name: str) -> None:
    codec = fitted(name)
    content = SAMPLE[:500] + "🙂".encode() * (LONGEST // 4 + 1) + b"x\ny"
    ids: list[int] = []
    pending = b""
    for index in range(len(content)):
        more, pending = codec.feed(pending, content[index : index + 1], False)
        ids += more
    more, _ = codec.feed(pending, b"", True)
    assert ids + more == codec.encode(content).tolist()


def test_a_line_is_encoded_when_its_newline_has_come() -> None:
    codec = fitted("bpe")
    ids, pending = codec.feed(b"the c", b"at\nthe", False)
    assert codec.decode(ids) == b"the cat\n"
    assert pending == b"the"


@pytest.mark.parametrize("name", NAMES)
def test_a_large_document_is_encoded_block_by_block(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = fitted(name)
    want = codec.encode(SAMPLE).tolist()
    monkeypatch.setattr("longspan.data.units.BLOCK", 200)
    monkeypatch.setattr("longspan.data.tokenizers.bytes.BLOCK", 200)
    blocks = [block.tolist() for block in codec.blocks(SAMPLE)]
    assert len(blocks) > 5
    assert max(map(len, blocks)) < 400
    assert [id for block in blocks for id in block] == want == codec.encode(SAMPLE).tolist()
    line = SAMPLE.index(b"\n") + 1
    part = [id for block in codec.blocks(SAMPLE, line, line + 300) for id in block]
    assert part == codec.encode(SAMPLE[line : line + 300]).tolist()


@given(content=text, words=st.booleans())
def test_units_are_lines_or_full_and_never_split_a_character(content: bytes, words: bool) -> None:
    spans = list(units(content, 0, len(content), final=True, words=words))
    assert b"".join(content[a:b] for a, b in spans) == content
    for a, b in spans:
        unit = content[a:b]
        unit.decode()
        assert 0 < len(unit) <= LONGEST
        assert b"\n" not in unit[:-1]
        full = len(unit) > LONGEST - 4 or (words and unit.endswith((b" ", b"\t")))
        assert unit.endswith(b"\n") or b == len(content) or full


def test_words_of_a_long_line_stay_whole() -> None:
    content = b"word " * 10_000
    codec = Words().fit([content])
    assert len(codec.encode(content)) == 10_000
    assert codec.size == 4  # word, <eos>, <unk> and the start symbol


@pytest.mark.parametrize("name", ["bpe", "words"])
def test_what_is_no_text_is_refused_with_the_byte_and_the_repair(name: str) -> None:
    content = b"x" * (LONGEST + 10) + b"\nabc\xffdef\n"
    message = rf"byte {LONGEST + 14} \(0xff\) is not UTF-8.*'{name}'.*use tokenizer 'bytes'"
    with pytest.raises(DataError, match=message):
        fitted(name).encode(content)
    with pytest.raises(DataError, match=message):
        (BPE() if name == "bpe" else Words()).fit([b"fine\n", content])
    with pytest.raises(DataError, match=r"byte 1 "):
        fitted(name).feed(b"a", b"\xff\n", False)
    with pytest.raises(DataError, match="not UTF-8"):  # a line without end and without characters
        fitted(name).encode(b"\x80" * (LONGEST * 2))


def test_the_start_symbol_is_an_id_of_its_own_and_stands_for_no_bytes() -> None:
    for name in NAMES:
        codec = fitted(name)
        assert codec.piece(codec.start) == b""
        assert codec.decode([codec.start]) == b""
        assert 0 <= codec.start < codec.size
    assert (fitted("bytes").start, fitted("bytes").size) == (256, 257)
    assert [fitted(name).unit for name in NAMES] == ["byte", "token", "word", "token"]


@pytest.mark.parametrize("name", NAMES)
def test_an_id_outside_the_vocabulary_is_refused(name: str) -> None:
    codec = fitted(name)
    for wrong in (-1, codec.size):
        with pytest.raises(InputError, match=rf"token {wrong} is outside .* {codec.size} tokens"):
            codec.piece(wrong)
        with pytest.raises(InputError, match=rf"token {wrong} "):
            codec.decode([0, wrong])


def test_bpe_merges_what_is_frequent_up_to_its_size() -> None:
    codec = fitted("bpe")
    assert codec.size <= 400
    assert len(codec.encode(SAMPLE)) < len(SAMPLE) / 2
    assert b" the" in {codec.piece(i) for i in range(codec.size)}
    assert BPE(vocab=257).fit([SAMPLE]).encode(b"the").tolist() == list(b"the")
    assert BPE(vocab=300).fit([SAMPLE]).size == 300


def test_bpe_is_that_of_the_library() -> None:
    # an encoder of our own, from the same merges: the rule of the paper on a single word
    codec = fitted("bpe")
    ids = {codec.piece(i): i for i in range(codec.size) if codec.piece(i)}
    order = {tuple(pair): rank for rank, pair in enumerate(codec.definition()["merges"])}
    for word in (b" the", b" self", b" return", b" catthe", "étage".encode()):
        parts = [word[i : i + 1] for i in range(len(word))]
        while True:
            pairs = [(ids[a], ids[b]) for a, b in pairwise(parts)]
            known = [pair for pair in pairs if pair in order]
            if not known:
                break
            at = pairs.index(min(known, key=order.__getitem__))
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        assert codec.encode(word).tolist() == [ids[part] for part in parts]


def test_fitting_twice_gives_the_same_codec() -> None:
    for choice in (BPE(vocab=350), Words(), Words(limit=6)):
        assert choice.fit([SAMPLE]).fingerprint == choice.fit(iter([SAMPLE])).fingerprint
    assert BPE(vocab=290).fit([SAMPLE]).fingerprint != fitted("bpe").fingerprint


@pytest.mark.parametrize("choice", [Bytes(), BPE(), Words()])
@pytest.mark.parametrize("documents", [[], [b""], [b"", b"\n"], [b"a"]])
def test_little_or_nothing_to_fit(choice: Tokenizer, documents: list[bytes]) -> None:
    codec = choice.fit(documents)
    assert codec.encode(b"").tolist() == []
    assert len(codec.encode(b"ab\n")) > 0
    assert codec.feed(b"", b"", True) == ([], b"")


def test_words_go_by_frequency_and_end_a_line_with_eos() -> None:
    codec = Words().fit([b" b b b a a \n b a c \n"])
    pieces = [codec.piece(i) for i in range(codec.size)]
    assert pieces == [b"b ", b"a ", b"\n", b"c ", b"<unk> ", b""]
    assert codec.encode(b"a  x\tb\n\n").tolist() == [1, 4, 0, 2, 2]  # x is unknown
    assert codec.decode(codec.encode(b"  a x\r\n")) == b"a <unk> \n"


def test_the_most_frequent_words_are_kept_and_the_others_counted_as_unknown() -> None:
    content = b"a a a a b b b c c d d\n"
    codec = Words(limit=5).fit([content])
    assert codec.size == 5
    # c and d make <unk> the most frequent but a: an adaptive softmax wants that order
    assert [codec.piece(i) for i in range(5)] == [b"<unk> ", b"a ", b"b ", b"\n", b""]
    assert Counter(codec.encode(content).tolist())[0] == 4


def test_a_corpus_that_says_unk_itself_keeps_its_size() -> None:
    content = b"a <unk> b <unk> \n"
    codec = Words().fit([content])
    assert codec.definition()["words"] == [UNK, EOS, "a", "b"]
    assert codec.encode(b"nobody knows").tolist() == [0, 0]


def test_a_prompt_with_unknown_words_is_refused_by_name() -> None:
    codec = fitted("words")
    assert codec.decode(codec.prompt("the cat")) == b"the cat "
    with pytest.raises(InputError, match=r"outside the vocabulary: 'kitten', 'purrs'; write <unk>"):
        codec.prompt("the kitten purrs kitten")
    with pytest.raises(InputError, match="and 2 more"):
        codec.prompt("q w e r t z u")


@pytest.mark.parametrize(
    ("name", "prompt", "gap"),
    [
        ("words", "the cat", b" "),
        ("words", "the cat ", b""),
        ("words", "the cat\n", b""),
        ("words", "", b""),
        ("bytes", "the cat", b""),
        ("bytes", "the\tcat\t", b""),
        ("bpe", "the cat", b""),
        ("bpe", "the cat ", b""),
    ],
)
def test_a_word_that_is_given_is_set_apart_from_what_follows(
    name: str, prompt: str, gap: bytes
) -> None:
    assert fitted(name).gap(prompt) == gap


def test_a_prompt_that_is_no_text() -> None:
    # what a terminal hands on of a byte that it cannot decode
    assert fitted("bytes").prompt("a\udcff").tolist() == [97, 255]
    with pytest.raises(InputError, match="not valid text"):
        fitted("bpe").prompt("a\udcff")
    with pytest.raises(InputError, match="not valid text"):
        fitted("bytes").prompt("a\ud800")
    with pytest.raises(InputError, match="not valid text"):
        fitted("bytes").gap("a\ud800")


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_codec_is_the_same(name: str, tmp_path: Path) -> None:
    codec = fitted(name)
    codec.save(tmp_path)
    again = Codec.load(tmp_path)
    assert type(again) is type(codec)
    assert again.fingerprint == codec.fingerprint
    assert (again.size, again.start, again.unit) == (codec.size, codec.start, codec.unit)
    assert again.encode(SAMPLE).tolist() == codec.encode(SAMPLE).tolist()
    assert [f.name for f in tmp_path.iterdir()] == [FILE]


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_tokenizer_file_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"tokenizer.json: there is no such"):
        Codec.load(tmp_path)
    fitted(name).save(tmp_path)
    file = tmp_path / FILE
    whole = file.read_text("utf-8")
    for damaged in (whole[: len(whole) // 2], "", "[]", "{}", "\x00" * 9, whole.replace("1", "2")):
        file.write_text(damaged, "utf-8")
        with pytest.raises(CheckpointError, match=r"tokenizer.json: the tokenizer file is damaged"):
            Codec.load(tmp_path)
    content = json.loads(whole)
    file.write_text(json.dumps(content | {"kind": "byte"}), "utf-8")
    with pytest.raises(CheckpointError, match=r"tokenizer.json"):
        Codec.load(tmp_path)


def test_a_codec_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="could not be written"):
        fitted("bytes").save(tmp_path / "missing")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BPE(vocab=256), r"data.tokenizer.vocab must be 257 .* not 256"),
        (lambda: BPE(vocab=1e4), r"data.tokenizer.vocab must .* not 10000.0"),  # type: ignore
        (lambda: Words(limit=3), r"data.tokenizer.limit must be 4 .* not 3"),
        (lambda: Words(limit=True), r"data.tokenizer.limit must be 4 .* not True"),
        (lambda: Tokenizer.find("bpes"), r"unknown tokenizer 'bpes', did you mean 'bpe'\?"),
    ],
)
def test_a_choice_that_cannot_be_is_refused(make, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()
