"""Lines of files as they are: compressed or not, and damaged in every way that is common."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
from pathlib import Path

import pytest

from longspan.data.lines import lines, suffix
from longspan.errors import DataError

TEXT = "eins\nzwei \t\u2028drei\x0c\n\nvier"


@pytest.mark.parametrize(
    ("ending", "pack"),
    [("", bytes), (".gz", gzip.compress), (".xz", lzma.compress), (".bz2", bz2.compress)],
)
def test_compressed_files_are_read_as_they_are(tmp_path: Path, ending: str, pack: type) -> None:
    file = tmp_path / f"a.txt{ending}"
    file.write_bytes(pack(TEXT.encode()))
    assert list(lines(str(file))) == list(enumerate(TEXT.split("\n"), 1))
    assert suffix(str(file)) == ".txt"
    if ending:
        file.write_bytes(pack(TEXT.encode())[:-3])
        with pytest.raises(DataError, match=r"a.txt.*: damaged, or not compressed as it is called"):
            list(lines(str(file)))
        file.write_bytes(b"plain text")
        with pytest.raises(DataError, match=r"a.txt.*: damaged, or not compressed as it is called"):
            list(lines(str(file)))


def test_a_line_ends_at_a_newline_alone(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"\xef\xbb\xbfone\r\n\xef\xbb\xbftwo\rtwo\n")
    assert [text for _, text in lines(str(file))] == ["one", "\ufefftwo\rtwo"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("train.em", r"train.em: there is no such file, did you mean '.*train.en'\?"),
        ("empty", "empty: the file is empty"),
        ("folder", "folder: is a folder; name a file in it"),
        ("latin", r"latin line 2: byte 2 of the line \(0xfc\) is not UTF-8; convert the file"),
        ("pipe", "pipe: can be read only once; save it as a file"),
        ("lost", "lost: cannot be read"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "train.en").write_text("x")
    (tmp_path / "empty").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "latin").write_bytes("grau\ngrün\n".encode("latin-1"))
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "lost").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match=message):
        list(lines(f"{tmp_path}/{name}"))


def test_a_file_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a").write_text("x")
    assert list(lines("~/a")) == [(1, "x")]
