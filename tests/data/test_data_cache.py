"""Killed at any moment, or raced: what is found afterwards is whole."""

from __future__ import annotations

import hashlib
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from longspan.data import DataConfig, prepare
from longspan.data.tokenizers.words import Words

BUILD = """
import sys
from longspan.data import DataConfig, prepare, prepared
from longspan.data.tokenizers.words import Words
build = prepared._build
def told(*args):
    print("built", flush=True)
    build(*args)
prepared._build = told
config = DataConfig(path=sys.argv[1], cache=sys.argv[2], tokenizer=Words())
print("ready", flush=True)
prepare(config)
print("done", flush=True)
"""

STEPS = """
import os, pathlib, signal, sys
left = int(sys.argv[3])
def dying(step):
    def call(*args, **more):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(*args, **more)
    return call
os.mkdir, os.fsync, os.rename, os.replace = map(dying, (os.mkdir, os.fsync, os.rename, os.replace))
pathlib.Path.write_text = dying(pathlib.Path.write_text)
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    rng = random.Random(0)
    for index in range(20):
        words = [f"w{rng.randrange(5000)}" for _ in range(6000)]
        (folder / f"{index}.txt").write_text(" \n".join(words))
    return folder


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def wait(process: subprocess.Popen[str]) -> tuple[int, str]:
    out, _ = process.communicate(timeout=60)
    return process.returncode, out


def digest(folder: Path) -> dict[str, str]:
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(folder.iterdir())}


def whole(tree: Path, cache: Path) -> dict[str, str]:
    """Prepares, and gives what lies in the cache: one folder (and, it may be, an empty lock)."""
    splits = prepare(DataConfig(path=str(tree), cache=str(cache), tokenizer=Words()))
    assert [f.name for f in cache.iterdir() if f.suffix != ".lock"] == [splits.folder.name]
    assert len(splits.train) + len(splits.valid) + len(splits.test) > 40_000
    return digest(splits.folder)


def test_killed_at_random_moments(tree: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    want = whole(tree, tmp_path / "undisturbed")
    took = time.monotonic() - began
    rng = random.Random()
    killed = 0
    for index in range(3):
        cache = tmp_path / f"cache-{index}"
        process = start(BUILD, tree, cache)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0, took))
        process.kill()
        killed += wait(process)[0] == -signal.SIGKILL
        assert not any(cache.glob("data-*")) or digest(next(cache.glob("data-*"))) == want
        assert whole(tree, cache) == want
    assert killed


def test_killed_before_each_step_that_touches_the_disk(tmp_path: Path) -> None:
    tree = tmp_path / "corpus"
    tree.mkdir()
    for index in range(5):
        (tree / f"{index}.txt").write_text("some words \n" * 3000)
    want = whole(tree, tmp_path / "undisturbed")
    cache = tmp_path / "cache"
    for step in range(40):
        process = start(STEPS + BUILD, tree, cache, step)
        code, out = wait(process)
        if code == 0:
            break
        assert code == -signal.SIGKILL, out
        # either not there yet or whole
        assert not any(cache.glob("data-*")) or digest(next(cache.glob("data-*"))) == want
    assert step > 8
    assert whole(tree, cache) == want


def test_of_several_at_once_one_builds_and_the_others_wait(tree: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    results = [wait(process) for process in [start(BUILD, tree, cache) for _ in range(3)]]
    assert [code for code, _ in results] == [0, 0, 0]
    assert sum(out.count("built") for _, out in results) == 1
    assert whole(tree, cache) == whole(tree, tmp_path / "undisturbed")
