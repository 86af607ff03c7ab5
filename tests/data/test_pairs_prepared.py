"""Pairs are tokenised once, whole, and split so that nothing of an evaluation is trained on."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from longspan.data.pairs import prepared as preparing
from longspan.data.pairs.config import PairsConfig
from longspan.data.pairs.corpus import Pairs, read
from longspan.data.pairs.prepared import PairSplits, prepare
from longspan.data.tokenizers.bpe import BPE
from longspan.data.tokenizers.bytes import Bytes
from longspan.data.tokenizers.ids import Ids
from longspan.data.tokenizers.words import Words
from longspan.errors import DataError

SPLITS = ("train", "valid", "test")
RECORDS = [(f"Quelle {i} ist w{i}", f"target {i} is v{i}" * (i % 3 + 1)) for i in range(60)]
SMALL = BPE(vocab=300)


def write(path: Path, records: Iterable[tuple[str, Any]]) -> Path:
    lines = (json.dumps({"source": source, "target": target}) for source, target in records)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "all.jsonl", RECORDS)


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


def texts(pairs: Pairs) -> list[tuple[str, str]]:
    decode = pairs.codec.decode
    return [
        (decode(pairs.source(i)).decode(), decode(pairs.target(i)).decode())
        for i in range(len(pairs))
    ]


def everything(splits: PairSplits) -> list[tuple[str, str]]:
    return sorted(pair for name in SPLITS for pair in texts(getattr(splits, name)))


@pytest.mark.parametrize("choice", [SMALL, Bytes()])
def test_every_record_is_in_one_split_and_whole(file: Path, choice: BPE | Bytes) -> None:
    splits = prepare(PairsConfig(path=str(file), valid=0.2, test=0.1, tokenizer=choice))
    assert everything(splits) == sorted(RECORDS)
    assert all(len(getattr(splits, name)) for name in SPLITS)
    for pairs in (splits.train, splits.valid, splits.test):
        assert isinstance(pairs.tokens, np.memmap)
        assert pairs.tokens.dtype == np.uint16
        assert pairs.codec.start not in pairs.tokens
        for i, (source, target) in enumerate(texts(pairs)):
            assert RECORDS[pairs.numbers[i] - 1] == (source, target)
            assert pairs.name(i) == f"{file} line {pairs.numbers[i]}"
            assert pairs.source(i).tolist() == pairs.codec.encode(source.encode()).tolist()
            assert pairs.lengths[i].tolist() == [len(pairs.source(i)), len(pairs.target(i))]
    assert splits.train.references is None
    assert splits.valid.references == tuple((target,) for _, target in texts(splits.valid))


def test_the_tokenizer_is_fitted_to_both_sides_of_training_alone(file: Path) -> None:
    splits = prepare(PairsConfig(path=str(file), valid=0.2, tokenizer=Words()))
    known = set(splits.codec.definition()["words"])
    for name in SPLITS:
        pairs = getattr(splits, name)
        for number in pairs.numbers - 1:
            assert (f"w{number}" in known) == (name == "train")
            assert (str(number) in known) == (name == "train")
    assert {"Quelle", "target"} <= known


def test_records_of_one_source_are_in_one_split(tmp_path: Path) -> None:
    """Else a question of the test might be learnt with another answer."""
    records = [(f"question {i % 20}", f"answer {i}") for i in range(200)]
    splits = prepare(PairsConfig(path=str(write(tmp_path / "a.jsonl", records)), valid=0.3))
    sources = [{source for source, _ in texts(getattr(splits, name))} for name in SPLITS]
    assert all(sources)
    assert sum(map(len, sources)) == len(set.union(*sources)) == 20


def test_a_record_stays_in_its_split_when_others_come(tmp_path: Path) -> None:
    before = prepare(PairsConfig(path=str(write(tmp_path / "a.jsonl", RECORDS)), valid=0.2))
    more = [("new", "new"), *RECORDS, ("newer", "newer")]
    after = prepare(PairsConfig(path=str(write(tmp_path / "b.jsonl", more)), valid=0.2))
    for name in SPLITS:
        assert set(texts(getattr(before, name))) <= set(texts(getattr(after, name)))


def test_splits_with_paths_of_their_own(tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl", RECORDS[:30])
    test = write(tmp_path / "test.jsonl", [("one", ["a", "b"]), ("two", "c")])
    (tmp_path / "v.en").write_text("a\nb\n")
    (tmp_path / "v.de").write_text("c\nd\n")
    valid = (f"{tmp_path}/v.en", f"{tmp_path}/v.de")
    splits = prepare(PairsConfig(path=str(train), valid=valid, test=str(test), tokenizer=SMALL))
    assert texts(splits.train) == RECORDS[:30]
    assert texts(splits.valid) == [("a", "c"), ("b", "d")]
    assert texts(splits.test) == [("one", "a"), ("two", "c")]
    assert splits.test.references == (("a", "b"), ("c",))
    assert splits.valid.name(1) == f"{valid[0]} and {valid[1]} line 2"
    none = prepare(PairsConfig(path=str(train), valid=0, test="", tokenizer=SMALL))
    assert [len(none.train), len(none.valid), len(none.test)] == [30, 0, 0]


def test_what_is_trained_on_is_not_for_the_test(file: Path, tmp_path: Path) -> None:
    (tmp_path / "link.jsonl").symlink_to(file)
    with pytest.raises(DataError, match=r"^data.test names the same records as data.path; name"):
        prepare(PairsConfig(path=str(file), test=f"{tmp_path}/link.jsonl"))


def test_the_same_data_is_tokenised_once(file: Path, builds: list[Path], cache: Path) -> None:
    config = PairsConfig(path=str(file), tokenizer=SMALL)
    first, second = prepare(config), prepare(config)
    assert len(builds) == 1
    assert first.folder == second.folder == cache / f"pairs-{first.hash[:16]}"
    assert everything(first) == everything(second)
    assert [f.name for f in cache.iterdir()] == [first.folder.name]
    assert str(file.parent) not in (first.folder / "manifest.json").read_text()
    moved = file.rename(file.with_name("moved.jsonl"))
    again = prepare(PairsConfig(path=str(moved), tokenizer=SMALL))
    assert len(builds) == 1
    assert again.train.name(0).startswith(str(moved))


@pytest.mark.parametrize("change", ["source", "reference", "more", "order", "split", "tokenizer"])
def test_whatever_changes_is_tokenised_anew(file: Path, builds: list[Path], change: str) -> None:
    records: list[tuple[str, Any]] = [*RECORDS, ("several", ["a", "b"])]
    more: dict[str, Any] = {}
    write(file, records)
    before = prepare(PairsConfig(path=str(file), tokenizer=SMALL))
    match change:
        case "source":
            records[7] = (records[7][0].swapcase(), records[7][1])
        case "reference":
            records[-1] = ("several", ["a", "c"])
        case "more":
            records.append(("new", "new"))
        case "order":
            records.reverse()
        case "split":
            more = {"valid": 0.3}
        case "tokenizer":
            more = {"tokenizer": BPE(vocab=301)}
    write(file, records)
    after = prepare(PairsConfig(**{"path": str(file), "tokenizer": SMALL, **more}))
    assert len(builds) == 2
    assert after.hash != before.hash
    if not more:
        firsts = [(s, t if isinstance(t, str) else t[0]) for s, t in records]
        assert everything(after) == sorted(firsts)


@pytest.mark.parametrize(
    "damage", ["bin", "lengths", "numbers", "jsonl", "swapped", "manifest", "other", "tokenizer"]
)
def test_a_damaged_cache_is_built_anew(
    file: Path, builds: list[Path], damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = PairsConfig(path=str(file), tokenizer=SMALL)
    whole = prepare(config)
    want, hash, folder = everything(whole), whole.hash, whole.folder
    del whole  # which maps the files
    match damage:
        case "bin":
            (folder / "train.bin").write_bytes((folder / "train.bin").read_bytes()[:-2])
        case "lengths":
            (folder / "valid.lengths").write_bytes(b"")
        case "numbers":
            (folder / "test.numbers").unlink()
        case "jsonl":
            content = (folder / "test.jsonl").read_text()
            (folder / "test.jsonl").write_text(content[: content.index("\n") + 1])
        case "swapped":
            lengths = np.fromfile(folder / "train.lengths", "<i8")
            (lengths + 1).tofile(folder / "train.lengths")
        case "manifest":
            (folder / "manifest.json").write_text("{")
        case "other":
            manifest = folder / "manifest.json"
            manifest.write_text(manifest.read_text().replace(hash, "0" * 64))
        case "tokenizer":
            BPE(vocab=270).fit([b"of its own " * 50]).save(folder)
    with caplog.at_level(logging.WARNING):
        again = prepare(config)
    assert everything(again) == want
    assert again.valid.references
    assert "was damaged" in caplog.text
    assert len(builds) == 2


def test_a_file_that_changes_under_our_hands_is_noticed(
    file: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    def late(*_: Any) -> str:
        write(file, [(source, "other") for source, _ in RECORDS])
        return "0" * 64

    monkeypatch.setattr(preparing, "_hash", late)
    with pytest.raises(DataError, match=r"all.jsonl: changed while it was read; start again"):
        prepare(PairsConfig(path=str(file)))
    assert list(cache.iterdir()) == []


def test_the_tokenizer_of_another_run_can_be_used(file: Path, builds: list[Path]) -> None:
    codec = BPE(vocab=270).fit([b"of its own " * 50])
    config = PairsConfig(path=str(file), tokenizer=SMALL)
    assert prepare(config, codec).codec.fingerprint == codec.fingerprint
    assert prepare(config).codec.fingerprint != codec.fingerprint
    prepare(config, codec)
    assert len(builds) == 2


def test_records_that_are_too_long_are_left_out_of_training_alone(
    file: Path, builds: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    def made(longest: int | None) -> PairSplits:
        config = PairsConfig(path=str(file), valid=0.2, tokenizer=Bytes(), longest=longest)
        return prepare(config)

    whole = made(None)
    fits = [pair for pair in texts(whole.train) if max(map(len, pair)) <= 20]
    assert 0 < len(fits) < len(whole.train)
    with caplog.at_level(logging.WARNING):
        assert made(1000).hash == whole.hash
        assert not caplog.text
        short = made(20)
    assert texts(short.train) == fits
    assert short.train.name(3) == f"{file} line {RECORDS.index(fits[3]) + 1}"
    assert texts(short.valid) == texts(whole.valid)
    assert short.valid.references == whole.valid.references
    out = len(whole.train) - len(fits)
    assert f"{out} of {len(whole.train)} records of training have more than data.lon" in caplog.text
    assert short.hash != whole.hash
    assert len(builds) == 1
    with pytest.raises(DataError, match=r"longest: 2 leaves nothing .* record has 1\d tok"):
        made(2)


def test_what_the_tokenizer_cannot_read_is_named_with_its_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [("1 2", "2")] * 300 + [("1", "four")])
    valid = write(tmp_path / "b.jsonl", [("1", "2")])
    for train, other in ((path, valid), (valid, path)):
        config = PairsConfig(path=str(train), valid=str(other), test="", tokenizer=Ids())
        with pytest.raises(DataError, match=r"^.*a.jsonl line 301: 'four' is no "):
            prepare(config)


def test_pairs_in_memory() -> None:
    codec = Bytes().fit([])
    pairs = Pairs.of([("ab", "c"), ("d", ["ef", "g"])], codec)
    assert texts(pairs) == [("ab", "c"), ("d", "ef")]
    assert pairs.references == (("c",), ("ef", "g"))
    second = pairs.select(np.array([1]))
    assert texts(second) == [("d", "ef")]
    assert second.references == (("ef", "g"),)
    assert second.name(0) == "record 1"
    for wrong, message in [
        ([], "there are no records"),
        ([("", "a")], "record 0: field 'source' is empty"),
        ([("a", "b"), ("a", [])], "record 1: field 'target' is an empty list"),
    ]:
        with pytest.raises(DataError, match=message):
            Pairs.of(wrong, codec)


def test_all_of_a_file_for_evaluation(file: Path) -> None:
    splits = prepare(PairsConfig(path=str(file), tokenizer=SMALL))
    pairs = read(str(file), splits.codec)
    assert texts(pairs) == RECORDS
    assert pairs.references == tuple((target,) for _, target in RECORDS)
    assert pairs.name(4) == f"{file} line 5"


SLOW_BUILD = """
import sys, time
from longspan.data.pairs import prepared
from longspan.data.pairs.config import PairsConfig
from longspan.data.tokenizers.bpe import BPE
build = prepared._build
def slow(*all):
    build(*all)
    print("filled", flush=True)
    time.sleep(float(sys.argv[2]))
prepared._build = slow
print(prepared.prepare(PairsConfig(path=sys.argv[1], tokenizer=BPE(vocab=300))).folder, flush=True)
"""


def test_a_killed_process_leaves_nothing_and_two_at_once_share_the_work(
    file: Path, cache: Path
) -> None:
    def start(patience: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", SLOW_BUILD, str(file), patience]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    with start("600") as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == "filled\n"
        killed.kill()
    (left,) = (f.name for f in cache.iterdir() if ".part-" in f.name)
    with start("1") as first, start("1") as second:
        said = sorted([first.communicate()[0], second.communicate()[0]], key=len)
    splits = prepare(PairsConfig(path=str(file), tokenizer=SMALL))
    assert said == [f"{splits.folder}\n", f"filled\n{splits.folder}\n"], "one of them built"
    assert everything(splits) == sorted(RECORDS)
    assert not (cache / left).exists()
    assert [f.name for f in cache.iterdir()] == [splits.folder.name]
