"""A needle in the user's own text: a cue with its answer somewhere in it, and the cue at its end.

    text … cue answer … text  cue → answer

Cue and answer are drawn from the text's own vocabulary. Untold is the same text with another cue
and answer in that place.
"""

from __future__ import annotations

import numpy as np
import torch

from longspan.measure.reach.predictor import Predictor
from longspan.measure.reach.probing import DEPTHS, Cell, answered, vocabulary
from longspan.measure.reach.text import Text

CUE, ANSWER = 8, 4
"""Tokens."""


@torch.no_grad()
def needle(
    predictor: Predictor, text: Text, lengths: list[int], samples: int = 8, seed: int = 0
) -> list[Cell]:
    """How surely the answer is recalled: a cell a length of the text and depth of the needle.

    Args:
        predictor: the model.
        text: the haystack.
        lengths: tokens before the answer; those that no document has are left out.
        samples: texts each.
        seed: of the draws.
    """
    rng, ids = np.random.default_rng(seed), vocabulary(text)
    cells = []
    for length in lengths:
        hay = length - 2 * CUE - ANSWER
        if hay < 1 or hay > max(len(document) for document in text.documents) - 1:
            continue
        rows, _ = text.stretches(hay, samples)
        cue, answer = rng.choice(ids, (len(rows), CUE)), rng.choice(ids, (len(rows), ANSWER))
        other = rng.choice(ids, (len(rows), CUE + ANSWER))
        fact = np.concatenate([cue, answer], 1)
        for depth in DEPTHS:
            place = 1 + round(depth * hay)
            told, untold = (
                np.concatenate([rows[:, :place], needle, rows[:, place:], fact], 1)
                for needle in (fact, other)
            )
            distance = hay - (place - 1) + CUE + ANSWER
            cells.append(Cell(length, depth, distance, *answered(predictor, told, untold, ANSWER)))
    return cells
