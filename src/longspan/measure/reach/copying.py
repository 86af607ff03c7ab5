"""Copy: n tokens drawn from the text's own vocabulary, and then the same again.

Each token of the second time was told n tokens before. Scored are its last three quarters, when it
is clear that something repeats; untold are the same tokens when they came first.
"""

from __future__ import annotations

import numpy as np
import torch

from longspan.measure.reach.predictor import Predictor
from longspan.measure.reach.probing import Cell, vocabulary
from longspan.measure.reach.reading import read
from longspan.measure.reach.text import Text


@torch.no_grad()
def copying(
    predictor: Predictor, text: Text, distances: list[int], samples: int = 8, seed: int = 0
) -> list[Cell]:
    """How much of a copy is recalled, a cell a distance n; its length is 2 n.

    Args:
        predictor: the model.
        text: gives the vocabulary and the start symbol.
        distances: n.
        samples: sequences each.
        seed: of the draws.
    """
    rng, ids = np.random.default_rng(seed), vocabulary(text)
    cells = []
    for n in distances:
        once = rng.choice(ids, (samples, n))
        start = np.full((samples, 1), text.documents[0][0])
        nats = read(predictor, np.concatenate([start, once, once], 1))
        skipped = n // 4
        untold, told = (float(half[:, skipped:].mean()) for half in np.split(nats, 2, 1))
        recalled = 1 - told / untold if untold else 0.0
        cells.append(Cell(2 * n, 0.0, n, recalled, told / np.log(2), untold / np.log(2)))
    return cells
