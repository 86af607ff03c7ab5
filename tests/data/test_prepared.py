"""Tokenised once, kept, found again, and rebuilt when anything about it is no longer true."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from longspan.data import Codec, Corpus, DataConfig, Splits, prepare
from longspan.data import cache as caching
from longspan.data import prepared as preparing
from longspan.data import progress as showing
from longspan.data import units as cutting
from longspan.data.tokenizers.bpe import BPE
from longspan.data.tokenizers.bytes import Bytes
from longspan.data.tokenizers.ids import Ids
from longspan.data.tokenizers.words import Words
from longspan.errors import DataError

CORPORA = ("train", "valid", "test")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for index in range(40):
        (folder / f"{index}.txt").write_text(f"document {index}\nwords of its own: w{index}\n" * 9)
    return folder


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that were filled, in order."""
    filled: list[Path] = []
    build = preparing._build

    def watched(place: Path, *rest: Any) -> None:
        filled.append(place)
        build(place, *rest)

    monkeypatch.setattr(preparing, "_build", watched)
    return filled


def contents(corpus: Corpus) -> dict[str, bytes]:
    return {
        name: corpus.codec.decode(corpus.document(index)) for index, name in enumerate(corpus.names)
    }


def everything(splits: Splits) -> dict[str, bytes]:
    return {k: v for name in CORPORA for k, v in contents(getattr(splits, name)).items()}


@pytest.mark.parametrize("choice", [Bytes(), BPE(vocab=300)])
def test_every_document_is_in_one_split_and_whole(tree: Path, choice: Bytes | BPE) -> None:
    splits = prepare(DataConfig(path=str(tree), valid=0.2, test=0.1, tokenizer=choice))
    assert everything(splits) == {file.name: file.read_bytes() for file in tree.iterdir()}
    counts = [len(getattr(splits, name).names) for name in CORPORA]
    assert sum(counts) == 40
    assert all(counts)
    for name in CORPORA:
        corpus = getattr(splits, name)
        assert isinstance(corpus.tokens, np.memmap)
        assert not corpus.tokens.flags.writeable
        assert corpus.bytes == sum(map(len, contents(corpus).values()))


def test_the_tokenizer_is_fitted_to_training_alone(tree: Path) -> None:
    splits = prepare(DataConfig(path=str(tree), valid=0.2, tokenizer=Words()))
    known = set(splits.codec.definition()["words"])
    for name in CORPORA:
        for document in getattr(splits, name).names:
            assert (f"w{document.removesuffix('.txt')}" in known) == (name == "train")


def test_the_same_data_is_tokenised_once(tree: Path, builds: list[Path], cache: Path) -> None:
    config = DataConfig(path=str(tree), tokenizer=BPE(vocab=280))
    first, second = prepare(config), prepare(config)
    assert len(builds) == 1
    assert first.hash == second.hash
    assert first.folder == second.folder == cache / f"data-{first.hash[:16]}"
    assert first.codec.fingerprint == second.codec.fingerprint
    assert [f.name for f in cache.iterdir()] == [first.folder.name]


def test_where_the_data_lies_and_where_it_is_kept_make_no_difference(
    tree: Path, tmp_path: Path
) -> None:
    there = tmp_path / "elsewhere"
    tree.rename(there)
    tree.mkdir()
    for file in there.iterdir():
        (tree / file.name).write_bytes(file.read_bytes())
    own = prepare(DataConfig(path=str(there), cache=str(tmp_path / "own")))
    assert own.folder.parent == tmp_path / "own"
    assert own.hash == prepare(DataConfig(path=str(tree))).hash
    assert str(tmp_path) not in (own.folder / "manifest.json").read_text()


@pytest.mark.parametrize(
    "change", ["content", "more", "fewer", "name", "split", "tokenizer", "one"]
)
def test_whatever_changes_is_tokenised_anew(tree: Path, builds: list[Path], change: str) -> None:
    def config(**more: Any) -> DataConfig:
        return DataConfig(**{"path": str(tree), "tokenizer": BPE(vocab=280), **more})

    before = prepare(config())
    more: dict[str, Any] = {}
    file = tree / "7.txt"
    match change:
        case "content":
            file.write_bytes(file.read_bytes().swapcase())  # the same size
        case "more":
            (tree / "new.txt").write_text("new")
        case "fewer":
            file.unlink()
        case "name":
            file.rename(tree / "seven.txt")
        case "split":
            more = {"valid": 0.3}
        case "tokenizer":
            more = {"tokenizer": BPE(vocab=281)}
        case "one":
            more = {"documents": False}
    after = prepare(config(**more))
    assert len(builds) == 2
    assert after.hash != before.hash
    if change in ("content", "more", "fewer", "name"):
        assert everything(after) == {f.name: f.read_bytes() for f in tree.iterdir()}


def test_the_manifest_says_what_was_made_of_what(tree: Path) -> None:
    splits = prepare(DataConfig(path=str(tree), tokenizer=BPE(vocab=300)))
    manifest = json.loads((splits.folder / "manifest.json").read_text())
    assert manifest["format"] == 1
    assert manifest["hash"] == splits.hash
    assert manifest["dtype"] == "uint16"
    assert manifest["tokenizer"]["name"] == "bpe"
    assert (
        manifest["fingerprint"] == splits.codec.fingerprint == Codec.load(splits.folder).fingerprint
    )
    for name in CORPORA:
        corpus, entry = getattr(splits, name), manifest["splits"][name]
        assert entry["tokens"] == len(corpus) == (splits.folder / f"{name}.bin").stat().st_size // 2
        assert entry["bytes"] == corpus.bytes
        for document, offset in zip(entry["documents"], corpus.offsets, strict=True):
            assert document["start"] == offset
            assert document["bytes"] == (tree / document["name"]).stat().st_size
        assert sum(document["tokens"] for document in entry["documents"]) == len(corpus)


@pytest.mark.parametrize(
    "damage", ["cut", "grown", "gone", "manifest", "half", "other", "tokenizer", "emptied"]
)
def test_a_damaged_cache_is_built_anew(
    tree: Path, builds: list[Path], damage: str, caplog: pytest.LogCaptureFixture, cache: Path
) -> None:
    config = DataConfig(path=str(tree), tokenizer=BPE(vocab=280))
    whole = prepare(config)
    want = everything(whole)
    train, manifest = whole.folder / "train.bin", whole.folder / "manifest.json"
    match damage:
        case "cut":
            train.write_bytes(train.read_bytes()[:-2])
        case "grown":
            train.write_bytes(train.read_bytes() + b"xx")
        case "gone":
            train.unlink()
        case "manifest":
            manifest.unlink()
        case "half":
            manifest.write_bytes(manifest.read_bytes()[:200])
        case "other":
            manifest.write_text(manifest.read_text().replace(whole.hash, "0" * 64))
        case "tokenizer":
            (whole.folder / "tokenizer.json").write_text("{}")
        case "emptied":
            for file in whole.folder.iterdir():
                file.unlink()
    with caplog.at_level(logging.WARNING):
        assert everything(prepare(config)) == want
    assert "was damaged" in caplog.text
    assert len(builds) == 2
    assert [f.name for f in cache.iterdir()] == [whole.folder.name]


def test_splits_with_paths_of_their_own_are_left_out_of_training(tree: Path) -> None:
    splits = prepare(DataConfig(path=str(tree), valid=f"{tree}/7.txt", test=f"{tree}/1*.txt"))
    assert splits.valid.names == ("7.txt",)
    assert len(splits.test.names) == 11
    assert len(splits.train.names) == 28
    assert not {"7.txt", "1.txt"} & set(splits.train.names)
    with pytest.raises(DataError, match=r"every document is named by data.valid or data.test"):
        prepare(DataConfig(path=f"{tree}/7.txt", valid=f"{tree}/7.txt"))


def test_an_only_document_is_cut_into_training_validation_and_test(tmp_path: Path) -> None:
    book = tmp_path / "book.txt"
    book.write_bytes(b"".join(b"line %d\n" % i for i in range(1000)))
    size = book.stat().st_size
    for choice in (Bytes(), BPE(vocab=300)):
        splits = prepare(DataConfig(path=str(book), valid=0.1, test=0.1, tokenizer=choice))
        parts = [b"".join(contents(getattr(splits, name)).values()) for name in CORPORA]
        assert b"".join(parts) == book.read_bytes()
        assert all(part.startswith(b"line") for part in parts)
        assert [round(len(part) / size, 2) for part in parts] == [0.8, 0.1, 0.1]
        (name,) = splits.valid.names
        assert name == f"book.txt[{len(parts[0])}:{len(parts[0]) + len(parts[1])}]"
    whole = prepare(DataConfig(path=str(book), valid=0, test=0))
    assert whole.train.names == ("book.txt",)
    assert (len(whole.valid), len(whole.test)) == (0, 0)


def test_all_of_a_split_as_one_stream(tree: Path) -> None:
    splits = prepare(DataConfig(path=str(tree), documents=False))
    for name in CORPORA:
        corpus = getattr(splits, name)
        assert corpus.offsets.tolist() == [0]
        assert np.flatnonzero(corpus.tokens == corpus.codec.start).tolist() == [0]
    assert sum(getattr(splits, name).bytes for name in CORPORA) == sum(
        f.stat().st_size for f in tree.iterdir()
    )


def test_an_empty_document_among_others_is_a_document(tree: Path) -> None:
    (tree / "nil.txt").touch()
    assert everything(prepare(DataConfig(path=str(tree))))["nil.txt"] == b""


def test_the_tokenizer_of_another_run_can_be_used(tree: Path, builds: list[Path]) -> None:
    codec = BPE(vocab=270).fit([b"of its own " * 50])
    config = DataConfig(path=str(tree), tokenizer=BPE(vocab=300))
    splits = prepare(config, codec)
    assert splits.codec.fingerprint == codec.fingerprint
    assert prepare(config).codec.fingerprint != codec.fingerprint
    prepare(config, codec)
    assert len(builds) == 2


def test_what_can_be_read_once_is_kept_until_it_is_tokenised(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    content = b"".join(b"piped line %d\n" % i for i in range(500))

    def piped() -> Splits:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        return prepare(DataConfig(path="-", tokenizer=BPE(vocab=280)))

    splits = piped()
    assert b"".join(everything(splits).values()) == content
    assert piped().hash == splits.hash
    other = tmp_path / "stdin"
    other.write_bytes(content)
    assert prepare(DataConfig(path=str(other), tokenizer=BPE(vocab=280))).hash == splits.hash


def test_a_file_that_changes_under_our_hands_is_noticed(
    tree: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    def late(config: DataConfig, codec: Codec | None, plan: Any) -> str:
        for file in tree.iterdir():
            file.write_text("other")
        return "0" * 64

    monkeypatch.setattr(preparing, "_hash", late)
    with pytest.raises(DataError, match=r"\.txt: changed while it was read; start again"):
        prepare(DataConfig(path=str(tree)))
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("choice", [BPE(), Words()])
def test_a_file_that_is_no_text_is_named_with_its_byte(
    tree: Path, choice: BPE | Words, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    monkeypatch.setattr(cutting, "PIECE", 64)  # as if the file were large
    (tree / "odd.txt").write_bytes(b"fine\n" * 100 + b"\xff")
    for valid in (f"{tree}/1.txt", f"{tree}/odd.txt"):
        with pytest.raises(DataError, match=r"odd.txt: byte 500 \(0xff\) is not UTF-8"):
            prepare(DataConfig(path=str(tree), valid=valid, test=0, tokenizer=choice))
    assert list(cache.iterdir()) == []


def test_a_file_that_the_tokenizer_cannot_read_is_named(tree: Path) -> None:
    for file in tree.iterdir():
        file.write_text("17 4 99\n")
    assert prepare(DataConfig(path=str(tree), tokenizer=Ids())).codec.size > 99
    (tree / "odd.txt").write_text("17 four\n")
    for valid in (f"{tree}/1.txt", f"{tree}/odd.txt"):
        with pytest.raises(DataError, match=r"odd.txt: 'four' is no "):
            prepare(DataConfig(path=str(tree), valid=valid, test=0, tokenizer=Ids()))


def test_fitting_in_pieces_is_fitting_at_once(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = DataConfig(path=str(tree), tokenizer=BPE(vocab=300))
    whole = prepare(config)
    monkeypatch.setattr(cutting, "PIECE", 50)
    monkeypatch.setenv("LONGSPAN_CACHE", str(tree / ".again"))
    again = prepare(config)
    assert again.folder != whole.folder
    assert again.codec.fingerprint == whole.codec.fingerprint


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("corpu", r"there is no such file or folder, did you mean '.*corpus'\?"),
        ("nil", "the file is empty"),
        ("nils", "nils: every document is empty"),
        ("corpus/*.md", "no file matches"),
    ],
)
def test_no_data_is_said(tree: Path, path: str, message: str) -> None:
    (tree.parent / "nil").touch()
    (tree.parent / "nils").mkdir()
    (tree.parent / "nils" / "a").touch()
    with pytest.raises(DataError, match=message):
        prepare(DataConfig(path=f"{tree.parent}/{path}"))


def test_a_cache_that_cannot_be_written_says_so(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match=r"cannot be written .*set data.cache or LONGSPAN_CACHE"):
        prepare(DataConfig(path=str(tree), cache=str(tree / "1.txt")))

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(caching, "_flush", full)
    cache = tree.parent / "full"
    with pytest.raises(DataError, match=r"cannot be written \(No space left on device\)"):
        prepare(DataConfig(path=str(tree), cache=str(cache)))
    assert list(cache.iterdir()) == []


def test_both_can_be_built_where_there_are_no_locks(
    tree: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    monkeypatch.setattr(caching, "fcntl", None)
    build = preparing._build
    inner: list[Splits] = []

    def overtaken(place: Path, *rest: Any) -> None:
        build(place, *rest)
        if not inner:  # while this one builds, another builds and finishes
            inner.append(None)  # type: ignore[arg-type]
            inner[0] = prepare(DataConfig(path=str(tree)))

    monkeypatch.setattr(preparing, "_build", overtaken)
    outer = prepare(DataConfig(path=str(tree)))
    assert everything(outer) == everything(inner[0])
    assert [f.name for f in cache.iterdir() if "lock" not in f.name] == [outer.folder.name]


def test_a_bar_is_drawn_when_it_takes_long_and_somebody_looks(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for patience, terminal, drawn in [(-1.0, True, True), (1e9, True, False), (-1.0, False, False)]:
        stream = Terminal() if terminal else io.StringIO()
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setattr(showing, "PATIENCE", patience)
        with showing.progress("tokenising", 1000) as advance:
            advance(500)
            advance(500)
        assert ("tokenising" in stream.getvalue()) == drawn


def test_words_and_bytes_of_the_manifest_are_the_corpus(tree: Path) -> None:
    # the files themselves, read by hand: little-endian two-byte ids, documents one after the other
    splits = prepare(DataConfig(path=str(tree), valid=0, test=0))
    raw = (splits.folder / "train.bin").read_bytes()
    ids = [raw[i] + 256 * raw[i + 1] for i in range(0, len(raw), 2)]
    want = [i for name in splits.train.names for i in (256, *(tree / name).read_bytes())]
    assert ids == want
    assert (
        hashlib.sha256((splits.folder / "valid.bin").read_bytes()).digest()
        == hashlib.sha256().digest()
    )
