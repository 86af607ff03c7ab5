"""Documents as token ids: where each begins, and what it stands for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longspan.data import Codec, Corpus, read
from longspan.data.tokenizers.bpe import BPE
from longspan.data.tokenizers.bytes import Bytes
from longspan.data.tokenizers.words import Words
from longspan.errors import DataError

BYTES = Bytes().fit([])


@given(contents=st.lists(st.binary(max_size=20), min_size=1, max_size=5).filter(any))
def test_every_document_is_its_start_symbol_and_its_ids(contents: list[bytes]) -> None:
    corpus = Corpus.of(contents, BYTES)
    assert len(corpus) == sum(map(len, contents)) + len(contents)
    assert corpus.bytes == sum(map(len, contents))
    assert corpus.document_bytes.tolist() == [len(content) for content in contents]
    assert corpus.names == tuple(map(str, range(len(contents))))
    for index, content in enumerate(contents):
        assert corpus.document(index).tolist() == [256, *content]
        assert corpus.tokens[corpus.offsets[index]] == 256


@given(contents=st.lists(st.binary(max_size=20), min_size=1, max_size=5).filter(any))
def test_one_stream_has_one_start_symbol(contents: list[bytes]) -> None:
    corpus = Corpus.of(contents, BYTES, documents=False)
    assert corpus.tokens.tolist() == [256, *b"".join(contents)]
    assert corpus.offsets.tolist() == [0]
    assert corpus.bytes == sum(map(len, contents))


def test_a_stream_is_named_after_its_first_and_last_document() -> None:
    named = [("a", b"1"), ("b", b"2"), ("c", b"3")]
    assert Corpus.of(named, BYTES, documents=False).names == ("a … c",)
    assert Corpus.of(named[:1], BYTES, documents=False).names == ("a",)
    assert Corpus.of(named, BYTES).names == ("a", "b", "c")


def test_ids_take_two_bytes_while_they_fit() -> None:
    class Large(Codec):
        size = 1 << 16

        def __init__(self) -> None:
            self.start = 0

        def blocks(self, document: bytes, start: int = 0, stop: int | None = None):
            yield np.array([self.size - 1])

    corpus = Corpus.of([b"x"], Large())
    assert (corpus.tokens.dtype, corpus.tokens.tolist()) == (np.uint16, [0, 65535])
    Large.size += 1
    corpus = Corpus.of([b"x"], Large())
    assert (corpus.tokens.dtype, corpus.tokens.tolist()) == (np.uint32, [0, 65536])


def test_tokens_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="read-only"):
        Corpus.of([b"x"], BYTES).tokens[0] = 1


def test_a_path_is_read_whole_and_unsplit(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).write_bytes(name.encode() * 3)
    corpus = read(str(tmp_path), BYTES)
    assert corpus.names == ("a", "b", "c")
    assert corpus.document(1).tolist() == [256, *b"bbb"]
    assert read(str(tmp_path), BYTES, documents=False).tokens.tolist() == [256, *b"aaabbbccc"]
    assert read((f"{tmp_path}/c", f"{tmp_path}/a"), BYTES).names == ("c", "a")


def test_nothing_to_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "nil").touch()
    with pytest.raises(DataError, match="every document is empty"):
        read(str(tmp_path), BYTES)
    with pytest.raises(DataError, match="every document is empty"):
        Corpus.of([b"", b""], BYTES)
    with pytest.raises(DataError, match="there is nothing to read"):
        Corpus.of([], BYTES)


@pytest.mark.parametrize("choice", [BPE(vocab=300), Words()])
def test_a_file_that_is_no_text_is_named(tmp_path: Path, choice: BPE | Words) -> None:
    (tmp_path / "good").write_bytes(b"good\n")
    (tmp_path / "odd").write_bytes(b"ab\xfe")
    codec = choice.fit([b"good\n"])
    with pytest.raises(DataError, match=r"odd: byte 2 \(0xfe\) is not UTF-8"):
        read(str(tmp_path), codec)
    with pytest.raises(DataError, match=r"^odd: byte 2 "):
        Corpus.of([("odd", b"ab\xfe")], codec)


def test_data_is_imported_without_torch() -> None:
    code = (
        "import sys, longspan.data as data; assert 'torch' not in sys.modules; "
        "data.Lanes; assert 'torch' in sys.modules; assert set(data.__all__) <= set(dir(data))"
        " | {'Batch', 'Lanes'}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
