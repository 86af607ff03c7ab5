"""SciTLDR and QMSum: a model that writes summaries, beside what costs nothing.

    python benchmarks/summaries.py baselines ../shared/data
    python benchmarks/summaries.py train ../shared/data scitldr --out runs/summaries
    python benchmarks/summaries.py train ../shared/data qmsum --out runs/summaries

SciTLDR (2004.15011): an abstract to one sentence, of which the test has several; the best counts.
QMSum (2104.05938): a question about a meeting and the meeting, some 9,000 words, to some 70.

Baselines take sentences of an abstract, or what was said in a meeting without a break: the first,
the longest, those that have most of the question's words, and the one that agrees best with a
reference. They take as many as are needed for the words of a mean summary of the training part. The
question is told to a model first, then the meeting, which a window reads; and everything else is
the recipe `summarization`.
"""

from __future__ import annotations

import argparse
import json
import lzma
import re
import statistics
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import longspan
from longspan.answers import normalised
from longspan.machine import hardware, versions
from longspan.tasks.summarization import Summarization
from longspan.training.run import section
from longspan.transduction import Transduction

PARTS = ("train", "val", "test")
NOISE = re.compile(r"\s*\{[^}]*\}")
"""Marks of a transcript: {vocalsound}, {disfmarker}."""

SETTINGS: dict[str, dict[str, Any]] = {
    "scitldr": {"train.steps": 500, "evaluate.every": 100, "log.checkpoint": 100},
    "qmsum": {
        "data.source": ["query", "source"],
        "model.encoder.pattern": {"name": "window", "width": 64, "causal": False},
        "train.steps": 100,
        "train.tokens": 40_000,
        "train.warmup": 20,
        "evaluate.every": 50,
        "evaluate.tokens": 200_000,
        "log.checkpoint": 50,
    },
}


@dataclass(frozen=True)
class Piece:
    """Something to summarise.

    Attributes:
        units: its sentences, or what was said in it without a break.
        targets: its summaries.
        query: what is asked about it; "" for the whole.
    """

    units: tuple[str, ...]
    targets: tuple[str, ...]
    query: str = ""


def scitldr(shared: Path, part: str) -> Iterator[Piece]:
    """Abstracts."""
    name = {"val": "dev"}.get(part, part)
    with lzma.open(shared / "sum_scitldr" / f"{name}.jsonl.xz", "rt", encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            sentences = (" ".join(each.split()) for each in record["source"])
            targets = tuple(" ".join(each.split()) for each in record["target"])
            yield Piece(tuple(each for each in sentences if each), targets)


def qmsum(shared: Path, part: str) -> Iterator[Piece]:
    """Questions about meetings."""
    with tarfile.open(shared / "sum_qmsum" / f"{part}.tar.xz") as files:
        for name in sorted(files.getnames()):
            file = files.extractfile(name) if name.endswith(".json") else None
            if file is None:
                continue
            meeting = json.load(file)
            turns = (
                (t["speaker"], NOISE.sub("", t["content"])) for t in meeting["meeting_transcripts"]
            )
            units = tuple(f"{who}: {' '.join(said.split())}" for who, said in turns if said.strip())
            for asked in meeting["general_query_list"] + meeting["specific_query_list"]:
                yield Piece(units, (" ".join(asked["answer"].split()),), asked["query"].strip())


SETS: dict[str, Callable[[Path, str], Iterator[Piece]]] = {"scitldr": scitldr, "qmsum": qmsum}


def enough(units: Sequence[str], words: float) -> str:
    """So many of some units, the first ones, that together they have so many words."""
    taken, count = list[str](), 0
    for unit in units:
        if count >= words:
            break
        taken.append(unit)
        count += len(unit.split())
    return "\n".join(taken)


def by_length(piece: Piece) -> list[str]:
    """Its units, the longest first."""
    return sorted(piece.units, key=lambda unit: -len(unit.split()))


def by_query(piece: Piece) -> list[str]:
    """Its units, those first that have most of the question's words."""
    asked = set(normalised(piece.query))
    return sorted(piece.units, key=lambda unit: -len(asked & set(normalised(unit))))


def best_unit(piece: Piece) -> str:
    """The unit that agrees best with one of its summaries, by ROUGE-L."""
    task = Summarization()
    return max(piece.units, key=lambda unit: task.judge([unit], [piece.targets])["rouge_l"])


def told(name: str, baseline: str, texts: Sequence[str], pieces: Sequence[Piece]) -> None:
    """Prints one line."""
    scores = Summarization().judge(texts, [piece.targets for piece in pieces])
    rounded = {key: round(score, 2) for key, score in scores.items()}
    print(json.dumps({"set": name, "of": baseline, "texts": len(texts), **rounded}), flush=True)


def baselines(shared: Path, names: Sequence[str]) -> None:
    """Prints what costs nothing."""
    for name in names:
        pieces_of = SETS[name]
        learnt = [piece.targets[0] for piece in pieces_of(shared, "train")]
        words = statistics.fmean(len(target.split()) for target in learnt)
        pieces = list(pieces_of(shared, "test"))
        told(name, "first", [enough(piece.units, words) for piece in pieces], pieces)
        told(name, "longest", [enough(by_length(piece), words) for piece in pieces], pieces)
        if all(piece.query for piece in pieces):
            told(name, "nearest", [enough(by_query(piece), words) for piece in pieces], pieces)
        else:
            told(name, "the best sentence", [best_unit(piece) for piece in pieces], pieces)


def written(shared: Path, name: str, folder: Path) -> dict[str, str]:
    """The parts of a set as tables, and where they are."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {part: folder / f"{part}.jsonl" for part in PARTS}
    for part, path in paths.items():
        with path.open("w", encoding="utf-8") as file:
            for piece in SETS[name](shared, part):
                source = (" " if name == "scitldr" else "\n").join(piece.units)
                record = {"query": piece.query, "source": source, "target": piece.targets}
                file.write(json.dumps(record) + "\n")
    return {part: str(path) for part, path in paths.items()}


def train(shared: Path, name: str, folder: Path, changes: dict[str, Any]) -> None:
    """Trains the recipe, or goes on where it stopped; summarises the test part, and writes what
    came of it.
    """
    paths = written(shared, name, folder / f"{name}_data")
    given = {
        "data.path": paths["train"],
        "data.valid": paths["val"],
        "data.source": "source",
        "data.target": "target",
        "run": str(folder / name),
        **SETTINGS[name],
        **changes,
    }
    begun = (folder / name / "run.yaml").is_file()
    run = longspan.load(longspan.train("summarization", resume=begun, **given))
    speed = json.loads((run.path / "speed.json").read_text("utf-8"))
    task = run.task
    assert isinstance(task, Transduction)
    pairs = task.read(section(run), [paths["test"]], run.tokenizer)
    scores, replies = task.examine(run.model, pairs, run.tokenizer)  # type: ignore[arg-type]
    result = {
        "set": name,
        **scores,
        "texts": len(pairs),
        "parameters": sum(p.numel() for p in run.model.parameters()),
        "seconds": round(speed["seconds"]),
        "settings": {**SETTINGS[name], **changes},
        "hardware": hardware(torch.device("cpu")),
        "versions": versions(),
    }
    (folder / f"{name}.json").write_text(json.dumps(result, indent=1), "utf-8")
    print(json.dumps(result))
    for best, *_ in replies[:5]:
        print(best.text)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("baselines", "train"):
        made = verbs.add_parser(verb)
        made.add_argument("shared", type=Path)
        if verb == "baselines":
            made.add_argument("--only", nargs="+", choices=SETS, default=tuple(SETS))
        else:
            made.add_argument("name", choices=SETS)
            made.add_argument("--out", type=Path, default=Path("runs/summaries"))
            made.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    if given.verb == "baselines":
        baselines(given.shared, given.only)
    else:
        pairs = (pair.partition("=") for pair in given.set)
        changes = {key: json.loads(value) for key, _, value in pairs}
        train(given.shared, given.name, given.out, changes)


if __name__ == "__main__":
    main()
