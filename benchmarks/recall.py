"""How far back each mechanism can be made to remember: copy, associative recall, selective copying.

    python benchmarks/recall.py train xl lstm --out runs/recall
    python benchmarks/recall.py table --out runs/recall

An episode is a document: something to keep, noise of a given length, a question. It is read a
segment of 16 tokens at a time, the memory carried on, and only the answers are learned from. Every
mechanism has four layers of width 64, as many parameters (the feed-forward network makes up the
difference), the same episodes, and the better of the same two learning rates, each of which it
tries for a tenth of the steps. Distances up to 16 times the segment are mixed in every run. Muon
learns: with AdamW the same accuracy takes more than twice the steps.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_model
from torch import Tensor
from torch.nn.functional import cross_entropy

from longspan import Decoder, DecoderConfig
from longspan.config import build
from longspan.machine import hardware, versions
from longspan.training.optimizer import Optimizer
from longspan.training.recipe import TrainConfig

SEGMENT = 16
DISTANCES = (2, 16, 32, 64, 128, 256)
TASKS = ("copy", "recall", "select")
SYMBOLS = 16
NOISE = 16
KEPT = 4
ASK = SYMBOLS + NOISE
TASK = {task: ASK + 1 + number for number, task in enumerate(TASKS)}
VOCABULARY = ASK + 1 + len(TASKS)
RATES = (3e-3, 1e-2)

NEAR: dict[str, Any] = {
    "position": "xl",
    "pattern": {"name": "segments", "length": SEGMENT, "memory": 0},
}
XL: dict[str, Any] = {
    "position": "xl",
    "pattern": {"name": "segments", "length": SEGMENT, "memory": 64},
    "memory": {"name": "recent", "tokens": 64},
}
FAR: dict[str, Any] = {"name": "nearest", "tokens": 512, "top": 8, "local": 64}
MECHANISMS: dict[str, dict[str, Any]] = {
    "everything": {"position": "xl", "pattern": "causal", "memory": "cache"},
    "none": NEAR,
    "rnn": {"mixer": "rnn"},
    "lstm": {"mixer": "lstm"},
    "gru": {"mixer": "gru"},
    "xl": XL,
    "xl, gradient through": XL,
    "compressive": {
        "position": "xl",
        "pattern": {"name": "segments", "length": SEGMENT, "memory": 288},
        "memory": {"name": "compressive", "tokens": 32, "compressed": 64, "rate": 4},
    },
    "rmt": {**NEAR, "memory": {"name": "tokens", "count": 8}},
    "infini": {**NEAR, "memory": "infini"},
    # as in its paper one layer has it, beside Transformer-XL's memory
    "nearest": {**XL, "stack": [{}, {}, {"memory": FAR}, {}]},
    "mat": {**NEAR, "memory": {"name": "layer", "slots": 32}},
    "linear": {"mixer": "linear", "position": "sinusoidal"},
    "performer": {"mixer": {"name": "favor", "features": 64}, "position": "sinusoidal"},
}
"""What differs from one mechanism to the next, as a recipe has it."""

STOPS = {"none", "xl", "compressive", "nearest"}
"""Where the gradient stops between segments, as in their papers; elsewhere it flows through the
episode."""


def slug(name: str) -> str:
    """Of a mechanism's files."""
    return name.replace(", ", "-").replace(" ", "-")


def configured(name: str, feed_forward: int = 256) -> DecoderConfig:
    """The decoder of a mechanism."""
    sizes = {"width": 64, "layers": 4, "heads": 4, "feed_forward": feed_forward}
    return build(DecoderConfig, {**sizes, **MECHANISMS[name]}, name)


def parameters(config: DecoderConfig) -> int:
    """How many numbers it learns."""
    with torch.device("meta"):
        return sum(p.numel() for p in Decoder(config, VOCABULARY).parameters())


def equal(name: str) -> DecoderConfig:
    """As `configured`, with as many parameters as `xl`, to within one row of every layer."""
    config = configured(name)
    missing = parameters(configured("xl")) - parameters(config)
    row = parameters(configured(name, 257)) - parameters(config)
    return replace(config, feed_forward=max(16, config.feed_forward + round(missing / row)))


def episodes(task: str, distance: int, rows: int, random: torch.Generator) -> tuple[Tensor, int]:
    """Tokens (rows, length) of one task at one distance, and how many of the last are asked for.

    copy: the 4 symbols again. select: the 4 symbols that stood among noise. recall: of 4 pairs of
    different keys and any values, the values to the keys in another order.
    """

    def draw(high: int, *shape: int) -> Tensor:
        return torch.randint(high, shape, generator=random)

    noise = SYMBOLS + draw(NOISE, rows, distance)
    kept = draw(SYMBOLS, rows, KEPT)
    begin, ask = torch.full((rows, 1), TASK[task]), torch.full((rows, 1), ASK)
    if task == "recall":
        keys = torch.rand(rows, SYMBOLS, generator=random).argsort(1)[:, :KEPT]
        given = torch.stack([keys, kept], 2).flatten(1)
        order = torch.rand(rows, KEPT, generator=random).argsort(1)
        asked = torch.stack([keys.gather(1, order), kept.gather(1, order)], 2).flatten(1)
        return torch.cat([begin, given, noise, ask, asked], 1), 2 * KEPT
    given = kept
    if task == "select":
        given = SYMBOLS + draw(NOISE, rows, 2 * KEPT)
        places = torch.rand(rows, 2 * KEPT, generator=random).argsort(1)[:, :KEPT].sort(1).values
        given = given.scatter(1, places, kept)
    return torch.cat([begin, given, noise, ask, kept], 1), KEPT


def answers(model: Decoder, tokens: Tensor, asked: int, stops: bool) -> tuple[Tensor, Tensor]:
    """Logits (rows, asked, V) for the last `asked` tokens, read segment by segment, and the mean
    over rows of what memories ask of training beside (a number).
    """
    state, parts, aside = None, [], torch.zeros(())
    read = tokens[:, :-1]
    length = read.shape[1]
    # where nothing happens between segments the whole says the same, sooner
    step = SEGMENT if model.config.segment > 1 else length
    for begin in range(0, length, step):
        hidden, state = model.hidden(read[:, begin : begin + step], state)
        if state.loss is not None:
            aside = aside + state.loss.mean()
        if stops:
            state = state.detach()
        if begin + hidden.shape[1] > length - asked:
            parts.append(hidden)
    return model.head(torch.cat(parts, 1)[:, -asked:]), aside


def scored(task: str, logits: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and targets of the tokens that are scored: of pairs the values alone."""
    asked = logits.shape[1]
    step = 2 if task == "recall" else 1
    return logits[:, step - 1 :: step], tokens[:, -asked:][:, step - 1 :: step]


@dataclass
class Learner:
    """A model, its optimizer and its episodes."""

    name: str
    rate: float
    steps: int
    rows: int
    tasks: tuple[str, ...] = TASKS
    grow: int = 0

    def __post_init__(self) -> None:
        torch.manual_seed(1)
        self.random = torch.Generator().manual_seed(2)
        self.model = Decoder(equal(self.name), VOCABULARY).train()
        config = TrainConfig(
            steps=self.steps,
            batch=self.rows,
            learning_rate=self.rate,
            warmup=50,
            optimizer="muon",
            weight_decay=0.01,
        )
        self.optimizer = Optimizer(self.model, config, torch.float32)
        self.done, self.tokens = 0, 0
        self.losses: list[float] = []

    def step(self) -> None:
        """One update on episodes of one task and distance, drawn at random."""
        task = self.tasks[int(torch.randint(len(self.tasks), (), generator=self.random))]
        # the first `grow` distances join one after another, or all are there from the first step
        reached = 1 + self.done * self.grow // self.steps if self.grow else len(DISTANCES)
        distance = DISTANCES[int(torch.randint(reached, (), generator=self.random))]
        tokens, asked = episodes(task, distance, self.rows, self.random)
        logits, aside = answers(self.model, tokens, asked, self.name in STOPS)
        logits, targets = scored(task, logits, tokens)
        loss = cross_entropy(logits.flatten(0, 1), targets.flatten())
        (loss + aside).backward()
        self.optimizer.gather()
        self.optimizer.clip()
        self.optimizer.step(self.done)
        self.done += 1
        self.tokens += tokens.numel()
        self.losses.append(loss.item())


@torch.no_grad()
def accuracy(model: Decoder, rows: int = 256) -> dict[str, dict[int, float]]:
    """Share of answers that are right, by task and distance, on episodes never seen."""
    model.eval()
    random = torch.Generator().manual_seed(3)
    table: dict[str, dict[int, float]] = {}
    for task in TASKS:
        table[task] = {}
        for distance in DISTANCES:
            tokens, asked = episodes(task, distance, rows, random)
            logits, targets = scored(task, answers(model, tokens, asked, True)[0], tokens)
            table[task][distance] = (logits.argmax(-1) == targets).double().mean().item()
    model.train()
    return table


def train(
    name: str, folder: Path, steps: int, rows: int, tasks: tuple[str, ...], grow: int
) -> None:
    """Chooses a learning rate, trains, scores, and writes what came of it."""
    began = time.perf_counter()
    probes = {}
    for rate in RATES:
        probe = Learner(name, rate, steps, rows, tasks, grow)
        for _ in range(steps // 10):
            probe.step()
        probes[rate] = sum(probe.losses[-steps // 20 :]) / len(probe.losses[-steps // 20 :])
    rate = min(probes, key=lambda r: probes[r])
    learner = Learner(name, rate, steps, rows, tasks, grow)
    curve = []
    folder.mkdir(parents=True, exist_ok=True)
    while learner.done < steps:
        learner.step()
        if learner.done % max(1, steps // 8) == 0:
            table = accuracy(learner.model, 32)
            mean = {task: sum(row.values()) / len(row) for task, row in table.items()}
            curve.append({"step": learner.done, **mean})
            print(name, json.dumps(curve[-1]), flush=True)
    result = {
        "mechanism": name,
        "settings": MECHANISMS[name],
        "parameters": parameters(equal(name)),
        "feed_forward": equal(name).feed_forward,
        "gradient": "stops at a segment" if name in STOPS else "flows through the episode",
        "rates": probes,
        "rate": rate,
        "tasks": tasks,
        "grow": grow,
        "steps": steps,
        "rows": rows,
        "tokens": learner.tokens,
        "seconds": time.perf_counter() - began,
        "threads": torch.get_num_threads(),
        "accuracy": accuracy(learner.model),
        "curve": curve,
        "hardware": hardware(torch.device("cpu")),
        "versions": versions(),
    }
    save_model(learner.model, str(folder / f"{slug(name)}.safetensors"))
    (folder / f"{slug(name)}.json").write_text(
        json.dumps(result, indent=1) + "\n", encoding="utf-8"
    )


def main() -> None:
    """Trains mechanisms, or prints the table of those that are trained."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("verb", choices=("train", "table"))
    parser.add_argument("mechanisms", nargs="*")
    parser.add_argument("--out", type=Path, default=Path("runs/recall"))
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--rows", type=int, default=48)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--grow", type=int, default=0, help="distances that join one by one")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.verb == "train":
        for name in options.mechanisms or MECHANISMS:
            tasks = tuple(options.tasks)
            train(name, options.out, options.steps, options.rows, tasks, options.grow)
    else:
        for task in TASKS:
            print(f"\n| {task} | " + " | ".join(str(d) for d in DISTANCES) + " |")
            print("|---|" + "--:|" * len(DISTANCES))
            for name in MECHANISMS:
                path = options.out / f"{slug(name)}.json"
                if path.is_file():
                    row = json.loads(path.read_text(encoding="utf-8"))["accuracy"][task]
                    cells = [f"{row[str(d)]:.0%}" for d in DISTANCES]
                    print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
