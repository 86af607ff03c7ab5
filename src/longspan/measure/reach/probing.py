"""What the recall probes share: a fact is told, other tokens follow, and it is asked for.

    recalled = 1 - Σ nats of the answer where it was told / Σ nats of it where something else was

1 is certain of it, 0 no better than without having been told, below 0 worse.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from longspan.measure.reach.predictor import Predictor
from longspan.measure.reach.reading import read
from longspan.measure.reach.text import Text

DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Where a fact stands: 0 at the beginning, 1 right before it is asked for."""


@dataclass(frozen=True)
class Cell:
    """One place of a heat map.

    Attributes:
        length: tokens before the answer.
        depth: where the fact stands, 0 to 1.
        distance: tokens from the answer's first token back to where it was told.
        recalled: as above.
        told, untold: bits a token of the answer.
    """

    length: int
    depth: float
    distance: int
    recalled: float
    told: float
    untold: float


def lengths(longest: int, shortest: int = 64) -> list[int]:
    """`shortest`, four times as many, …, and `longest`."""
    found = []
    while shortest < longest:
        found.append(shortest)
        shortest *= 4
    return [*found, longest]


def vocabulary(text: Text) -> NDArray[np.int64]:
    """The ids that the text has, but for start symbols; sorted."""
    return np.unique(np.concatenate([document[1:] for document in text.documents]))


def answered(
    predictor: Predictor, told: NDArray[np.int64], untold: NDArray[np.int64], answer: int
) -> tuple[float, float, float]:
    """Share recalled, and bits a token of the answer told and untold.

    Args:
        predictor: the model.
        told, untold: (B, S) tokens that begin with a start symbol and end with the answer.
        answer: its tokens.
    """
    with_it, without = (float(read(predictor, rows)[:, -answer:].mean()) for rows in (told, untold))
    recalled = 1 - with_it / without if without else 0.0
    return recalled, with_it / np.log(2), without / np.log(2)
