"""Tiny runs, and the command line in a process of its own."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import longspan
from longspan.cli import main

SETTINGS = {"train.device": "cpu", "train.threads": 1, "log.tensorboard": False}
PATIENCE = 120.0
"""Seconds until a process that should have done something long ago is given up."""


def settings(run: Path, data: Path, **changes: Any) -> dict[str, Any]:
    """The settings of a tiny run by dotted key."""
    return {"data.path": str(data), "run": str(run), **SETTINGS, **changes}


def train_tiny(run: Path, data: Path, *, resume: bool = False, **changes: Any) -> Path:
    """Trains the recipe `tiny` in this process."""
    return longspan.train("tiny", resume=resume, **settings(run, data, **changes))


def words(changes: dict[str, Any]) -> list[str]:
    """Settings as the command line takes them."""
    return [w for key, value in changes.items() for w in (f"--{key}", json.dumps(value))]


def command(*arguments: object) -> list[str]:
    """The console script that stands beside this Python, as users call it."""
    return [str(Path(sys.executable).with_name("longspan")), *map(str, arguments)]


def environment(**more: str) -> dict[str, str]:
    """As a user has it: whether Python buffers is not ours to say."""
    return {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"} | more


def start(*arguments: object, **options: Any) -> subprocess.Popen[bytes]:
    """Starts the command line in a process of its own."""
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command(*arguments), **{"env": environment()} | pipes | options)


def run(*arguments: object, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Runs the command line in a process of its own, to its end."""
    options = {"capture_output": True, "timeout": PATIENCE, "env": environment()} | options
    return subprocess.run(command(*arguments), **options)


def wait_until(true: Callable[[], object], process: subprocess.Popen[bytes] | None = None) -> None:
    """Waits until `true()` is, or the process has ended; fails if neither ever happens."""
    deadline = time.monotonic() + PATIENCE
    while not true() and (process is None or process.poll() is None):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.001)


@dataclass(frozen=True)
class Result:
    """What a call of the command line left."""

    status: int
    out: str
    err: str


def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> Result:
    """Calls the command line within this process."""
    monkeypatch.setattr(sys, "argv", ["longspan", *map(str, arguments)])
    capsys.readouterr()
    status: Any = 0
    try:
        main()
    except SystemExit as error:
        status = error.code or 0
    out, err = capsys.readouterr()
    return Result(status, out, err)


def refused(result: Result | subprocess.CompletedProcess[bytes]) -> str:
    """The one message that bad input gets; fails if there is more or less than that."""
    if isinstance(result, Result):
        status, err = result.status, result.err
    else:
        status, err = result.returncode, result.stderr.decode()
    assert status == 2, err
    assert "Traceback" not in err
    _, *messages = f"\n{err}".split("\nlongspan: ")
    assert len(messages) == 1, err
    return messages[0]


def contents(folder: Path) -> dict[str, str]:
    """Every file beneath `folder` with its sha256."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


EXACT = ("model.safetensors", "optimizer.safetensors", "memory.safetensors", "trainer.json")


def assert_same_end(mine: Path, theirs: Path) -> None:
    """Both runs ended with bit for bit the same."""
    assert (mine / "metrics.jsonl").read_text() == (theirs / "metrics.jsonl").read_text()
    (a, *_), (b, *_) = (sorted((run / "checkpoints").iterdir())[::-1] for run in (mine, theirs))
    assert a.name == b.name
    assert json.loads((a / "trainer.json").read_text()) == json.loads(
        (b / "trainer.json").read_text()
    )
    for name in EXACT:
        assert (a / name).read_bytes() == (b / name).read_bytes(), name


def lines(stream: Iterable[bytes] | bytes) -> list[Any]:
    """JSON lines."""
    rows = stream.splitlines() if isinstance(stream, bytes) else stream
    return [json.loads(row) for row in rows]


def sentences(count: int) -> list[tuple[str, str]]:
    """Pairs of a sentence and the same in other words: each word has one of its own."""
    draw = random.Random(0)
    words = {"red": "rot", "blue": "blau", "cat": "Katze", "dog": "Hund", "a": "ein", "the": "das"}
    pairs = []
    for _ in range(count):
        source = draw.choices([*words], k=draw.randint(2, 7))
        pairs.append((" ".join(source), " ".join(words[word] for word in source)))
    return pairs


def written(task: str, data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Settings of a small data set such as the section `data` of a recipe of `task` asks for."""
    if task == "span_answering":
        path = folder / "questions.json"
        entries = []
        for number, (context, _) in enumerate(sentences(60)):
            answer = {"text": context.split()[-1], "answer_start": context.rindex(" ") + 1}
            question = {"id": str(number), "question": "what is last?", "answers": [answer]}
            entries.append({"paragraphs": [{"context": context, "qas": [question]}]})
        path.write_text(json.dumps({"data": entries}), "utf-8")
        return {"data.path": str(path)}
    if task == "classification":
        path = folder / "labelled.jsonl"
        rows = ({"text": text, "label": text.split()[0]} for text, _ in sentences(80))
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        return {"data.path": str(path)}
    path = folder / "pairs.jsonl"
    fields = data.get("source", "source"), data.get("target", "target")
    rows = (dict(zip(fields, pair, strict=True)) for pair in sentences(80))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return {"data.path": str(path)}


def images(folder: Path, count: int = 40, seed: int = 0) -> dict[str, Any]:
    """Settings of small grey images in a folder for each of two classes: bright above or below."""
    draw = np.random.default_rng(seed)
    for number in range(count):
        pixels = draw.integers(0, 100, (8, 8)).astype(np.uint8)
        label = ("above", "below")[number % 2]
        pixels[slice(0, 4) if label == "above" else slice(4, 8)] += 100
        (folder / "images" / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / "images" / label / f"{number:03}.png")
    return {"data.path": str(folder / "images")}
