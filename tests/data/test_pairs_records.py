"""Pairs of texts from files, and what is refused of them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from longspan.data.pairs.config import Location
from longspan.data.pairs.records import Record, Records
from longspan.errors import DataError


def test_parallel_files_and_tables_give_the_same_records(tmp_path: Path) -> None:
    sources, targets = ["ein Mann", " zwei\u2028 "], ["a man", "two"]
    (tmp_path / "a.de").write_text("\n".join(sources))  # no newline at the end
    (tmp_path / "a.en.gz").write_bytes(gzip.compress("".join(f"{t}\r\n" for t in targets).encode()))
    want = [Record(n, s, (t,)) for n, s, t in zip((1, 2), sources, targets, strict=True)]
    (tmp_path / "a.tsv").write_text("".join(f"{r.source}\t{r.targets[0]}\n" for r in want))
    parallel = Records((f"{tmp_path}/a.de", f"{tmp_path}/a.en.gz"))
    assert list(parallel) == list(parallel) == want
    assert list(Records(f"{tmp_path}/a.tsv")) == want
    assert parallel.place(2) == f"{tmp_path}/a.de and {tmp_path}/a.en.gz line 2"
    assert Records("a.tsv").place(2) == "a.tsv line 2"
    assert Records("hf:a").place(2) == "hf:a row 2"


def test_several_references(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "long", "short": ["first", "second"]}\n{"text": "b", "short": "c"}')
    assert list(Records(str(path), "text", "short")) == [
        Record(1, "long", ("first", "second")),
        Record(2, "b", ("c",)),
    ]


@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        ("1\n2\n3\n", "1\n2\n", r"a.en has 3 lines and .*a.de has 2; line n of one must belong to"),
        ("1\n", "1\n2\n3", r"a.en has 1 lines and .*a.de has 3;"),
        ("1\n \n", "1\n2\n", r"a.en line 2: is empty; remove it from both files$"),
        ("1\n2\n", "1\n\n", r"a.de line 2: is empty; remove it from both files$"),
        ("1\n\n", "1\n\n", r"a.en line 2: is empty"),
        ("", "1\n", r"a.en: the file is empty"),
        ("1\n", None, r"a.de: there is no such file, did you mean '.*a.en'\?"),
    ],
)
def test_parallel_files_that_are_not(
    tmp_path: Path, ours: str, theirs: str | None, message: str
) -> None:
    (tmp_path / "a.en").write_text(ours)
    if theirs is not None:
        (tmp_path / "a.de").write_text(theirs)
    with pytest.raises(DataError, match=message):
        list(Records((f"{tmp_path}/a.en", f"{tmp_path}/a.de")))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"source": "", "target": "b"}, r"line 2: field 'source' is empty; remove the record or"),
        ({"source": "a", "target": " \n"}, r"line 2: field 'target' is empty"),
        ({"source": "a", "target": []}, r"line 2: field 'target' is an empty list"),
        ({"source": "a", "target": ["b", ""]}, r"line 2: field 'target' is empty"),
        ({"source": None, "target": "b"}, r"line 2: field 'source' holds null, not text"),
        ({"source": ["a"], "target": "b"}, r"line 2: field 'source' holds list, not text"),
        ({"source": "a", "target": {"b": 1}}, r"line 2: field 'target' holds dict, not text"),
        (
            {"source": "a\ud83d", "target": "b"},
            r"line 2: field 'source' has half a char.* \(\\ud",
        ),
    ],
)
def test_a_record_that_is_none(tmp_path: Path, record: dict[str, Any], message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"source": "a", "target": "b"}\n' + json.dumps(record))
    with pytest.raises(DataError, match=message):
        list(Records(str(path)))


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        ("a.tsv", "source\ttarget\n", r"a.tsv: there are no records$"),
        ("a.jsonl", "\n\n", r"a.jsonl: there are no records$"),
        ("a.txt", "text", r"'.*a.txt' does not say what it is; name a table"),
    ],
)
def test_no_records(tmp_path: Path, path: str, content: str, message: str) -> None:
    (tmp_path / path).write_text(content)
    location: Location = f"{tmp_path}/{path}"
    with pytest.raises(DataError, match=message):
        list(Records(location))
