"""Loss of a text that is read from its beginning: against memory length, and against position.

Pieces of the text are read side by side from an empty state, a segment at a time, and what the
model carries is carried on. With n_t = -log P(x_t | what was carried, the segment so far):

    against memory length    the mean of n_t over all tokens, for the same weights with M tokens
                             of memory, M from 0 to 8 times what it was trained with
    against position         the mean of n_t over tokens whose number lies between 2^j and 2^(j+1)

Both in bits a byte: nats / ln 2 / (bytes a token of this text).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import numpy as np
import torch
from numpy.typing import NDArray

from longspan.measure.reach.bands import band
from longspan.measure.reach.contexts import checked
from longspan.measure.reach.predictor import Predictor

FACTORS = (0, 0.25, 0.5, 1, 2, 4, 8)
"""Lengths of memory, as multiples of the trained one."""


@dataclass(frozen=True)
class Point:
    """A mean with its 95 % interval.

    Attributes:
        at: tokens: the length of the memory, or the first number of an interval of positions.
        bits_per_byte: the mean.
        low, high: of the bootstrap over pieces.
    """

    at: int
    bits_per_byte: float
    low: float
    high: float


@torch.no_grad()
def read(predictor: Predictor, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """(B, L) nats of every token of pieces (B, L + 1) that begin with a start symbol."""
    tokens = torch.from_numpy(rows)
    state, parts = predictor.start(len(rows)), []
    for low in range(0, rows.shape[1] - 1, predictor.segment):
        piece = tokens[:, low : low + predictor.segment + 1]
        nats, state = predictor.losses(piece[:, :-1], piece[:, 1:], state)
        parts.append(nats.double().cpu().numpy())
    return checked(np.concatenate(parts, 1), predictor)


def by_memory(predictor: Predictor, rows: NDArray[np.int64], bytes_per_token: float) -> list[Point]:
    """Bits a byte for each length of memory; [] of a model without a memory that has a length."""
    if not predictor.memory:
        return []
    lengths = sorted({int(predictor.memory * factor) for factor in FACTORS})
    points = []
    for length in lengths:
        other = predictor.remembering(length)
        if other is not None:
            nats = read(other, rows)
            points += _points([length], nats.sum(1)[:, None], [nats.shape[1]], bytes_per_token)
    return points


def by_position(nats: NDArray[np.float64], bytes_per_token: float) -> list[Point]:
    """Bits a byte of tokens 1, 2 to 3, 4 to 7, … of what was read; what is less than half of such a
    span at the end belongs to the one before it.

    Args:
        nats: (B, L), of `read`.
        bytes_per_token: of the text.
    """
    length = nats.shape[1]
    firsts = [2**j for j in range(length.bit_length()) if 2**j == 1 or length + 1 >= 1.5 * 2**j]
    ends = [*firsts[1:], length + 1]
    spans = list(zip(firsts, ends, strict=True))
    totals = np.stack([nats[:, low - 1 : high - 1].sum(1) for low, high in spans], 1)
    return _points(firsts, totals, [high - low for low, high in spans], bytes_per_token)


def _points(
    at: list[int], totals: NDArray[np.float64], tokens: list[int], bytes_per_token: float
) -> list[Point]:
    weights = np.array(tokens, float) * bytes_per_token * log(2)
    low, high = band(totals, np.broadcast_to(weights, totals.shape))
    mean = totals.mean(0) / weights
    return [Point(*each) for each in zip(at, *(v.tolist() for v in (mean, low, high)), strict=True)]
