"""The long-dependency claim: accuracy against distance, with attention and without.

    python benchmarks/distance.py train
    python benchmarks/distance.py table
    python benchmarks/distance.py draw

A sequence is read to its end, then another is written about it. Copy: each symbol is needed as many
steps after it was read as there are symbols. Reverse: the last symbol is needed after one step, the
first after 2 n - 1, so that one sequence asks for every odd distance. Recall: one symbol of many is
marked, and it alone is to be written at the end. What the model writes itself is what it reads next
(greedy), and every symbol counts.

With attention: `EncoderDecoder`, recurrent networks under Bahdanau's score (1409.0473), and the
Transformer (1706.03762). Without: the network that reads hands its last state, layer by layer, to
the one that writes, which is the sequence to sequence of 1409.3215 (`HandedOver`). Each has two
layers of width 64 a side and as many parameters, which recurrent networks have in their units, so
that the ones without attention have the larger states. The same sequences, updates and optimizer
for all, and the better of the same two rates after a fifth of the updates.

`train` writes `benchmarks/distance.json` after every run and goes on with what is missing there;
`draw` makes `docs/distance.png` of it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from longspan import (
    GRU,
    LSTM,
    RNN,
    Additive,
    Cache,
    CrossConfig,
    Decoder,
    DecoderConfig,
    EncoderConfig,
    EncoderDecoder,
    EncoderDecoderConfig,
    Sinusoidal,
    State,
)
from longspan.machine import hardware, versions
from longspan.mixing import Mixer
from longspan.training.optimizer import Optimizer
from longspan.training.recipe import TrainConfig

HERE = Path(__file__).parent
RESULTS = HERE / "distance.json"
PICTURE = HERE.parent / "docs" / "distance.png"
SYMBOLS = 16
BEGIN = 2 * SYMBOLS
VOCABULARY = BEGIN + 1
LONGEST = 32
NOISE = 128
TASKS = ("copy", "reverse", "recall")
DISTANCES = {
    "copy": (1, 2, 4, 8, 16, 24, 32),
    "reverse": tuple(range(1, 2 * LONGEST, 2)),
    "recall": (1, 2, 4, 8, 16, 32, 64, 128),
}
NAMES = {"transformer": "Transformer"}
CELLS: dict[str, type[Mixer]] = {"rnn": RNN, "lstm": LSTM, "gru": GRU}
UNITS = {
    "rnn": 177,
    "lstm": 81,
    "gru": 96,
    "rnn + attention": 105,
    "lstm + attention": 48,
    "gru + attention": 57,
    "transformer": 0,
}
"""Of every recurrent layer, and in each direction, with which a model has the parameters of the
Transformer to within 1 %."""

MODELS = tuple(UNITS)
RATES = (3e-3, 1e-2)
SEEDS = (1, 2)
UPDATES = {"copy": 800, "reverse": 800, "recall": 200}
ROWS = 32
SHARE = 5
"""Of the updates, one in so many is tried with every rate; the better one goes on."""

SIZES: dict[str, Any] = {"width": 64, "layers": 2, "heads": 1, "feed_forward": 64}


class HandedOver(nn.Module):
    """Two causal stacks without attention: what the first carries at its end begins the second."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.reader, self.writer = (Decoder(config, VOCABULARY) for _ in range(2))

    def encode(self, source: Tensor) -> State:
        """(B, S) tokens to the state from which to write."""
        _, state = self.reader.hidden(source)
        return replace(self.writer.start(source.shape[0]), layers=state.layers)

    def decode(self, target: Tensor, state: State) -> tuple[Tensor, State]:
        """(B, T) tokens to logits (B, T, V) for the token after each, and the state."""
        return self.writer(target, state)


Model = HandedOver | EncoderDecoder


def built(name: str) -> Model:
    """A model by its name in `UNITS`."""
    if name == "transformer":
        sizes = {**SIZES, "heads": 4, "feed_forward": 256, "position": Sinusoidal()}
        config = EncoderDecoderConfig(
            encoder=EncoderConfig(**sizes), decoder=DecoderConfig(**sizes, memory=Cache())
        )
        return EncoderDecoder(config, VOCABULARY, VOCABULARY)
    cell, _, attention = name.partition(" + ")
    sizes = {**SIZES, "mixer": CELLS[cell](hidden=UNITS[name])}
    if not attention:
        return HandedOver(DecoderConfig(**sizes))
    config = EncoderDecoderConfig(
        encoder=EncoderConfig(**sizes),
        decoder=DecoderConfig(**sizes),
        cross=CrossConfig(score=Additive()),
    )
    return EncoderDecoder(config, VOCABULARY, VOCABULARY)


def parameters(model: Model) -> int:
    """How many numbers a loss depends on: of a stack whose states alone are read, not all."""
    tokens = torch.zeros(1, 2, dtype=torch.long)
    logits, _ = model.decode(tokens, model.encode(tokens))
    logits.sum().backward()
    count = sum(p.numel() for p in model.parameters() if p.grad is not None)
    model.zero_grad()
    return count


def episodes(
    task: str, length: int, rows: int, random: torch.Generator, distance: int | None = None
) -> tuple[Tensor, Tensor]:
    """Sources (rows, length) and targets (rows, N), int64, of one task.

    copy: the source again, N = length. reverse: from its end. recall: the symbol that is marked
    (the symbols have another 16 tokens for that), N = 1.

    Args:
        distance: of a recall, from the marked symbol to the answer, 1 … length; None draws one for
            each row, every octave as often.
    """
    source = torch.randint(SYMBOLS, (rows, length), generator=random)
    if task == "copy":
        return source, source
    if task == "reverse":
        return source, source.flip(1)
    back = torch.full((rows,), distance or 0)
    if distance is None:
        back = (length ** torch.rand(rows, generator=random)).round().long()
    row, place = torch.arange(rows), length - back
    target = source[row, place]
    source[row, place] += SYMBOLS
    return source, target[:, None]


def learnable(task: str, rows: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """One batch to learn from: recall at the length it is asked at, the others up to theirs."""
    if task == "recall":
        return episodes(task, NOISE, rows, random)
    return episodes(task, 1 + int(torch.randint(LONGEST, (), generator=random)), rows, random)


def before(target: Tensor) -> Tensor:
    """(B, N) what stands before each token of a target."""
    return torch.cat([torch.full_like(target[:, :1], BEGIN), target[:, :-1]], 1)


@torch.no_grad()
def written(model: Model, source: Tensor, length: int) -> Tensor:
    """(B, length) what a model writes about its source, reading what it wrote."""
    state = model.encode(source)
    token = torch.full_like(source[:, :1], BEGIN)
    tokens = []
    for _ in range(length):
        logits, state = model.decode(token, state)
        token = logits.argmax(-1)
        tokens.append(token)
    return torch.cat(tokens, 1)


def accuracy(model: Model, task: str, rows: int = 256) -> dict[int, float]:
    """Share of symbols that are right, by distance, of sequences never seen."""
    model.eval()
    random = torch.Generator().manual_seed(3)
    table: dict[int, float] = {}
    if task == "reverse":
        source, target = episodes(task, LONGEST, rows, random)
        right = (written(model, source, LONGEST) == target).double().mean(0).tolist()
        table = dict(zip(DISTANCES[task], right, strict=True))
    else:
        for distance in DISTANCES[task]:
            length = NOISE if task == "recall" else distance
            source, target = episodes(task, length, rows, random, distance)
            right = written(model, source, target.shape[1]) == target
            table[distance] = right.double().mean().item()
    model.train()
    return table


class Learner:
    """A model, its optimizer and its episodes.

    Args:
        updates: of the whole run, by which the rate falls.
    """

    def __init__(self, name: str, task: str, rate: float, seed: int, updates: int) -> None:
        torch.manual_seed(seed)
        self.random = torch.Generator().manual_seed(100 + seed)
        self.model, self.task = built(name).train(), task
        config = TrainConfig(
            steps=updates,
            batch=ROWS,
            learning_rate=rate,
            warmup=50,
            optimizer="muon",
            weight_decay=0.01,
        )
        self.optimizer = Optimizer(self.model, config, torch.float32)
        self.rate, self.losses = rate, list[float]()

    def until(self, updates: int) -> None:
        """Updates until there were so many in all, each on sequences of one length."""
        while len(self.losses) < updates:
            source, target = learnable(self.task, ROWS, self.random)
            logits, _ = self.model.decode(before(target), self.model.encode(source))
            loss = cross_entropy(logits.flatten(0, 1), target.flatten())
            loss.backward()
            self.optimizer.clip()
            self.optimizer.step(len(self.losses))
            self.losses.append(loss.item())


def run(name: str, task: str, seed: int, rates: Iterable[float]) -> dict[str, Any]:
    """A model at the better of some rates, trained and scored."""
    updates = UPDATES[task]
    learners = [Learner(name, task, rate, seed, updates) for rate in rates]
    tried = {}
    for learner in learners:
        learner.until(updates // SHARE)
        tried[learner.rate] = statistics.fmean(learner.losses[updates // SHARE // 2 :])
    learner = min(learners, key=lambda each: tried[each.rate])
    begun = time.process_time()
    learner.until(updates)
    seconds = (time.process_time() - begun) * SHARE / (SHARE - 1)
    blocks = range(0, updates, updates // 8)
    curve = [statistics.fmean(learner.losses[low : low + updates // 8]) for low in blocks]
    return {
        "tried": tried,
        "rate": learner.rate,
        "units": UNITS[name],
        "parameters": parameters(learner.model),
        "loss": [round(loss, 4) for loss in curve],
        "accuracy": accuracy(learner.model, task),
        "processor_seconds": round(seconds, 1),
    }


def known() -> dict[str, Any]:
    """What was measured so far."""
    if RESULTS.is_file():
        return json.loads(RESULTS.read_text(encoding="utf-8"))
    return {"runs": {}}


def note(task: str, name: str, seed: int, result: dict[str, Any]) -> None:
    """Writes a run down beside those that are there, others' of meanwhile as well."""
    results = known()
    results["about"] = {
        "hardware": hardware(torch.device("cpu")),
        "versions": versions(),
        "threads": torch.get_num_threads(),
        "updates": UPDATES,
        "rows": ROWS,
    }
    results["runs"].setdefault(task, {}).setdefault(name, {})[str(seed)] = result
    part = RESULTS.with_suffix(".part")
    part.write_text(json.dumps(results) + "\n", encoding="utf-8")
    part.replace(RESULTS)


def train(names: Iterable[str], tasks: Iterable[str], seeds: Iterable[int]) -> None:
    """Measures what is missing, and writes it down after each run.

    The first seed of a model and task tries the rates, the others take its.
    """
    for seed, task, name in product(seeds, tasks, names):
        runs = known()["runs"].get(task, {}).get(name, {})
        if str(seed) not in runs:
            rates = [each["rate"] for each in runs.values()][:1] or RATES
            result = run(name, task, seed, rates)
            note(task, name, seed, result)
            print(task, name, seed, json.dumps(result["accuracy"]), flush=True)


def seeds_of(results: dict[str, Any], task: str, name: str) -> dict[int, list[float]]:
    """Accuracy by distance, one number a seed; {} if there is no run."""
    runs = results["runs"].get(task, {}).get(name, {}).values()
    return {
        distance: [each["accuracy"][str(distance)] for each in runs]
        for distance in (DISTANCES[task] if runs else ())
    }


def table() -> None:
    """Prints accuracy by distance: lowest to highest seed where they differ by a percent."""
    results = known()
    for task in TASKS:
        shown = DISTANCES[task] if task != "reverse" else (1, 3, 7, 15, 23, 31, 47, 63)
        print(f"\n| {task} | " + " | ".join(str(d) for d in shown) + " |")
        print("|---|" + "--:|" * len(shown))
        for name in MODELS:
            scores = seeds_of(results, task, name)
            ends = [(f"{min(scores[d]):.0%}", f"{max(scores[d]):.0%}") for d in shown if scores]
            if ends:
                cells = [low if low == high else f"{low[:-1]}–{high}" for low, high in ends]
                print(f"| {name} | " + " | ".join(cells) + " |")


def draw() -> None:
    """The picture: accuracy against distance, mean of the seeds, and from lowest to highest."""
    from matplotlib.figure import Figure

    results = known()
    figure = Figure((14, 4.6), layout="constrained")
    panels = figure.subplots(1, len(TASKS), sharey=True)
    said = {
        "copy": "copy n symbols\ndistance of every symbol: n",
        "reverse": f"reverse {LONGEST} symbols\ndistances 1, 3 … {2 * LONGEST - 1} in one sequence",
        "recall": f"recall one marked symbol\namong {NOISE}",
    }
    colours = dict(zip((*CELLS, "transformer"), ("C1", "C0", "C2", "black"), strict=True))
    for axes, task in zip(panels, TASKS, strict=True):
        solved = []
        for name in MODELS:
            scores = seeds_of(results, task, name)
            cell = name.partition(" ")[0]
            alone = name in CELLS
            look = {
                "color": colours[cell],
                "label": NAMES.get(name, name.replace(cell, cell.upper())),
            }
            if scores and min(map(min, scores.values())) == 1:
                solved.append(look["label"])
            means = [statistics.fmean(scores[d]) for d in scores]
            axes.plot(list(scores), means, "--" if alone else "-", marker=".", **look)
            lows, highs = ([end(scores[d]) for d in scores] for end in (min, max))
            axes.fill_between(list(scores), lows, highs, color=look["color"], alpha=0.15)
        if len(solved) > 1:
            lines = "\n".join(["everything right at every distance:", *solved])
            axes.text(0.97, 0.95, lines, ha="right", va="top", transform=axes.transAxes)
        axes.axhline(1 / SYMBOLS, color="grey", linewidth=0.8, linestyle=":")
        axes.set_xscale("log", base=2)
        axes.set(title=said[task], xlabel="steps between reading and writing", ylim=(0, 1.03))
        axes.xaxis.set_major_formatter("{x:.0f}")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("symbols written right")
    panels[0].legend(fontsize=8)
    figure.savefig(PICTURE, dpi=120)


def main() -> None:
    """Trains what is missing, prints the table, or draws."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("verb", choices=("train", "table", "draw"))
    parser.add_argument("--only", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.verb == "train":
        train(options.only, options.tasks, options.seeds)
    elif options.verb == "table":
        table()
    else:
        draw()


if __name__ == "__main__":
    main()
