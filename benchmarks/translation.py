"""Translation as attention came to it: without any, with Bahdanau's and Luong's, and all of it.

    python benchmarks/translation.py train bahdanau luong --data multi30k --out runs/multi30k
    python benchmarks/translation.py table --data multi30k --out runs/multi30k

`--data` is a folder with train, val and test_2016_flickr, .en and .de, compressed or not (the names
of Multi30k). All models are the recipe `translation` but for what stands in `MODELS`: the same
tokens, batches, optimizer, rate and dropout, and as many parameters within 7 %. Scores are
sacrebleu's on the text as it is, written with four beams.
"""

from __future__ import annotations

import argparse
import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch

import longspan
from longspan.config import Tree, read_yaml, write_yaml
from longspan.data.pairs.corpus import read
from longspan.machine import hardware, versions
from longspan.training.recipe import recipe_text
from longspan.transduction import Transduction

LAYERS: Tree = {
    "width": 128,
    "heads": 1,
    "feed_forward": 256,
    "activation": "relu",
    "dropout": 0.25,
}
LSTM: Tree = LAYERS | {"layers": 2, "mixer": "lstm"}
BOTH: Tree = {"shared": True, "encoder": LSTM, "decoder": LSTM}


def transformer(**decoder: Any) -> Tree:
    """The recipe's own model, with changes of its decoder; narrower if these have parameters."""
    model = deepcopy(read_yaml(recipe_text("translation"), "translation")["model"])
    if decoder:
        model["encoder"]["feed_forward"] = 128
        model["decoder"] |= {"feed_forward": 128} | decoder
    return model


MODELS: dict[str, Tree] = {
    # a state alone: one stack reads the source, then writes (1409.3215)
    "none": LAYERS | {"width": 160, "layers": 4, "feed_forward": 224},
    "bahdanau": BOTH | {"cross": {"heads": 1, "score": {"name": "additive", "width": 128}}},
    "luong": BOTH | {"cross": {"heads": 1, "score": "general"}},
    "transformer": transformer(),
    # the decoder sees eight tokens and 16 slots of what was before
    "mat": transformer(
        pattern={"name": "segments", "length": 8, "memory": 0},
        memory={"name": "layer", "slots": 16},
    ),
}


def paths(data: Path, part: str) -> list[str]:
    """Both sides of a part, whatever they are compressed with."""
    found = [sorted(data.glob(f"{part}.{side}*")) for side in ("en", "de")]
    if not all(found):
        raise SystemExit(f"{data}: there is no {part}.en and {part}.de")
    return [str(side[0]) for side in found]


def train(name: str, data: Path, out: Path, steps: int) -> None:
    """Trains a model, or goes on where it stopped."""
    tree = read_yaml(recipe_text("translation"), "translation")
    tree["model"] = MODELS[name]
    tree["data"] |= {"path": paths(data, "train"), "valid": paths(data, "val")}
    tree["train"] |= {"steps": steps, "threads": 1}
    out.mkdir(parents=True, exist_ok=True)
    recipe = out / f"{name}.yaml"
    recipe.write_text(write_yaml(tree), encoding="utf-8")
    longspan.train(str(recipe), resume=(out / name / "run.yaml").is_file(), run=str(out / name))


def table(data: Path, out: Path) -> None:
    """Prints a row for each model that was trained."""
    print(hardware(torch.device("cpu")), versions()["torch"])
    print("| | parameters | steps | minutes | BLEU | chrF |\n|---|--:|--:|--:|--:|--:|")
    for name in MODELS:
        if not (out / name / "speed.json").is_file():
            continue
        run = longspan.load(out / name)
        assert isinstance(run.task, Transduction)
        ours, theirs = paths(data, "test_2016_flickr")
        pairs = read((ours, theirs), run.tokenizer)
        scores, _ = run.task.examine(run.model, pairs, run.tokenizer)  # type: ignore[arg-type]
        speed = json.loads((out / name / "speed.json").read_text())
        count = sum(int(np.prod(p.shape)) for p in run.model.parameters())
        steps = run.config["train"]["steps"]
        cells = [name, f"{count:,}", f"{steps:,}", f"{speed['seconds'] / 60:.0f}"]
        cells += [f"{scores[each]:.2f}" for each in ("bleu", "chrf")]
        print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("verb", choices=["train", "table"])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(MODELS)}")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/multi30k"))
    parser.add_argument("--steps", type=int, default=1200)
    given = parser.parse_args()
    if given.verb == "table":
        table(given.data, given.out)
        return
    for name in given.names or MODELS:
        if name not in MODELS:
            parser.error(f"there is no model {name!r}; choose of {', '.join(MODELS)}")
        train(name, given.data, given.out, given.steps)


if __name__ == "__main__":
    main()
