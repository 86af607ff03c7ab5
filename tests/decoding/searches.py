"""Searches as they are defined, by loops over one row and in Python's numbers."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import torch

from tests.decoding.table import Table

END = 0


@dataclass
class Side:
    """One group of beams: what is written on, and what was put aside."""

    beams: list[tuple[float, list[int]]] = field(default_factory=lambda: [(0.0, [])])
    texts: list[tuple[float, list[int]]] = field(default_factory=list)
    closed: bool = False


def beams(
    table: Table,
    prompt: list[int],
    *,
    width: int,
    groups: int,
    diversity: float,
    penalty: float,
    early: bool | Literal["never"],
    longest: int,
) -> list[tuple[float, list[int]]] | None:
    """Complete texts, with the end token if it ended them, and their scores, best first.

    `width` beams in each of `groups`; equation 5 of 1610.02424 with Hamming diversity. None where
    two candidates are equally good, so that either may be taken.
    """
    sides = [Side() for _ in range(groups)]
    for length in range(1, longest + 1):
        counts: Counter[int] = Counter()
        for side in sides:
            if side.closed:
                continue
            candidates = []
            for total, text in side.beams:
                log_probs = table.after(prompt + text).double().log_softmax(-1).tolist()
                for token, log_prob in enumerate(log_probs):
                    new = total + log_prob
                    candidates.append((new - diversity * counts[token], new, [*text, token]))
            candidates.sort(key=lambda each: -each[0])
            values = [value for value, *_ in candidates[: 2 * width + 1]]
            if any(a - b < 1e-9 for a, b in pairwise(values)):
                return None
            side.beams = []
            taken = []
            for rank, (_, total, text) in enumerate(candidates[: 2 * width]):
                if text[-1] == END or length == longest:
                    if rank < width:
                        side.texts.append((total / length**penalty, text))
                        taken.append(text[-1])
                elif len(side.beams) < width:
                    side.beams.append((total, text))
                    taken.append(text[-1])
            counts.update(taken)
            side.texts = sorted(side.texts, key=lambda each: -each[0])[:width]
            ahead = longest if early == "never" and penalty > 0 else length
            hope = max((total for total, _ in side.beams), default=-math.inf) / ahead**penalty
            full = len(side.texts) == width
            side.closed = (full and early is True) or (full and hope <= side.texts[-1][0])
            side.closed = side.closed or not side.beams
    texts = {tuple(text): (score, text) for side in sides for score, text in side.texts}
    return sorted(texts.values(), key=lambda each: -each[0])


def best_of_all(table: Table, prompt: list[int], longest: int) -> tuple[float, list[int]]:
    """The likeliest complete text of at most `longest` tokens, by trying all."""
    best = (-math.inf, [0])
    todo: list[tuple[float, list[int]]] = [(0.0, [])]
    while todo:
        total, text = todo.pop()
        log_probs = table.after(prompt + text).double().log_softmax(-1)
        for token in range(table.size):
            new = (total + float(log_probs[token]), [*text, token])
            if token == END or len(new[1]) == longest:
                best = max(best, new)
            else:
                todo.append(new)
    return best


def greedy(table: Table, prompt: list[int], longest: int) -> list[int]:
    """The likeliest token each time."""
    text: list[int] = []
    while len(text) < longest and (not text or text[-1] != END):
        text.append(int(torch.argmax(table.after(prompt + text))))
    return text
