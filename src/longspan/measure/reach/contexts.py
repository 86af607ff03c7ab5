"""Loss at a context of c tokens: l(c, t) = -log P(x_t | x_{t-1}, …, x_{t-c}) (1901.02860, app. C).

The context is what the model is given at all: it begins c tokens before the token, with an empty
state. So c says how much a model is told, whatever it carries from where to where. Where the window
is long, a few neighbours are scored in one: the last of them sees up to c / 32 tokens more than c.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from longspan.errors import DivergedError
from longspan.measure.reach.predictor import Predictor
from longspan.measure.reach.text import Targets

SHARED = 32
"""A token sees at most one in so many more tokens than were asked for."""

BUDGET = 1 << 14
"""Tokens of a call."""


@torch.no_grad()
def losses(
    predictor: Predictor, targets: Targets, context: int, budget: int = BUDGET
) -> NDArray[np.float64]:
    """(R, N) nats: the loss of each token of each run, with `context` tokens before it.

    Args:
        predictor: the model.
        targets: R runs of N tokens, at least `context` tokens into their documents.
        context: c, tokens.
        budget: tokens of a call, about.

    Raises:
        DivergedError: a loss is no number.
    """
    together = neighbours(context, targets.run)
    windows = []
    for document, first in targets.places:
        tokens = targets.text.documents[document]
        for begin in range(first, first + targets.run, together):
            windows.append(tokens[begin - context : begin + together])
    rows = max(1, budget // (context + together))
    parts = []
    for low in range(0, len(windows), rows):
        window = torch.from_numpy(np.stack(windows[low : low + rows]))
        state = predictor.start(len(window))
        nats, _ = predictor.losses(window[:, :-1], window[:, -together:], state)
        parts.append(nats.double().cpu().numpy())
    return checked(np.concatenate(parts).reshape(len(targets.places), targets.run), predictor)


def neighbours(context: int, run: int) -> int:
    """How many of a run's tokens are scored in one window of `context` tokens: a divisor of it."""
    most = max(1, context // SHARED)
    return max(n for n in range(1, run + 1) if run % n == 0 and n <= most)


def checked(
    found: NDArray[np.float64], predictor: Predictor, what: str = "a loss"
) -> NDArray[np.float64]:
    """What was found, if it is numbers.

    Args:
        found: losses, or norms of their gradients.
        predictor: whose they are.
        what: what one of them is called.

    Raises:
        DivergedError: one is not.
    """
    if not np.isfinite(found).all():
        raise DivergedError(
            f"{predictor.name}: {what} is no number; the weights may have diverged, or "
            "--dtype float32 is needed"
        )
    return found


def doublings(longest: int) -> list[int]:
    """1, 2, 4, … and `longest`."""
    return [*(2**n for n in range(longest.bit_length()) if 2**n < longest), longest]


def steps(longest: int, step: int) -> list[int]:
    """step, 2 step, … up to `longest`."""
    return list(range(step, longest + 1, step))
