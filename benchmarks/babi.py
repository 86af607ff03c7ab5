"""bAbI (1502.05698) read sentence by sentence: what a memory carried from one to the next is worth.

    python benchmarks/babi.py data en-10k.tar.xz --task 2 --also 1 --copies 4
    python benchmarks/babi.py train cache --out runs/babi
    python benchmarks/babi.py train none --out runs/babi
    python benchmarks/babi.py table --out runs/babi

Every sentence is filled up to the same number of words, so that a segment of the pattern is a
sentence; the last segment is the question with its answer. With the memory `none` the same decoder
answers from the question alone, and `--set 'data.source="question"'` teaches it the same without
reading what it cannot see. Of the file that is learnt from, the last 100 stories choose the
checkpoint; the test file is read once, at the end. `--also` learns another task's training file
beside it, and `--copies` each story as often, with people, things and places renamed among
themselves: who is called what says nothing about where they are.
"""

from __future__ import annotations

import argparse
import json
import random
import tarfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

import longspan
from longspan.config import write_yaml
from longspan.machine import hardware, versions
from longspan.training.run import section
from longspan.transduction import Transduction

FILLER = "_"
KINDS = (
    ("mary", "john", "sandra", "daniel"),
    ("football", "apple", "milk"),
    ("bathroom", "bedroom", "kitchen", "garden", "office", "hallway"),
)
"""Words that may be renamed among themselves."""

HELD_OUT = 100
"""Stories of the training file that choose the checkpoint."""

MEMORIES: dict[str, dict[str, Any]] = {
    "none": {"pattern": {"name": "segments", "memory": 0}},
    "cache": {"pattern": "causal", "memory": "cache"},
    "recent": {
        "pattern": {"name": "segments", "memory": 600},
        "memory": {"name": "recent", "tokens": 600},
    },
    "layer": {
        "pattern": {"name": "segments", "memory": 0},
        "memory": {"name": "layer", "slots": 100},
    },
}
"""What is carried from sentence to sentence. A cache keeps all, and where nothing happens between
segments the whole says the same, sooner: it learns without them."""

Question = tuple[list[list[str]], list[str], str]
"""The sentences so far, the question and its answer, as words."""


def stories(text: str) -> Iterator[list[Question]]:
    """The questions of each story."""
    sentences: list[list[str]] = []
    questions: list[Question] = []
    for line in text.splitlines():
        number, _, rest = line.partition(" ")
        if number == "1" and questions:
            yield questions
            sentences, questions = [], []
        said, *answer = rest.split("\t")
        words = said.lower().replace(".", " ").replace("?", " ").split()
        if answer:
            questions.append((list(sentences), words, answer[0].replace(",", " ")))
        else:
            sentences.append(words)
    yield questions


def filled(words: Sequence[str], length: int) -> str:
    """A sentence of `length` words."""
    return " ".join([*words, *[FILLER] * (length - len(words))])


def renamed(story: list[Question], draw: random.Random) -> list[Question]:
    """The same story about others."""
    names: dict[str, str] = {}
    for kind in KINDS:
        names |= dict(zip(kind, draw.sample(kind, len(kind)), strict=True))

    def others(words: Sequence[str]) -> list[str]:
        return [names.get(word, word) for word in words]

    return [
        ([others(sentence) for sentence in said], others(asked), names.get(answer, answer))
        for said, asked, answer in story
    ]


def read(archive: Path, task: int) -> dict[str, list[list[Question]]]:
    """The stories of a task: train and test."""
    parts = {}
    with tarfile.open(archive) as files:
        for name in files.getnames():
            for part in ("train", "test"):
                if f"/qa{task}_" in name and name.endswith(f"_{part}.txt"):
                    file = files.extractfile(name)
                    assert file is not None
                    parts[part] = list(stories(file.read().decode()))
    return parts


def data(archive: Path, task: int, also: Sequence[int], copies: int, folder: Path) -> None:
    """Writes train.jsonl, valid.jsonl and test.jsonl, and the length of a segment."""
    folder.mkdir(parents=True, exist_ok=True)
    parts, draw = read(archive, task), random.Random(0)
    parts["valid"] = parts["train"][-HELD_OUT:]
    learnt = parts["train"][:-HELD_OUT]
    for other in also:
        learnt += read(archive, other)["train"]
    parts["train"] = learnt + [renamed(s, draw) for _ in range(copies - 1) for s in learnt]
    every = [question for part in parts.values() for story in part for question in story]
    longest = max(len(words) for sentences, _, _ in every for words in sentences)
    asked = max(len(words) for _, words, _ in every)
    # the start symbol and the answer stand in the question's segment
    segment = max(longest, asked + 2)
    for part, read_ in parts.items():
        with open(folder / f"{part}.jsonl", "w", encoding="utf-8") as file:
            for sentences, words, answer in (question for story in read_ for question in story):
                record = {
                    "context": " ".join(filled(words, segment) for words in sentences),
                    "question": filled(words, segment - 2),
                    "answer": answer,
                }
                file.write(json.dumps(record) + "\n")
    (folder / "segment.json").write_text(json.dumps(segment), "utf-8")
    sizes = {part: sum(map(len, found)) for part, found in parts.items()}
    print(json.dumps({"questions": sizes, "segment": segment}))


def recipe(memory: str, folder: Path) -> dict[str, Any]:
    """What a memory's run is."""
    segment = json.loads((folder / "segment.json").read_text("utf-8"))
    chosen = dict(MEMORIES[memory])
    if isinstance(chosen["pattern"], dict):
        chosen["pattern"] = {**chosen["pattern"], "length": segment}
    return {
        "task": "question_answering",
        "data": {
            "path": str(folder / "train.jsonl"),
            "valid": str(folder / "valid.jsonl"),
            "test": "",
            "source": ["context", "question"],
            "separator": " ",
            "target": "answer",
            "tokenizer": "words",
            "cache": str(folder / "cache"),
        },
        "model": {
            "width": 64,
            "layers": 3,
            "heads": 4,
            "feed_forward": 128,
            "position": "xl",
            **chosen,
        },
        "train": {
            "steps": 3000,
            "tokens": 4096,
            "optimizer": "muon",
            "learning_rate": 1e-2,
            "warmup": 100,
            "weight_decay": 0.01,
            "final": 0.03,
        },
        "evaluate": {"every": 500, "tokens": 20000},
        "log": {"every": 20, "checkpoint": 500, "tensorboard": False},
        "run": str(folder / memory),
    }


def train(memory: str, folder: Path, changes: dict[str, Any], resume: bool) -> None:
    """Trains, answers the test's questions, and writes what came of it."""
    began = time.perf_counter()
    path = folder / f"{memory}.yaml"
    path.write_text(write_yaml(recipe(memory, folder)), "utf-8")
    run = longspan.load(longspan.train(str(path), resume=resume, **changes))
    seconds = time.perf_counter() - began
    task = run.task
    assert isinstance(task, Transduction)
    pairs = task.read(section(run), [str(folder / "test.jsonl")], run.tokenizer)
    scores, _ = task.examine(run.model, pairs, run.tokenizer)  # type: ignore[arg-type]
    result = {
        "memory": memory,
        **scores,
        "questions": len(pairs),
        "parameters": sum(p.numel() for p in run.model.parameters()),
        "seconds": round(seconds),
        "changes": changes,
        "hardware": hardware(torch.device("cpu")),
        "versions": versions(),
    }
    (folder / f"{memory}.json").write_text(json.dumps(result, indent=1), "utf-8")
    print(json.dumps(result))


def table(folder: Path) -> None:
    """Prints what is there."""
    print("| memory | right, % of the test's questions | parameters | training, s |")
    print("|---|---|---|---|")
    for memory in MEMORIES:
        path = folder / f"{memory}.json"
        if path.is_file():
            row = json.loads(path.read_text("utf-8"))
            print(
                f"| {memory} | {row['exact_match']:.1f} | {row['parameters']:,} "
                f"| {row['seconds']} |"
            )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    made = verbs.add_parser("data")
    made.add_argument("archive", type=Path)
    made.add_argument("--task", type=int, default=2)
    made.add_argument("--also", type=int, nargs="*", default=[])
    made.add_argument("--copies", type=int, default=1)
    trained = verbs.add_parser("train")
    trained.add_argument("memory", choices=MEMORIES)
    trained.add_argument("--resume", action="store_true")
    trained.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    shown = verbs.add_parser("table")
    for verb in (made, trained, shown):
        verb.add_argument("--out", type=Path, default=Path("runs/babi"))
    given = parser.parse_args()
    if given.verb == "data":
        data(given.archive, given.task, given.also, given.copies, given.out)
    elif given.verb == "train":
        pairs = (pair.partition("=") for pair in given.set)
        train(
            given.memory,
            given.out,
            {key: json.loads(value) for key, _, value in pairs},
            given.resume,
        )
    else:
        table(given.out)


if __name__ == "__main__":
    main()
