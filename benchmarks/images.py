"""MNIST and CIFAR-10: an encoder of patches, of rows and of single pixels, and what is simple.

    python benchmarks/images.py baseline ../shared/data mnist --out runs/images
    python benchmarks/images.py train ../shared/data mnist patches --out runs/images --threads 2
    python benchmarks/images.py table --out runs/images

The baseline is scikit-learn's nearest neighbours on pixels (5, by distance).
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import longspan
from longspan.data.inputs.patches import opened
from longspan.data.labelled.collection import collection
from longspan.data.labelled.item import Item
from longspan.machine import hardware, versions
from longspan.training.run import own_data
from longspan.verdicts import agreement

SETS = {
    "mnist": ("img_mnist/train-images-idx3-ubyte.gz", "img_mnist/t10k-images-idx3-ubyte.gz"),
    "cifar10": ("img_cifar10/train.tar.xz", "img_cifar10/test.tar.xz"),
}

INPUTS: dict[str, dict[str, Any]] = {
    "patches": {"height": 4, "width": 4},
    "rows": {"height": 1, "width": None},
    "pixels": {"height": 1, "width": 1},
}

VARIED: dict[str, dict[str, Any]] = {
    "mnist": {"shift": 2},
    "cifar10": {"shift": 3, "mirror": True},
}


def items(shared: Path, name: str, part: int) -> list[Item]:
    """The records of a part."""
    return list(collection(str(shared / SETS[name][part])).items())


def keep(out: Path, name: str, model: str, result: dict[str, Any]) -> None:
    """Writes what was measured, and prints it."""
    out.mkdir(parents=True, exist_ok=True)
    more = {"set": name, "model": model, **result}
    about = {"hardware": hardware(torch.device("cpu")), "versions": versions()}
    (out / f"{name}.{model}.json").write_text(json.dumps(more | about, indent=1), "utf-8")
    print(json.dumps(more), flush=True)


def baseline(shared: Path, name: str, out: Path) -> None:
    """Nearest neighbours."""
    from sklearn.neighbors import KNeighborsClassifier

    began = time.perf_counter()
    parts = [items(shared, name, part) for part in (0, 1)]
    x, tests = (
        np.stack([np.asarray(opened(item), np.float32).ravel() for item in part]) for part in parts
    )
    names = sorted({item.label for item in parts[0]}, key=str)
    known, right = (np.array([names.index(item.label) for item in part]) for part in parts)
    judge = KNeighborsClassifier(5, weights="distance", algorithm="brute").fit(x, known)
    scores = agreement(judge.predict(tests), right)
    seconds = round(time.perf_counter() - began)
    keep(out, name, "nearest", {**scores, "records": len(right), "seconds": seconds})


def train(shared: Path, name: str, model: str, out: Path, changes: dict[str, Any]) -> None:
    """Trains the recipe `images`, and tests what was best on validation data."""
    began = time.perf_counter()
    chosen = {"name": "patches", **INPUTS[model], **VARIED[name]}
    settings = {
        "data.path": str(shared / SETS[name][0]),
        "data.test": str(shared / SETS[name][1]),
        "data.input": chosen,
        "log.tensorboard": False,
        "run": str(out / f"{name}.{model}"),
        **changes,
    }
    resume = (out / f"{name}.{model}" / "run.yaml").is_file()
    run = longspan.load(longspan.train("images", resume=resume, **settings))
    seconds = round(time.perf_counter() - began)
    task: Any = run.task
    test = own_data(run).test
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
    """Prints what was measured."""
    print("| set | model | parameters | steps | minutes | accuracy |\n|---|---|--:|--:|--:|--:|")
    for path in sorted(out.glob("*.json")):
        result = json.loads(path.read_text("utf-8"))
        cells = [result["set"], result["model"], f"{result.get('parameters', 0):,}"]
        cells += [f"{result.get('steps', 0):,}", f"{result['seconds'] / 60:.1f}"]
        print(f"| {' | '.join([*cells, format(result['accuracy'], '.2f')])} |")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("baseline", "train", "table"):
        made = verbs.add_parser(verb)
        if verb != "table":
            made.add_argument("shared", type=Path)
            made.add_argument("name", choices=list(SETS))
        if verb == "train":
            made.add_argument("model", choices=list(INPUTS))
            made.add_argument("--steps", type=int)
            made.add_argument("--threads", type=int, default=1)
            made.add_argument("--set", action="append", default=[], help="KEY=VALUE of the recipe")
        made.add_argument("--out", type=Path, default=Path("runs/images"))
    given = parser.parse_args()
    if given.verb == "baseline":
        baseline(given.shared, given.name, given.out)
    elif given.verb == "train":
        changes: dict[str, Any] = {"train.threads": given.threads}
        if given.steps is not None:
            changes["train.steps"] = given.steps
        for each in given.set:
            key, _, value = each.partition("=")
            changes[key] = json.loads(value)
        train(given.shared, given.name, given.model, given.out, changes)
    else:
        table(given.out)


if __name__ == "__main__":
    main()
