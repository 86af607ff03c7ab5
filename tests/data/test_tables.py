"""Rows with named fields: the same ones from every form, and what is wrong with one is said."""

from __future__ import annotations

import csv
import gzip
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from longspan.data.table import kind
from longspan.errors import DataError

Wanted = list[tuple[int, tuple[Any, ...]]]
Write = Callable[[str, str], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Makes a file of a name and a content and gives its path."""

    def make(name: str, content: str) -> str:
        file = tmp_path / name
        packed = content.encode()
        file.write_bytes(gzip.compress(packed) if name.endswith(".gz") else packed)
        return str(file)

    return make


def rows(path: str, *names: str) -> Wanted:
    table = kind(path)
    assert table is not None
    return list(table(path).rows(names or ("source", "target")))


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a.jsonl", "jsonl"),
        ("b/a.JSON.GZ", "jsonl"),
        ("a.tsv.xz", "tsv"),
        ("a.csv.bz2", "csv"),
        ("hf:owner/name@test", "hf"),
        ("hf:rows.jsonl", "hf"),
    ],
)
def test_the_name_says_how_it_is_read(path: str, name: str) -> None:
    found = kind(path)
    assert found is not None
    assert found.name == name


@pytest.mark.parametrize("path", ["train.en", "a.txt.gz", "jsonl", "a.gz", "x:a", "tsv/a"])
def test_or_does_not_say(path: str) -> None:
    assert kind(path) is None


def test_the_same_rows_from_every_form(write: Write) -> None:
    want = [("ein Mann", "a man"), ('"zwei"', "two, or\u2028so")]
    tabs = "".join(f"{s}\t{t}\n" for s, t in want)
    quoted = 'ein Mann,a man\n"""zwei""","two, or\u2028so"\n'
    objects = "".join(json.dumps({"n": 1, "source": s, "target": t}) + "\n" for s, t in want)
    for name, content, first in [
        ("a.jsonl", objects, 1),
        ("a.json.gz", objects.replace("\n", "\r\n"), 1),
        ("a.tsv", tabs, 1),
        ("b.tsv", "source\ttarget\n" + tabs, 2),
        ("a.csv", quoted, 1),
        ("b.csv.gz", "\ufeffsource,target\r\n" + quoted.replace("\n", "\r\n"), 2),
    ]:
        path = write(name, content)
        assert rows(path) == list(enumerate(want, first)), name
        swapped = [(number, (t, s)) for number, (s, t) in enumerate(want, first)]
        assert rows(path, "target", "source") == swapped, name


def test_columns_are_found_by_their_names(write: Write) -> None:
    path = write("a.tsv", "id\tde\ten\n7\tein\ta\n8\tzwei\ttwo\n")
    assert rows(path, "de", "en") == [(2, ("ein", "a")), (3, ("zwei", "two"))]
    # quotes are text in TSV; in CSV they may hold lines, and a row is where it begins
    assert rows(write("b.tsv", '"a\tb"\n')) == [(1, ('"a', 'b"'))]
    path = write("b.csv", 'x,source,target\n1,"two\nlines",b\n\n2,c,"d"\n')
    assert rows(path) == [(2, ("two\nlines", "b")), (5, ("c", "d"))]


def test_a_dotted_name_leads_into_a_field(write: Write) -> None:
    record = {"id": 3, "translation": {"en": "a", "de": "ein"}, "translation.fr": "un"}
    path = write("a.jsonl", json.dumps(record))
    assert rows(path, "translation.de", "translation.fr") == [(1, ("ein", "un"))]
    with pytest.raises(DataError, match=r"no field 'translation.dee', did you mean 'translation.d"):
        rows(path, "translation.dee")
    with pytest.raises(DataError, match=r"no field 'id.x'"):
        rows(path, "id.x")


def test_empty_lines_between_rows_are_passed_over(write: Write) -> None:
    assert rows(write("a.jsonl", '\n{"source": 1, "target": 2}\n\n')) == [(2, (1, 2))]
    assert rows(write("a.tsv", "\na\tb\n\n")) == [(2, ("a", "b"))]
    assert rows(write("a.csv", "\na,b\n\n")) == [(2, ("a", "b"))]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"sourc": 1, "target": 2}', r"a.jsonl line 1: .* did you mean 'sourc'\?"),
        ("a.jsonl", '{"source": 1}\n', r"line 1: there is no field 'target'; .*\(source\)"),
        ("a.jsonl", '{"source": 1, "target": 2}\n{', r"line 2: not JSON \(.* in column 2\)$"),
        ("a.jsonl", '[{"source": 1}]', r"line 1: must be an object .*, not list; .*jq -c"),
        ("a.json", '[\n{"source": 1}]', r"line 1: not JSON .*; write one object a line"),
        ("a.jsonl", '"text"', "line 1: must be an object with fields, not str$"),
        ("a.jsonl", "[" * 100_000, "line 1: JSON that is nested too deep"),
        ("a.tsv", "id\tsource\ttgt\n", r"line 1: the header has no column 'target'"),
        ("a.tsv", "sourse\ttarget\n", r"line 1: .*no column 'source', did you mean 'sourse'\?"),
        ("a.tsv", "source\ttarget\tsource\n", "line 1: the header has the column 'source' twice"),
        ("a.tsv", "a\tb\na\tb\tc\n", "line 2: 3 columns, where the first line has 2"),
        ("a.tsv", "a b\n", "line 1: the header has no column 'source'"),
        ("a.csv", 'a,b\nc,"d', r"line 2: not CSV \(unexpected end of data\)"),
        ("a.csv", 'a,b\nc,"d"e\n', r"line 2: not CSV \(',' expected after '\"'\)"),
        ("a.csv", "a,b\n\nc\n", "line 3: 1 columns, where the first line has 2"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(
    write: Write, name: str, content: str, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        rows(write(name, content))


def test_a_table_without_a_header_has_no_names_but_source_and_target(write: Write) -> None:
    """Else a header that says something else would be read as a row."""
    path = write("a.tsv", "English\tGerman\na man\tein Mann\n")
    with pytest.raises(DataError, match=r"line 1: there is no header with a column 'english'"):
        rows(path, "english", "german")


def test_a_book_fits_in_a_cell(write: Write) -> None:
    book = "word " * 100_000
    assert rows(write("a.csv", f'"{book}",b\n')) == [(1, (book, "b"))]


CELL = st.text(st.characters(exclude_characters="\r", exclude_categories=["Cs"]), min_size=1)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40
)
@given(st.lists(st.tuples(CELL, CELL), min_size=1))
def test_whatever_a_csv_writer_writes_is_read(tmp_path: Path, cells: list[tuple[str, str]]) -> None:
    file = tmp_path / "a.csv"
    with open(file, "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("source", "target"), *cells])
    assert [row for _, row in rows(str(file))] == cells


ROWS = [
    {"pair": {"en": "a", "de": "ein"}, "refs": ["x", "y"]},
    {"pair": {"en": "two", "de": "zwei"}, "refs": ["z"]},
]


class Datasets(ModuleType):
    """As much of the library as is used; `test_readers.py` has what can go wrong in it."""

    def load_dataset(self, name: str, **how: Any) -> dict[str, Any]:
        assert how == {"data_files": how["data_files"], "streaming": True}
        return {"train": ROWS}


@pytest.fixture(params=["theirs", "ours"])
def dataset(request: pytest.FixtureRequest, write: Write, monkeypatch: pytest.MonkeyPatch) -> str:
    """Path of a dataset, read by the library or, where there is none, by what stands for it."""
    if request.param == "theirs":
        pytest.importorskip("datasets")
    else:
        monkeypatch.setitem(sys.modules, "datasets", Datasets("datasets"))
    return "hf:" + write("rows.jsonl", "".join(json.dumps(row) + "\n" for row in ROWS))


def test_a_dataset_of_the_hub(dataset: str) -> None:
    want = [(0, ("ein", ["x", "y"])), (1, ("zwei", ["z"]))]
    assert rows(dataset, "pair.de", "refs") == want
    assert rows(f"{dataset}@train", "pair.de", "refs") == want
    found = kind(dataset)
    assert found is not None
    table = found(dataset)
    assert list(table.rows(["refs"])) == list(table.rows(["refs"])), "read as often as wanted"
    with pytest.raises(DataError, match=r"jsonl row 0: there is no field 'pair.dd', did you mean"):
        rows(dataset, "pair.dd")
    with pytest.raises(DataError, match=r"no split 'tran', did you mean 'train'\?"):
        rows(f"{dataset}@tran")
