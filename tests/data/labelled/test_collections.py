"""Contents and classes: the same ones from every form, and what is wrong with one is said."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from longspan.data.labelled.collection import collection
from longspan.data.labelled.contents import contents
from longspan.data.labelled.item import Item, text_of
from longspan.errors import DataError

RECORDS = [
    ('a fine, "long" film', "pos"),
    ("what a bore", "neg"),
    ("größer als erwartet", "pos"),
]


def jsonl(folder: Path) -> str:
    rows = (json.dumps({"label": label, "text": text}) for text, label in RECORDS)
    (folder / "a.jsonl").write_text("\n".join(rows), "utf-8")
    return str(folder / "a.jsonl")


def csv_(folder: Path) -> str:
    with open(folder / "a.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *RECORDS])
    return str(folder / "a.csv")


def tsv(folder: Path) -> str:
    rows = ("\t".join(record) for record in [("text", "label"), *RECORDS])
    (folder / "a.tsv").write_text("\n".join(rows), "utf-8")
    return str(folder / "a.tsv")


def parquet(folder: Path) -> str:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    texts, labels = zip(*RECORDS, strict=True)
    write_table(pyarrow.table({"text": texts, "label": labels}), folder / "a.parquet")
    return str(folder / "a.parquet")


def folders(folder: Path) -> str:
    """IMDB's form, and what a file browser leaves behind."""
    for number, (text, label) in enumerate(RECORDS):
        (folder / "a" / label).mkdir(parents=True, exist_ok=True)
        (folder / "a" / label / f"{number}_7.txt").write_text(text, "utf-8")
    (folder / "a" / ".DS_Store").write_bytes(b"\0")
    (folder / "a" / "pos" / ".DS_Store").write_bytes(b"\0")
    return str(folder / "a")


def items(path: str, source: str = "text", label: str = "label") -> list[Item]:
    return list(collection(path, source, label).items())


FORMS = [jsonl, csv_, tsv, parquet, folders]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_every_form_holds_the_same_records(form: object, tmp_path: Path) -> None:
    assert callable(form)
    found = items(form(tmp_path))
    assert sorted((text_of(item), item.label) for item in found) == sorted(RECORDS)
    assert len({item.place for item in found}) == len(RECORDS)
    assert all(str(tmp_path) in item.place for item in found)
    alone = contents(form(tmp_path), "text")
    assert sorted(map(text_of, alone)) == sorted(text for text, _ in RECORDS)


def test_equal_contents_have_equal_digests_in_every_form(tmp_path: Path) -> None:
    """So that a review which comes twice lies in one part."""
    digests = [sorted(item.digest for item in items(form(tmp_path))) for form in FORMS]
    assert all(found == digests[0] for found in digests)
    assert len(set(digests[0])) == len(RECORDS)


def test_a_class_may_be_a_whole_number(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"t": "x", "y": 10}\n{"t": "x", "y": "9"}')
    assert [item.label for item in items(str(file), "t", "y")] == ["10", "9"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"text": "x"}', "line 2: there is no field 'label'"),
        ('{"text": "x", "lable": 1}', "there is no field 'label', did you mean 'lable'"),
        ('{"text": "x", "label": null}', "line 2: field 'label' holds null, no class"),
        ('{"text": "x", "label": 1.0}', r"field 'label' holds 1\.0 \(float\), no class"),
        ('{"text": "x", "label": true}', r"field 'label' holds True \(bool\), no class"),
        ('{"text": "x", "label": " "}', "field 'label' is empty"),
        ('{"text": "", "label": 1}', "line 2: field 'text' is empty"),
        ('{"text": 7, "label": 1}', "line 2: field 'text' holds int, not text"),
        ('{"text": "\\ud800", "label": 1}', r"half a character \(\\ud800 in place 0\)"),
    ],
)
def test_what_is_wrong_with_a_row_is_said(tmp_path: Path, line: str, said: str) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": "x", "label": 0}\n' + line)
    with pytest.raises(DataError, match=said):
        [text_of(item) for item in items(str(file))]


def test_what_is_wrong_with_folders_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no folders, of which each would be a class"):
        items(str(tmp_path))
    (tmp_path / "pos").mkdir()
    with pytest.raises(DataError, match="pos: there are no files in it"):
        items(str(tmp_path))
    (tmp_path / "pos" / "1.txt").write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match=r"pos/1\.txt: byte 3 is not UTF-8"):
        text_of(items(str(tmp_path))[0])
    (tmp_path / "README").write_text("about")
    with pytest.raises(DataError, match="README: lies in no folder of a class"):
        items(str(tmp_path))
    with pytest.raises(DataError, match=r"neither a folder .* nor a table .*nothing is there"):
        items(str(tmp_path / "missing"))


def test_what_is_wrong_with_parquet_is_said(tmp_path: Path) -> None:
    path = parquet(tmp_path)
    with pytest.raises(DataError, match="row 0: there is no field 'klass'"):
        items(path, label="klass")
    Path(path).write_bytes(b"PAR1 but no more")
    with pytest.raises(DataError, match="is no sound Parquet file"):
        items(path)
    with pytest.raises(DataError, match="there is no such file, did you mean"):
        items(path.replace("a.parquet", "b.parquet"))
