"""Relative effective context length of a group of models (1901.02860, section 4.4 and appendix C).

With l_i(c, t) the loss of model i at token t with a context of c tokens (`contexts.py`),

    b(c, t)    = min_i l_i(c, t)                                    the group's baseline
    T          = the share r of the tokens with the largest b(c, t)
    f_i(c, c') = 1/|T| · sum over t in T of min(b(c, t), l_i(c', t))
    g_i(c, c') = (exp f_i(c, c) - exp f_i(c, c')) / exp f_i(c, c)   relative gain

RECL starts at the shortest context c with c' = c + Δ; while g_i(c, c') ≥ 0.01 it goes on to
c = c', and it is the c at which it stops. Each gain is one over the best of the group, so models
are compared that are not equally good to begin with.

The minimum is taken token by token, so falls of the loss by chance count, and those of a model
compared with itself alone always do: a group of one says little, and is not reported.

The procedure stops at the first step that gains too little. A model that uses nothing but one far
token gains nothing on the way there, so beside it stands `furthest`: the longest c' of the grid
that still gains over its predecessor. That is ours, not the paper's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from longspan.errors import ConfigError

RATIOS = (0.1, 0.5, 1.0)
THRESHOLD = 0.01


@dataclass(frozen=True)
class RECL:
    """What the group's measure says of one model.

    Attributes:
        r: share of the tokens that count, the hardest.
        tokens: RECL.
        furthest: the longest context that gains over the step before it; the shortest measured if
            none does.
        gains: g(c, c + Δ) for each c but the last.
        open: even the last step gains, so RECL is at least `tokens`.
    """

    r: float
    tokens: int
    furthest: int
    gains: tuple[float, ...]
    open: bool


def recl(
    losses: NDArray[np.float64], contexts: Sequence[int], r: float, threshold: float = THRESHOLD
) -> list[RECL]:
    """RECL of each model of a group.

    Args:
        losses: (N, C, T) nats, of N models at C contexts, at the same T tokens.
        contexts: C of them, rising, Δ apart.
        r: share of the tokens that count, above 0, at most 1.
        threshold: the relative gain at which a step counts; 0.01 in the paper.

    Raises:
        ConfigError: r out of bounds, or contexts that are not evenly spaced.
    """
    if not 0 < r <= 1:
        raise ConfigError(f"r must be above 0 and at most 1, not {r}")
    if len({b - a for a, b in pairwise(contexts)}) > 1:
        raise ConfigError(f"contexts of RECL must be evenly spaced, not {list(contexts)}")
    baselines = losses.min(0)
    count = max(1, round(r * losses.shape[2]))
    gains = np.zeros((len(losses), len(contexts) - 1))
    for index, base in enumerate(baselines[:-1]):
        hardest = np.argsort(-base, kind="stable")[:count]
        before = base[hardest]
        for model, own in enumerate(losses[:, index + 1]):
            after = np.minimum(before, own[hardest])
            gains[model, index] = -np.expm1(after.mean() - before.mean())
    return [_found(row, contexts, r, threshold) for row in gains]


def _found(gains: NDArray[np.float64], contexts: Sequence[int], r: float, least: float) -> RECL:
    enough = gains >= least
    stop = int(np.argmin(enough)) if not enough.all() else len(enough)
    last = np.flatnonzero(enough)
    furthest = contexts[int(last[-1]) + 1] if len(last) else contexts[0]
    values = tuple(float(gain) for gain in gains)
    return RECL(r, contexts[stop], furthest, values, bool(len(enough) and enough.all()))
