"""Labelled records as sequences: their classes, their parts, their batches."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from longspan.data.inputs.text import Text, TextEncoding
from longspan.data.labelled.config import LabelledConfig
from longspan.data.labelled.item import Item
from longspan.data.labelled.reading import Reading, learnt
from longspan.data.labelled.sequences import Sequences, batches, gather, limited, prepare
from longspan.data.tokenizers.bytes import Bytes
from longspan.errors import CheckpointError, ConfigError, DataError

CODEC = Bytes().fit([])
READING = Reading("text", TextEncoding(CODEC), ("neg", "pos"))


def sequences(*texts: str, reading: Reading = READING) -> Sequences:
    return gather((Item(f"r{n}", text, "neg") for n, text in enumerate(texts)), reading)


def table(folder: Path, *labels: str) -> str:
    folder.mkdir(exist_ok=True)
    rows = [f"text {number}\t{label}" for number, label in enumerate(labels)]
    (folder / "a.tsv").write_text("\n".join(["text\tlabel", *rows]))
    return str(folder / "a.tsv")


def config(path: str, **more: Any) -> LabelledConfig:
    return LabelledConfig(**{"path": path, "valid": "", "test": "", "input": Text(Bytes()), **more})


def test_a_text_is_read_after_a_start_symbol() -> None:
    batch = sequences("ab", "c").rows(np.array([1, 0]))
    assert batch.x.tolist() == [[CODEC.start, ord("c"), 0], [CODEC.start, ord("a"), ord("b")]]
    assert batch.valid.tolist() == [[True, True, False], [True, True, True]]
    assert batch.classes.tolist() == [0, 0]
    assert batch.records.tolist() == [1, 0]
    bare = sequences("ab", reading=replace(READING, encoding=TextEncoding(CODEC, begins=False)))
    assert bare.rows(np.array([0])).x.tolist() == [[ord("a"), ord("b")]]


def test_classes_are_learnt_of_training_and_kept(tmp_path: Path) -> None:
    splits = prepare(config(table(tmp_path, "pos", "neg", "pos")))
    assert splits.codec.classes == ("neg", "pos")
    assert splits.train.classes.tolist() == [1, 0, 1]
    splits.codec.save(tmp_path)
    again = Reading.load(tmp_path)
    assert again.classes == splits.codec.classes
    assert again.fingerprint == splits.codec.fingerprint
    assert again.fingerprint != Reading("text", again.encoding, ("a", "b")).fingerprint
    (tmp_path / "classes.json").write_text('{"input": "text"}')
    with pytest.raises(CheckpointError, match=r"classes\.json: is damaged"):
        Reading.load(tmp_path)


def test_numbers_are_sorted_as_such() -> None:
    def of(*labels: str) -> tuple[str, ...]:
        return learnt([Item("", "", label) for label in labels], "")

    assert of("10", "9", "-1") == ("-1", "9", "10")
    assert of("10", "9", "x") == ("10", "9", "x")
    assert of("10", "9", "09") == ("09", "10", "9"), "09 is a name"


def test_a_class_that_training_has_not_seen_is_named_with_its_row(tmp_path: Path) -> None:
    train, other = table(tmp_path / "a", "pos", "neg"), table(tmp_path / "b", "pos", "negg")
    with pytest.raises(DataError, match=r"b/a\.tsv line 3: field 'label' .*mean 'neg'"):
        prepare(config(train, valid=other))
    strange = table(tmp_path / "b", "7")
    with pytest.raises(
        DataError, match=r"line 2: field 'label' is of the class '7', which training has not seen"
    ):
        prepare(config(train, test=strange))


def test_one_class_alone_teaches_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="all records of training are of the class 'pos'"):
        prepare(config(table(tmp_path, "pos", "pos")))


@pytest.mark.parametrize("content", [None, 5, ["a"]])
def test_what_is_no_text_is_said_where_fractions_are_taken(tmp_path: Path, content: Any) -> None:
    rows = [{"text": "a", "label": "pos"}, {"text": content, "label": "neg"}]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    with pytest.raises(DataError, match=r"line 2: field 'text' .*not text; put the text there"):
        prepare(config(str(path), valid=0.1))


def test_fractions_are_taken_by_content(tmp_path: Path) -> None:
    """So they stay where they are when others come, and equal ones lie together."""
    labels = ["pos", "neg"] * 40
    few = prepare(config(table(tmp_path / "a", *labels), valid=0.2, test=0.2))
    assert [len(part) for part in (few.train, few.valid, few.test)] != [80, 0, 0]
    assert len(few.train) + len(few.valid) + len(few.test) == 80
    many = prepare(config(table(tmp_path / "b", *labels, *labels), valid=0.2, test=0.2))
    held = lambda part: {each.tobytes() for each in part.values}  # noqa: E731
    assert held(few.valid) <= held(many.valid)
    assert not held(many.valid) & held(many.train)


def test_long_records_are_left_out_of_training_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = table(tmp_path, *["pos", "neg"] * 6)
    with caplog.at_level(logging.WARNING):
        splits = prepare(config(path, longest=7, valid=path))
    assert (len(splits.train), len(splits.valid)) == (10, 12)
    assert "2 of 12 records of training are longer than data.longest: 7" in caplog.text
    with pytest.raises(DataError, match=r"longest: 3 leaves nothing .* the shortest record is 7"):
        prepare(config(path, longest=3))


def test_what_is_not_read_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = table(tmp_path, *["pos", "neg"] * 6)
    with caplog.at_level(logging.WARNING):
        splits = prepare(config(path, first=7))
    assert splits.train.lengths.tolist() == [7] * 12
    assert bytes(splits.train.values[11][1:].tolist()) == b"text 1", "of text 11"
    assert "2 of 12 records are longer than data.first: 7; what follows is not read" in caplog.text


def test_batches_read_every_record_once_an_epoch_and_depend_on_the_step_alone() -> None:
    texts = ["x" * (1 + n * 7 % 23) for n in range(50)]
    found = sequences(*texts)
    plan = batches(found, 60, 3)
    epoch = [plan.chosen(step) for step in range(plan.epoch)]
    assert sorted(np.concatenate(epoch).tolist()) == list(range(50))
    for chosen in epoch:
        assert found.rows(chosen).x.numel() <= 60
    assert (
        batches(found, 60, 3).chosen(plan.epoch + 2).tolist()
        == plan.chosen(plan.epoch + 2).tolist()
    )
    with pytest.raises(DataError, match=r"r\d+: is 24 long, more than train\.tokens=20"):
        batches(found, 20, 3)
    scored = list(found.alike(20))
    assert sorted(np.concatenate(scored).tolist()) == list(range(50))


def test_the_bytes_of_all_tell_whether_something_changed() -> None:
    found = sequences("ab", "c")
    assert found.tokens.tolist() == sequences("ab", "c").tokens.tolist()
    assert found.tokens.tolist() != sequences("a", "bc").tokens.tolist()
    other = gather([Item("", "ab", "neg"), Item("", "c", "pos")], READING)
    assert found.tokens.tolist() != other.tokens.tolist()


def test_what_has_no_place_is_refused() -> None:
    limited(sequences("abc"), 4, "learned")
    limited(sequences("abc"), None, "rotary")
    with pytest.raises(DataError, match="r1: is 5 long, more than the 4 places of position='lea"):
        limited(sequences("abc", "abcd"), 4, "learned")


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"path": ""}, r"data\.path must be a table or a folder"),
        ({"valid": 1.5}, r"data\.valid must be a fraction"),
        ({"valid": 0.5, "test": 0.5}, "nothing would be left"),
        ({"label": "text"}, "are both 'text'"),
        ({"label": ""}, r"data\.label must be the name of a column"),
        ({"longest": 0}, r"data\.longest must be 1 or more"),
        ({"first": 0}, r"data\.first must be 1 or more"),
        ({"input": "text"}, r"data\.input must be an input"),
    ],
)
def test_a_choice_that_cannot_be_is_refused(choice: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        LabelledConfig(**{"path": "a.tsv", **choice})
