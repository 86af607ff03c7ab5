"""Classes of texts: an encoder, decoders with memory and without, and what is simple.

    python benchmarks/classes.py data ../shared/data --out runs/classes
    python benchmarks/classes.py baseline --out runs/classes
    python benchmarks/classes.py train imdb encoder --out runs/classes --threads 2
    python benchmarks/classes.py table --out runs/classes

`data` writes one JSON a line for each set: IMDB (cls_imdb), sentences (cls_sentences: sst2 and sst5
with the parts that they have; mr, subj, cr and mpqa with parts by a hash of the text) and
Hyperpartisan news (cls_hyperpartisan, five folds of articles, title and text).

The baseline is scikit-learn's logistic regression over TF-IDF of words and pairs of words, its C
chosen on validation data of the training part. Models:

    encoder     reads a text whole (the recipe `classification`)
    alone       a decoder over segments of 64 tokens, each of which is all that it knows
    memory      the same parameters; each layer sees the segment before too (`recent`)
    mat         each layer reads a slot for each segment before (the memory layer, `layer`)

Decoders tell the class by their last hidden state, so what they know of the beginning of a text is
what their memory holds.
"""

from __future__ import annotations

import argparse
import gzip
import json
import lzma
import re
import time
import xml.etree.ElementTree as etree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import longspan
from longspan.config import read_yaml, write_yaml
from longspan.data.split import rank
from longspan.machine import hardware, versions
from longspan.training.recipe import recipe_text
from longspan.training.run import section
from longspan.verdicts import agreement

Record = dict[str, Any]

SENTENCES = {"mr": "rt-polarity.all", "subj": "subj.all", "cr": "custrev.all", "mpqa": "mpqa.all"}
FOLDS = 5

SEGMENT = 64
STACK = {
    "width": 128,
    "layers": 2,
    "heads": 4,
    "feed_forward": 256,
    "position": "rotary",
    "activation": "relu",
    "dropout": 0.2,
}


def decoder(memory: Any, reach: int) -> dict[str, Any]:
    """The section `model` of a decoder that is judged by its last hidden state."""
    pattern = {"name": "segments", "length": SEGMENT, "memory": reach}
    return {
        "pool": "last",
        "dropout": 0.2,
        "decoder": {**STACK, "pattern": pattern, "memory": memory},
    }


MODELS: dict[str, dict[str, Any] | None] = {
    "encoder": None,
    "alone": decoder("none", 0),
    "memory": decoder({"name": "recent", "tokens": SEGMENT}, SEGMENT),
    "mat": decoder({"name": "layer", "slots": 32}, 0),
}


# -- data -----------------------------------------------------------------------------------------


def imdb(shared: Path) -> Iterator[tuple[str, Record]]:
    """The official parts."""
    for part in ("train", "test"):
        with lzma.open(shared / "cls_imdb" / f"{part}.jsonl.xz", "rt", encoding="utf-8") as file:
            for line in file:
                record = json.loads(line)
                label = ("neg", "pos")[record["label"]]
                yield f"imdb.{part}", {"text": record["text"], "label": label}


def sentences(shared: Path) -> Iterator[tuple[str, Record]]:
    """A label, a space and a text a line, in UTF-8 or else in Latin-1."""

    def records(name: str) -> Iterator[Record]:
        packed = (shared / "cls_sentences" / f"{name}.gz").read_bytes()
        for line in gzip.decompress(packed).split(b"\n"):
            try:
                text = line.decode()
            except UnicodeDecodeError:
                text = line.decode("latin-1")
            label, _, rest = text.strip().partition(" ")
            if rest:
                yield {"text": rest, "label": int(label)}

    for name, file in SENTENCES.items():
        for record in records(file):
            yield f"{name}.{'test' if rank(record['text']) < 0.1 else 'train'}", record
    for name, kind in (("sst2", "binary"), ("sst5", "fine")):
        for part, called in (("train", "train"), ("dev", "valid"), ("test", "test")):
            for record in records(f"stsa.{kind}.{part}"):
                yield f"{name}.{called}", record


def hyperpartisan(shared: Path) -> Iterator[tuple[str, Record]]:
    """Each article in the test of one fold and in the training of the others."""
    folder = shared / "cls_hyperpartisan"

    def tree(name: str) -> etree.Element:
        with lzma.open(folder / f"{name}-training-byarticle-20181122.xml.xz") as file:
            return etree.parse(file).getroot()

    labels = {each.get("id"): each.get("hyperpartisan") for each in tree("ground-truth")}
    for article in tree("articles"):
        text = re.sub(r"\s+", " ", " ".join(article.itertext())).strip()
        label = "yes" if labels[article.get("id")] == "true" else "no"
        record = {"text": f"{article.get('title')} {text}", "label": label}
        own = int(rank(str(article.get("id"))) * FOLDS)
        for fold in range(FOLDS):
            yield f"hyper{fold}.{'test' if fold == own else 'train'}", record


def data(shared: Path, out: Path) -> None:
    """Writes every set."""
    out.mkdir(parents=True, exist_ok=True)
    parts: dict[str, list[Record]] = {}
    for read in (imdb, sentences, hyperpartisan):
        for name, record in read(shared):
            parts.setdefault(name, []).append(record)
    for name, records in parts.items():
        lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        (out / f"{name}.jsonl").write_text("".join(lines), "utf-8")
        print(f"{name}: {len(records):,} records")


def read(path: Path) -> tuple[list[str], list[str]]:
    """Texts and labels."""
    records = [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]
    return [each["text"] for each in records], [str(each["label"]) for each in records]


# -- what is measured -----------------------------------------------------------------------------


def keep(out: Path, name: str, model: str, result: Record) -> None:
    """Writes what was measured, and prints it."""
    more = {"set": name, "model": model, **result}
    more |= {"hardware": hardware(torch.device("cpu")), "versions": versions()}
    (out / f"{name}.{model}.json").write_text(json.dumps(more, indent=1), "utf-8")
    print(json.dumps({"set": name, "model": model, **result}), flush=True)


def baseline(name: str, out: Path) -> None:
    """TF-IDF and logistic regression."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    began = time.perf_counter()
    texts, labels = read(out / f"{name}.train.jsonl")
    number = {label: place for place, label in enumerate(sorted(set(labels)))}
    known = np.array([number[label] for label in labels])
    # drawn by another hash than the test was
    held = np.array([rank(f"held {text}") < 0.1 for text in texts])
    vectors = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    x = vectors.fit_transform(texts)
    made = {c: LogisticRegression(C=c, max_iter=1000) for c in (1.0, 3.0, 10.0, 30.0)}
    best = max(made, key=lambda c: made[c].fit(x[~held], known[~held]).score(x[held], known[held]))
    judge = made[best].fit(x, known)
    tests, right = read(out / f"{name}.test.jsonl")
    told = judge.predict(vectors.transform(tests))
    scores = agreement(told, np.array([number[label] for label in right]))
    seconds = round(time.perf_counter() - began)
    keep(out, name, "baseline", {**scores, "records": len(tests), "C": best, "seconds": seconds})


def train(name: str, model: str, out: Path, changes: dict[str, Any]) -> None:
    """Trains a model, and tests what was best on validation data."""
    began = time.perf_counter()
    valid: Any = out / f"{name}.valid.jsonl"
    settings: dict[str, Any] = {
        "data.path": str(out / f"{name}.train.jsonl"),
        "data.valid": str(valid) if valid.is_file() else 0.1,
        "data.test": str(out / f"{name}.test.jsonl"),
        "log.tensorboard": False,
        "run": str(out / f"{name}.{model}"),
        **changes,
    }
    recipe = "classification"
    if (chosen := MODELS[model]) is not None:
        tree = read_yaml(recipe_text(recipe), recipe) | {"model": chosen}
        recipe = str(out / f"{name}.{model}.yaml")
        Path(recipe).write_text(write_yaml(tree), "utf-8")
    resume = (out / f"{name}.{model}" / "run.yaml").is_file()
    run = longspan.load(longspan.train(recipe, resume=resume, **settings))
    seconds = round(time.perf_counter() - began)
    task: Any = run.task
    test = task.prepare(section(run), run.learnt).test
    scores, _ = task.examine(run.model, test, run.learnt)
    result = {
        **scores,
        "records": len(test),
        "parameters": sum(p.numel() for p in run.model.parameters()),
        "steps": run.config["train"]["steps"],
        "seconds": seconds,
        "changes": changes,
    }
    keep(out, name, model, result)


def table(out: Path) -> None:
    """Prints what was measured; folds of one set as their mean."""
    found: dict[tuple[str, str], list[Record]] = {}
    for path in sorted(out.glob("*.json")):
        result = json.loads(path.read_text("utf-8"))
        name = re.sub(r"^hyper\d$", "hyper", result["set"])
        found.setdefault((name, result["model"]), []).append(result)
    print("| set | model | parameters | steps | minutes | accuracy | macro-F1 |")
    print("|---|---|--:|--:|--:|--:|--:|")
    for (name, model), results in found.items():
        mean = {key: np.mean([each[key] for each in results]) for key in ("accuracy", "macro_f1")}
        first, minutes = results[0], sum(each["seconds"] for each in results) / 60
        cells = [name, model, f"{first.get('parameters', 0):,}", f"{first.get('steps', 0):,}"]
        cells += [f"{minutes:.1f}", f"{mean['accuracy']:.2f}", f"{mean['macro_f1']:.2f}"]
        print(f"| {' | '.join(cells)} |")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("data", "baseline", "train", "table"):
        made = verbs.add_parser(verb)
        made.add_argument("--out", type=Path, default=Path("runs/classes"))
        if verb == "data":
            made.add_argument("shared", type=Path)
        if verb == "baseline":
            made.add_argument("names", nargs="*", help="sets; all of them if none is named")
        if verb == "train":
            made.add_argument("name")
            made.add_argument("model", choices=list(MODELS))
            made.add_argument("--steps", type=int)
            made.add_argument("--tokens", type=int)
            made.add_argument("--threads", type=int, default=1)
            made.add_argument("--set", action="append", default=[], help="KEY=VALUE of the recipe")
    given = parser.parse_args()
    if given.verb == "data":
        data(given.shared, given.out)
    elif given.verb == "baseline":
        every = sorted(path.name.split(".")[0] for path in given.out.glob("*.train.jsonl"))
        for name in given.names or every:
            baseline(name, given.out)
    elif given.verb == "train":
        changes: dict[str, Any] = {"train.threads": given.threads}
        for key in ("steps", "tokens"):
            if getattr(given, key) is not None:
                changes[f"train.{key}"] = getattr(given, key)
        for each in given.set:
            key, _, value = each.partition("=")
            changes[key] = json.loads(value)
        train(given.name, given.model, given.out, changes)
    else:
        table(given.out)


if __name__ == "__main__":
    main()
