"""95 % bootstrap intervals: pieces of text are drawn with replacement, all of their tokens at once.

Tokens of one piece are not independent, so pieces are what is drawn: 1,000 times, with a fixed
seed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

DRAWS = 1000


def band(
    totals: NDArray[np.float64], weights: NDArray[np.float64], seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Low and high (K,) of the K ratios Σ totals / Σ weights.

    Args:
        totals: (P, K), of each piece.
        weights: (P, K), or (P, 1) where all K have the same.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, len(totals), (DRAWS, len(totals)))
    # how often each piece was drawn, so that K may be large
    counts = np.stack([np.bincount(row, minlength=len(totals)) for row in rows]).astype(float)
    below = counts @ np.broadcast_to(weights, totals.shape)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = np.where(below > 0, counts @ totals / below, np.nan)
    drawn = ~np.isnan(ratios).all(0)
    low, high = np.full(totals.shape[1], np.nan), np.full(totals.shape[1], np.nan)
    low[drawn], high[drawn] = np.nanquantile(ratios[:, drawn], [0.025, 0.975], axis=0)
    return low, high
