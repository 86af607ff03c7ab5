"""Associative recall (1610.06258, section 4.1): pairs of a key and a value, then one of the keys.

    k1 v1 k2 v2 … kn vn  ki → vi

Keys and values are drawn from the text's own vocabulary, in two halves that share no token; where
there are more pairs than keys, a key is two or more tokens. Untold is the same sequence with
another value at pair i.
"""

from __future__ import annotations

import numpy as np
import torch

from longspan.measure.reach.predictor import Predictor
from longspan.measure.reach.probing import DEPTHS, Cell, answered, vocabulary
from longspan.measure.reach.text import Text


@torch.no_grad()
def associating(
    predictor: Predictor, text: Text, lengths: list[int], samples: int = 8, seed: int = 0
) -> list[Cell]:
    """How surely the value of a key is recalled: a cell a length and depth of the pair.

    Args:
        predictor: the model.
        text: gives the vocabulary and the start symbol.
        lengths: tokens of all pairs, about.
        samples: sequences each.
        seed: of the draws.
    """
    rng, ids = np.random.default_rng(seed), vocabulary(text)
    if len(ids) < 8:
        return []
    cells = []
    for length in lengths:
        width, keys = 1, len(ids) // 2
        while keys**width < 2 * length // (width + 1):
            width += 1
        pairs = length // (width + 1)
        if pairs < len(DEPTHS):
            continue
        for depth in DEPTHS:
            asked = round(depth * (pairs - 1))
            each = [_sequence(rng, ids, pairs, width, asked) for _ in range(samples)]
            start = np.full((samples, 1), text.documents[0][0])
            told, untold = (
                np.concatenate([start, np.stack(rows)], 1) for rows in zip(*each, strict=True)
            )
            total, distance = pairs * (width + 1) + width, (pairs - asked) * (width + 1)
            cells.append(Cell(total, depth, distance, *answered(predictor, told, untold, 1)))
    return cells


def _sequence(
    rng: np.random.Generator, ids: np.ndarray, pairs: int, width: int, asked: int
) -> tuple[np.ndarray, np.ndarray]:
    """A sequence that tells the answer, and the same with another value in its place."""
    shuffled = rng.permutation(ids)
    names, values = np.split(shuffled, [len(ids) // 2])
    # numbers in base len(names), each once
    numbers = rng.choice(len(names) ** width, pairs, replace=False)
    digits = numbers[:, None] // len(names) ** np.arange(width) % len(names)
    given = rng.choice(values, pairs)
    sequence = np.concatenate([names[digits], given[:, None]], 1)
    query = np.append(sequence[asked, :-1], given[asked])
    other = sequence.copy()
    other[asked, -1] = rng.choice(values[values != given[asked]])
    return np.append(sequence.ravel(), query), np.append(other.ravel(), query)
