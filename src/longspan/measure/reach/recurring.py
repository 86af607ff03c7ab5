"""Loss of a token by how long ago it last came, against the loss of one that is new.

Of every token of a text that is read from its beginning: d, the tokens since the same id last came
in what was read, or none. Frequent tokens come again soon and are easy anyway, so beside it stands
how often the id comes in all that was read, in four classes of as many tokens each.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import numpy as np
from numpy.typing import NDArray

CLASSES = 4


@dataclass(frozen=True)
class Recurrence:
    """Tokens of one class at one distance.

    Attributes:
        rank: 0 for the rarest class of ids, 3 for the most frequent.
        since: the least of 2^j ≤ d < 2^(j+1); 0 for a token that is new.
        tokens: how many there are.
        bits: a token.
    """

    rank: int
    since: int
    tokens: int
    bits: float


def recurring(rows: NDArray[np.int64], nats: NDArray[np.float64]) -> list[Recurrence]:
    """Bits a token by class and by tokens since the last one, of what there is.

    Args:
        rows: (B, L + 1) pieces that were read, each behind a start symbol.
        nats: (B, L), of `reading.read`.
    """
    tokens = rows[:, 1:]
    since = np.stack([_since(row) for row in tokens])
    bins = np.where(since > 0, 2 ** np.floor(np.log2(np.maximum(since, 1))).astype(np.int64), 0)
    ids, inverse, counts = np.unique(tokens, return_inverse=True, return_counts=True)
    order = np.argsort(counts, kind="stable")
    # an id is of one class alone, that in which its last token falls
    share = counts[order].cumsum() / tokens.size
    rank = np.empty(len(ids), np.int64)
    rank[order] = np.minimum((share * CLASSES - 1e-9).astype(np.int64), CLASSES - 1)
    ranks = rank[inverse].reshape(tokens.shape)
    found = []
    for each in range(CLASSES):
        for distance in np.unique(bins[ranks == each]).tolist():
            chosen = (ranks == each) & (bins == distance)
            mean = float(nats[chosen].mean()) / log(2)
            found.append(Recurrence(each, distance, int(chosen.sum()), mean))
    return found


def _since(row: NDArray[np.int64]) -> NDArray[np.int64]:
    """Tokens since the same id last came; 0 where it did not."""
    last: dict[int, int] = {}
    since = np.zeros(len(row), np.int64)
    for place, token in enumerate(row.tolist()):
        if token in last:
            since[place] = place - last[token]
        last[token] = place
    return since
