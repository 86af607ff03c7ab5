"""What every test may use: a small corpus, tiny runs trained on it, the command line.

Nothing outside pytest's own folders is read or written, and one thread computes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tests.tiny import Result, call, train_tiny


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Tokenised data are kept for the session and then forgotten."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LONGSPAN_CACHE", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny models gain nothing from a second thread, and other work on the machine needs it."""
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 12 files, some 55 KB: lines of words, of which each file has its own, some of
    them not ASCII.
    """
    folder = tmp_path_factory.mktemp("corpus")
    draw = random.Random(0)
    for index in range(12):
        words = [
            "".join(draw.choices("abcdefghijklmnopqrstuvwxyzäöß€", k=draw.randint(2, 7)))
            for _ in range(40)
        ]
        lines = (" ".join(draw.choices(words, k=draw.randint(3, 9))) for _ in range(115))
        (folder / f"{index}.txt").write_text("".join(f"{line}.\n" for line in lines), "utf-8")
    return folder


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Path:
    """A finished run on bytes. Not to be changed; copy it."""
    return train_tiny(tmp_path_factory.mktemp("bytes") / "run", corpus)


@pytest.fixture(scope="session")
def trained_bpe(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Path:
    """A finished run on byte pairs. Not to be changed; copy it."""
    tokenizer = {"name": "bpe", "vocab": 400}
    folder = tmp_path_factory.mktemp("bpe") / "run"
    return train_tiny(folder, corpus, **{"data.tokenizer": tokenizer, "train.steps": 30})


@pytest.fixture
def cli(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Result]:
    """Calls the command line within this process: cli("list").out"""
    return lambda *words: call(monkeypatch, capsys, *words)
