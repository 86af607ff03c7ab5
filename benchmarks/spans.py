"""SubjQA and COVID-QA: a model that finds spans, beside what costs nothing.

    python benchmarks/spans.py baselines ../shared/data
    python benchmarks/spans.py train ../shared/data subjqa --out runs/spans

Baselines: never an answer, the whole context, and the sentence that has most of the question's
words (with SubjQA only where it has more than a share of them, chosen on the validation files).
COVID-QA has no parts of its own: a hash of the article says which of 98 articles are for the test.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import longspan
from longspan.answers import agreement, normalised
from longspan.data.spans.config import SpansConfig
from longspan.data.spans.forms.squad import SQuAD
from longspan.data.spans.forms.subjqa import SubjQA
from longspan.data.spans.question import Question
from longspan.data.spans.windows import prepare
from longspan.data.tokenizers.bytes import Bytes
from longspan.machine import hardware, versions
from longspan.tasks.span_answering import Found, SpanAnswering, answered, tuned
from longspan.training.run import own_data

DOMAINS = ("electronics", "grocery", "restaurants", "tripadvisor")
SENTENCE = re.compile(r"[^.!?\n]+[.!?]*")


def section(shared: Path, name: str) -> dict[str, Any]:
    """Where the questions of a set are."""
    if name == "covid":
        path = str(shared / "qa_covid" / "200423_covidQA.json.xz")
        return {"path": path, "valid": 0.1, "test": 0.2, "form": "squad"}
    parts = {"path": "train", "valid": "dev", "test": "test"}
    folder = shared / "qa_subjqa"
    paths = {
        key: [str(folder / f"{domain}_{part}.csv.xz") for domain in DOMAINS]
        for key, part in parts.items()
    }
    return {**paths, "form": "subjqa"}


def nearest(question: Question) -> Found:
    """The sentence with most of the question's words, and which share of them it has."""
    asked = set(normalised(question.text))
    best, share = "", -1.0
    for match in SENTENCE.finditer(question.context):
        sentence = match.group().strip()
        mine = len(asked & set(normalised(sentence))) / max(1, len(asked))
        if mine > share:
            best, share = sentence, mine
    return Found(best, share)


def told(name: str, baseline: str, texts: Sequence[str], asked: Sequence[Question]) -> None:
    """Prints one line."""
    scores = agreement(texts, [question.references for question in asked])
    print(json.dumps({"set": name, "of": baseline, "questions": len(asked), **scores}))


def baselines(shared: Path) -> None:
    """Prints what costs nothing."""
    for name, form in (("subjqa", SubjQA()), ("covid", SQuAD())):
        given = section(shared, name)
        tuples = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
        splits = prepare(SpansConfig(**{**tuples, "form": form, "tokenizer": Bytes()}))
        asked = splits.test.questions
        told(name, "no answer", [""] * len(asked), asked)
        told(name, "the whole context", [question.context for question in asked], asked)
        found = [nearest(question) for question in asked]
        told(name, "nearest sentence", [each.text for each in found], asked)
        valid = splits.valid.questions
        margin = tuned([nearest(q) for q in valid], [q.references for q in valid])
        told(name, f"nearest sentence, share above {margin:.2f}", answered(found, margin), asked)


def train(shared: Path, name: str, folder: Path, changes: dict[str, Any]) -> None:
    """Trains the recipe `answering`, or goes on where it stopped; answers the test's questions, and
    writes what came of it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    given = {f"data.{key}": value for key, value in section(shared, name).items()}
    settings = {**given, "run": str(folder / name), **changes}
    begun = (folder / name / "run.yaml").is_file()
    run = longspan.load(longspan.train("answering", resume=begun, **settings))
    speed = json.loads((run.path / "speed.json").read_text("utf-8"))
    splits: Any = own_data(run)
    task = run.task
    assert isinstance(task, SpanAnswering)
    task = task.fitted(run.model, splits.valid)
    scores, _ = task.examine(run.model, splits.test, run.tokenizer)  # type: ignore[arg-type]
    result = {
        "set": name,
        **scores,
        "questions": len(splits.test),
        "parameters": sum(p.numel() for p in run.model.parameters()),
        "seconds": round(speed["seconds"]),
        "changes": changes,
        "hardware": hardware(torch.device("cpu")),
        "versions": versions(),
    }
    (folder / f"{name}.json").write_text(json.dumps(result, indent=1), "utf-8")
    print(json.dumps(result))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("baselines", "train"):
        made = verbs.add_parser(verb)
        made.add_argument("shared", type=Path)
        if verb == "train":
            made.add_argument("name", choices=("subjqa", "covid"))
            made.add_argument("--out", type=Path, default=Path("runs/spans"))
            made.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    if given.verb == "baselines":
        baselines(given.shared)
    else:
        pairs = (pair.partition("=") for pair in given.set)
        changes = {key: json.loads(value) for key, _, value in pairs}
        train(given.shared, given.name, given.out, changes)


if __name__ == "__main__":
    main()
