"""Where documents come from, and what is said when they do not come."""

from __future__ import annotations

import io
import os
import sys
import sysconfig
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from longspan.data.reader import Document, documents, reader
from longspan.data.readers.stdlib import is_written
from longspan.errors import DataError


def found(path: str | tuple[str, ...]) -> dict[str, bytes]:
    return {document.name: document.read() for document in documents(path)}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("b.txt", "a/z.log", "a/b/y.log", "a/x.bin", ".git/objects", ".hidden/w", ".env"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"\xff\x00" + name.encode())
    return tmp_path


def test_a_folder_gives_every_file_sorted_but_for_hidden_folders(tree: Path) -> None:
    assert list(found(str(tree))) == [".env", "a/b/y.log", "a/x.bin", "a/z.log", "b.txt"]
    assert found(str(tree))["a/x.bin"] == b"\xff\x00a/x.bin"


def test_a_name_is_the_same_whatever_leads_to_the_root(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tree.parent)
    assert list(found(tree.name)) == list(found(str(tree))) == list(found(f"./{tree.name}/"))
    monkeypatch.chdir(tree)
    assert list(found(".")) == list(found(str(tree)))


def test_a_file_and_a_pattern(tree: Path) -> None:
    assert list(found(f"{tree}/a/z.log")) == ["z.log"]
    assert list(found(f"{tree}/a/*.log")) == ["z.log"]
    assert list(found(f"{tree}/**/*.log")) == ["a/b/y.log", "a/z.log"]
    assert list(found(f"{tree}/?/b/*")) == ["a/b/y.log"]


def test_a_file_whose_name_looks_like_a_pattern_or_a_prefix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("[1].txt", "odd:name"):
        Path(name).write_bytes(b"x")
        assert found(name) == {name: b"x"}
    Path("hf:x").write_bytes(b"y")
    assert found("files:hf:x") == {"hf:x": b"y"}


def test_several_paths_give_each_file_once(tree: Path) -> None:
    (tree / "again.txt").symlink_to(tree / "b.txt")
    assert list(found((f"{tree}/b.txt", str(tree / "a"), f"{tree}/**/*.log"))) == [
        "b.txt",
        "b/y.log",
        "x.bin",
        "z.log",
    ]
    assert len(list(documents((f"{tree}/b.txt", f"{tree}/again.txt")))) == 1


def test_links_are_followed_but_not_in_circles(tree: Path, tmp_path: Path) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    (outside / "far.txt").write_bytes(b"far")
    (tree / "a" / "link").symlink_to(outside)
    (tree / "a" / "circle").symlink_to(tree)
    assert "a/link/far.txt" in found(str(tree))
    assert not any("circle" in name for name in found(str(tree)))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("b.tx", r"b.tx: there is no such file or folder, did you mean '.*b.txt'\?"),
        ("qqqq", r"qqqq: there is no such file or folder$"),
        ("no/such/place", "there is no such file or folder"),
        ("*.nothing", "no file matches this pattern"),
        ("empty", "no files in this folder"),
        ("nil", "nil: the file is empty"),
        ("broken", r"broken: cannot be read \(No such file"),
    ],
)
def test_what_is_not_there_is_named(tree: Path, path: str, message: str) -> None:
    (tree / "empty").mkdir()
    (tree / "nil").touch()
    (tree / "broken").symlink_to("nowhere")
    with pytest.raises(DataError, match=message):
        found(f"{tree}/{path}")


def test_a_broken_link_in_a_folder_is_no_gap(tree: Path) -> None:
    (tree / "a" / "broken").symlink_to("nowhere")
    for path in (tree, tree / "a" / "*"):
        with pytest.raises(DataError, match=r"broken: cannot be read"):
            found(str(path))


def test_what_may_not_be_read_is_named(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() == 0:  # root may read everything

        def refuse(path: Any, *rest: Any, **more: Any) -> Any:
            raise PermissionError(13, "Permission denied", path)

        monkeypatch.setattr("builtins.open", refuse)
    else:
        (tree / "b.txt").chmod(0)
    with pytest.raises(DataError, match=r"b.txt: cannot be read \(Permission denied\); check"):
        found(f"{tree}/b.txt")
    monkeypatch.setattr(
        "os.scandir", lambda path: (_ for _ in ()).throw(PermissionError(13, "Permission denied"))
    )
    with pytest.raises(DataError, match=r"cannot be read \(Permission denied\)"):
        found(str(tree))


def test_a_pipe_can_be_read_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(b"through",))
    writer.start()
    (document,) = documents(str(pipe))
    assert document.once
    assert document.read() == b"through"
    writer.join()


def test_standard_input_is_one_document(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"piped\xff")))
    (document,) = documents("-")
    assert (document.name, document.once, document.read()) == ("stdin", True, b"piped\xff")
    with pytest.raises(DataError, match="standard input is empty"):
        document.read()


def test_the_standard_library_is_source_that_somebody_wrote() -> None:
    library = found("stdlib:")
    assert list(library) == sorted(library)
    assert {"argparse.py", "asyncio/events.py", "json/decoder.py", "typing.py"} <= library.keys()
    assert 300 < len(library) < 1500
    assert 5e6 < sum(map(len, library.values())) < 2e7
    for name, content in library.items():
        folders = name.split("/")[:-1]
        assert not {"test", "tests", "site-packages", "encodings", "pydoc_data"} & set(folders)
        assert content.decode("utf-8").strip()  # every tokenizer can read it
    assert not {"token.py", "keyword.py", "html/entities.py", "stringprep.py"} & library.keys()
    assert not any(name.startswith("_sysconfigdata") for name in library)


def test_a_part_of_the_standard_library() -> None:
    part = found("stdlib:json")
    assert set(part) <= {
        f"json/{name}.py"
        for name in ("__init__", "decoder", "encoder", "scanner", "tool", "__main__")
    }
    assert len(found("stdlib:json/decoder.py")) == 1
    with pytest.raises(DataError, match=r"stdlib:jason: no source code under 'jason'"):
        found("stdlib:jason")


def test_a_python_without_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(DataError, match=r"no source code in .*installed without it"):
        found("stdlib:")


@pytest.mark.parametrize(
    ("content", "written"),
    [
        (b"def f(x):\n    return x\n" * 9, True),
        (b'"""Words."""\nX = [\n' + b"    (1, 'one'),  # first\n" * 30 + b"]\n", False),
        (b"# Auto-generated by a script\ndef f():\n    pass\n", False),
        (b'"""Says at its\n\n\n\n\n\nend that tests are automatically generated."""\nf()', True),
        (b"\n \n", False),
    ],
)
def test_what_is_generated_or_a_table_is_no_source(content: bytes, written: bool) -> None:
    assert is_written(content) == written


class FakeDatasets(ModuleType):
    """As much of `datasets` as the reader uses."""

    class DatasetNotFoundError(Exception):
        pass

    def __init__(
        self, known: dict[tuple[str, str | None], dict[str, list[dict[str, Any]]]]
    ) -> None:
        super().__init__("datasets")
        self.known = known
        self.exceptions = ModuleType("exceptions")
        self.exceptions.DatasetNotFoundError = self.DatasetNotFoundError

    def load_dataset(self, name: str, config: str | None = None, **more: Any) -> Any:
        assert more.pop("streaming") is True
        key = (name, more.get("data_files", config))
        if key not in self.known:
            raise self.DatasetNotFoundError(f"Dataset {name} doesn't exist")
        return self.known[key]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    rows = [{"text": "one", "title": "1", "n": 1}, {"text": "twö", "title": "2", "n": 2}]
    local = tmp_path / "rows.jsonl"
    local.touch()
    known = {
        ("owner/name", None): {"train": rows, "test": rows[:1]},
        ("owner/name", "small"): {"validation": rows[1:]},
        ("old", "config"): {"train": rows[:1]},
        ("two", None): {"a": rows, "b": rows},
        ("none", None): {"train": []},
        ("json", str(local)): {"train": rows},
    }
    monkeypatch.setitem(sys.modules, "datasets", FakeDatasets(known))
    return tmp_path


def test_rows_of_a_dataset_are_documents(hub: Path) -> None:
    both = {"train/00000000": b"one", "train/00000001": "twö".encode()}
    assert found("hf:owner/name") == both
    assert found("hf:owner/name#title") == {"train/00000000": b"1", "train/00000001": b"2"}
    assert found("hf:owner/name@test") == {"test/00000000": b"one"}
    assert found("hf:owner/name/small") == {"validation/00000000": "twö".encode()}
    assert found("hf:old/config") == {"train/00000000": b"one"}
    assert found(f"hf:{hub}/rows.jsonl") == both
    assert all(document.once for document in documents("hf:owner/name"))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("hf:owner/name#txt", r"no column 'txt', did you mean 'text'\? \(n, text, title\)"),
        ("hf:owner/name#n", r"column 'n' holds int, not text"),
        ("hf:owner/name@tset", r"no split 'tset', did you mean 'test'\?"),
        ("hf:two", r"choose a split after an @: a, b"),
        ("hf:none", r"the split 'train' has no rows"),
        ("hf:", "name a dataset"),
        ("hf:nobody", "hf:nobody: Dataset nobody doesn't exist"),
    ],
)
def test_what_a_dataset_has_not_is_named(hub: Path, path: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        found(path)


def test_without_the_datasets_library_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"pip install longspan\[hf\]"):
        found("hf:owner/name")


def test_the_prefix_chooses_the_reader() -> None:
    paths = ["a/b.txt", "-", "hf:a/b", "stdlib:", "C:/x", "unknown:x"]
    assert [reader(p).name for p in paths] == ["files", "stdin", "hf", "stdlib", "files", "files"]


def test_nothing_is_read_before_it_is_wanted(tree: Path) -> None:
    (document, *_) = documents(str(tree))
    assert isinstance(document, Document)
    (tree / document.name).write_bytes(b"later")
    assert document.read() == b"later"
