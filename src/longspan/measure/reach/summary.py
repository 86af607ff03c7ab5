"""All measures of reach of one model or several, as one JSON-able dict.

`show/reach.py` says what the keys mean and makes a page of them.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import log
from typing import Any

import numpy as np
import torch

from longspan.errors import ConfigError
from longspan.machine import hardware, versions
from longspan.measure.reach import contexts
from longspan.measure.reach.associating import associating
from longspan.measure.reach.bands import band
from longspan.measure.reach.copying import copying
from longspan.measure.reach.effective import effective
from longspan.measure.reach.influence import influence
from longspan.measure.reach.looking import looking
from longspan.measure.reach.needle import needle
from longspan.measure.reach.predictor import Predictor
from longspan.measure.reach.probing import lengths
from longspan.measure.reach.reading import by_memory, by_position, read
from longspan.measure.reach.recl import RATIOS, recl
from longspan.measure.reach.recurring import recurring
from longspan.measure.reach.text import RUN, Targets, Text
from longspan.measure.reach.worth import worth

MULTIPLE = 8
"""The longest distance, where none is asked for, as a multiple of the trained memory or segment."""

STEPS = 16
"""Contexts of RECL, evenly spaced up to the longest."""

SHALLOW = 4
"""Pieces whose attention is looked at: weights are many."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured.

    Attributes:
        longest: distance in tokens up to which is measured; 0 for 8 times the trained memory (of a
            model without one: of what it reads at once), or as far as data and model reach.
        targets: tokens whose loss is taken at every context.
        pieces: of text that are read from an empty state.
        samples: sequences a cell of the probes.
        seed: of all draws.
    """

    longest: int = 0
    targets: int = 512
    pieces: int = 8
    samples: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"longest": 0, "targets": 1, "pieces": 1, "samples": 1, "seed": 0}
        problems = [
            f"--{name} must be {low} or more, not {getattr(self, name)}"
            for name, low in least.items()
            if getattr(self, name) < low
        ]
        if problems:
            raise ConfigError(problems)


def summarise(
    predictors: Sequence[Predictor],
    text: Text,
    plan: Plan | None = None,
    source: str = "",
    device: torch.device | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Measures models, one after the other, and RECL of them as a group.

    Args:
        predictors: of one vocabulary.
        text: what is read.
        plan: what to measure.
        source: what the text is called.
        device: where the models compute; the CPU if it is not said.
        say: told what is measured next.

    Raises:
        ConfigError: vocabularies that differ, or a distance that a model cannot span.
        DataError: the text is too short.
    """
    plan = plan or Plan()
    check_group(predictors)
    longest = distance(predictors, text, plan.longest)
    targets = text.targets(longest, plan.targets)
    step = max(1, longest // STEPS)
    grid = contexts.steps(longest, step)
    table, models = [], []
    for predictor in predictors:
        model, losses = _one(predictor, text, targets, longest, grid, plan, say)
        models.append(model)
        table.append(losses)
    group = np.stack(table)
    # of one model every chance fall of a token's loss would count as a gain over itself
    for r in RATIOS if len(models) > 1 else ():
        for model, found in zip(models, recl(group, grid, r), strict=True):
            model["recl"].append(asdict(found) | {"bytes": found.tokens * text.bytes_per_token})
    return {
        "title": f"reach: {', '.join(predictor.name for predictor in predictors)}",
        "longspan": versions()["longspan"],
        "created": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "hardware": hardware(device or torch.device("cpu")),
        "data": {
            "path": source,
            "documents": len(text.documents),
            "tokens": sum(len(document) - 1 for document in text.documents),
            "bytes_per_token": text.bytes_per_token,
        },
        "plan": asdict(plan) | {"longest": longest, "scored": targets.tokens, "step": step},
        "models": models,
    }


def check_group(predictors: Sequence[Predictor]) -> None:
    """Refuses models whose tokens are not the same.

    Raises:
        ConfigError: none is named, or two vocabularies differ.
    """
    if not predictors:
        raise ConfigError("name at least one run, or hf:PATH")
    first = predictors[0]
    for other in predictors[1:]:
        if (other.size, other.vocabulary) != (first.size, first.vocabulary):
            raise ConfigError(
                f"{first.name} and {other.name} have other vocabularies ({first.size} and "
                f"{other.size} tokens), and reach of a group is told at the same tokens; "
                "measure them one by one"
            )


def distance(predictors: Sequence[Predictor], text: Text, asked: int) -> int:
    """The longest distance to measure, in tokens.

    Raises:
        ConfigError: a model cannot span what was asked for.
        DataError: the text cannot.
    """
    text.check(max(1, asked))
    # a window holds the context and the neighbours that are scored with it
    spans = [(p.name, p.longest - RUN) for p in predictors if p.longest is not None]
    for name, span in spans:
        if asked > span:
            raise ConfigError(
                f"{name} spans {span + RUN:,} tokens, {RUN} of which are scored: ask for --longest "
                f"{span} or less"
            )
        if span < 1:
            raise ConfigError(f"{name} spans {span + RUN} tokens; reach takes at least {RUN + 1}")
    usual = max(MULTIPLE * (p.memory or p.segment) for p in predictors)
    return asked or min(usual, text.longest, *(span for _, span in spans))


def _one(
    predictor: Predictor,
    text: Text,
    targets: Targets,
    longest: int,
    grid: Sequence[int],
    plan: Plan,
    say: Callable[[str], None],
) -> tuple[dict[str, Any], np.ndarray]:
    """Everything of one model, and its losses (C, T) at the contexts of `grid`."""
    name, per_byte = predictor.name, text.bytes_per_token * log(2)
    taken: dict[int, np.ndarray] = {}

    def measured(context: int) -> float:
        if context not in taken:
            say(f"{name}: {context:,} tokens of context")
            taken[context] = contexts.losses(predictor, targets, context)
        return float(taken[context].mean())

    for context in grid:
        measured(context)
    reach = effective(measured, sorted({*contexts.doublings(longest), *grid}))
    curve = []
    for context, _ in reach.curve:
        totals = taken[context].sum(1, keepdims=True)
        low, high = band(totals, np.full_like(totals, targets.run * per_byte))
        bits = float(taken[context].mean()) / per_byte
        curve.append(
            {
                "context": context,
                "bits_per_byte": bits,
                "low": float(low[0]),
                "high": float(high[0]),
            }
        )

    room = max(len(document) for document in text.documents) - 1
    wanted = max(2 * longest, 4 * predictor.segment)
    length = min(wanted, room, predictor.longest or wanted)
    rows, owners = text.stretches(length, plan.pieces)
    say(f"{name}: reading {len(rows)} pieces of {length:,} tokens")
    nats = read(predictor, rows)
    say(f"{name}: lengths of memory")
    memory = by_memory(predictor, rows, text.bytes_per_token)
    say(f"{name}: where it looks")
    seen = looking(predictor, rows[:SHALLOW])
    say(f"{name}: influence")
    pull = influence(predictor, targets, longest, plan.pieces)
    say(f"{name}: what its memory is worth")
    lost = []
    if predictor.memory != 0 and length > predictor.segment + (predictor.memory or 0):
        lost = worth(predictor, rows, owners, text.bytes_per_token, plan.seed)
    asked = lengths(longest)
    probe = {"samples": plan.samples, "seed": plan.seed}
    say(f"{name}: recall")
    copied = copying(predictor, text, [n for n in asked if 2 * n <= _span(predictor)], **probe)
    associated = associating(predictor, text, asked, **probe)
    found = needle(predictor, text, asked, **probe)
    price = predictor.price(longest)
    return {
        "name": name,
        "unit": predictor.unit,
        "vocabulary": predictor.size,
        "segment": predictor.segment,
        "memory": predictor.memory,
        "layers": predictor.layers,
        "effective": {
            "tokens": reach.tokens,
            "bytes": reach.tokens * text.bytes_per_token,
            "above": reach.above,
            "open": reach.open,
        },
        "recl": [],
        "contexts": curve,
        "read": {"pieces": len(rows), "tokens": length},
        "memories": [asdict(point) for point in memory],
        "positions": [asdict(point) for point in by_position(nats, text.bytes_per_token)],
        "looking": None
        if seen is None
        else {
            "layers": list(seen.layers),
            "mass": seen.mass.tolist(),
            "memory": seen.memory.tolist(),
            "distance": seen.distance.tolist(),
        },
        "influence": None if pull is None else {"shares": pull.shares.tolist(), "half": pull.half},
        "worth": [asdict(one) for one in lost],
        "copying": [asdict(cell) for cell in copied],
        "associating": [asdict(cell) for cell in associated],
        "needle": [asdict(cell) for cell in found],
        "recurring": [asdict(one) for one in recurring(rows, nats)],
        "price": None if price is None else asdict(price),
    }, np.stack([taken[context].ravel() for context in grid])


def _span(predictor: Predictor) -> int:
    return 1 << 62 if predictor.longest is None else predictor.longest
