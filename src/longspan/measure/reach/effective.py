"""Effective context length of one model: beyond it, more context gains less than 1 %.

Khandelwal et al. (1805.04623) call effective the context beyond which perplexity falls by less than
1 %; 1901.02860, section 4.4, the longest to which increasing it gains more than a threshold. With
L(c) the mean loss at a context of c tokens (`contexts.py`), that is

    ECL = min { c : exp(L(c) - L(c')) ≤ 1.01 for every longer c' that was measured }

The perplexity is that of a token. A longer context that makes things worse, as beyond the length of
training, adds nothing. Contexts are doubled up to the longest; then the gap before the first one
that is enough is halved until it is 1/16 of what is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import exp

MARGIN = 1.01
FINE = 1 / 16


@dataclass(frozen=True)
class Effective:
    """What was found.

    Attributes:
        tokens: the least context that was found to be enough.
        above: the longest that was found not to be; 0 if the shortest is enough.
        open: the longest measured gains more than 1 % over all others, so it may not be enough.
        curve: (context, nats a token), rising.
    """

    tokens: int
    above: int
    open: bool
    curve: tuple[tuple[int, float], ...]


def effective(measure: Callable[[int], float], contexts: Sequence[int]) -> Effective:
    """Effective context length.

    Args:
        measure: mean loss in nats a token at a context.
        contexts: measured first, rising; the answer lies between two of them.
    """
    curve = {context: measure(context) for context in contexts}
    while True:
        tokens, above = bracket(curve)
        if tokens - above <= max(1, FINE * tokens):
            break
        middle = (tokens + above) // 2
        curve[middle] = measure(middle)
    points = tuple(sorted(curve.items()))
    last = len(points) > 1 and tokens == points[-1][0]
    return Effective(tokens, above, last, points)


def bracket(curve: Mapping[int, float]) -> tuple[int, int]:
    """The least context that is enough, and the longest measured one below it (0 if none is)."""
    order = sorted(curve)
    enough, best = order[-1], curve[order[-1]]
    for context in reversed(order):
        best = min(best, curve[context])
        if exp(curve[context] - best) <= MARGIN:
            enough = context
    shorter = [context for context in order if context < enough]
    return enough, shorter[-1] if shorter else 0
