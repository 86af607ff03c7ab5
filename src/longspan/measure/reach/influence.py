"""Gradient influence: how much a loss would change with an input k tokens back.

    I(k) = mean over t of ‖ ∂ l(c, t) / ∂ e_(t-k) ‖,    k = 1 … c

with l the loss of token t in nats (`contexts.py`) and e the vector by which the model's embedding
gives its input, so it is told of any differentiable model, with attention or without. I(k) is
summed over bins 2^j ≤ k < 2^(j+1) and given as a share of all of it. Norms of gradients say where
the loss is sensitive, not what would be lost.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from longspan.measure.reach.contexts import checked
from longspan.measure.reach.predictor import Predictor
from longspan.measure.reach.text import Targets


@dataclass(frozen=True)
class Influence:
    """Of inputs on losses, by distance.

    Attributes:
        each: (c,) mean norm at distances 1 … c.
        shares: (J,) of bins 1, 2 to 3, 4 to 7, …; they sum to 1.
        half: tokens within which half of all influence lies.
    """

    each: NDArray[np.float64]
    shares: NDArray[np.float64]
    half: int


def influence(
    predictor: Predictor, targets: Targets, context: int, count: int, rows: int = 8
) -> Influence | None:
    """Influence at distances up to `context`; None of a model whose inputs are no vectors.

    Args:
        predictor: the model.
        targets: of which the first tokens of `count` runs are taken.
        context: c.
        count: losses that are averaged.
        rows: of a call.

    Raises:
        DivergedError: a gradient is no number.
    """
    if predictor.embedding() is None:
        return None
    picked = [targets.places[i] for i in _spread(len(targets.places), count)]
    windows = np.stack([targets.text.documents[d][t - context : t + 1] for d, t in picked])
    parts = [
        gradients(predictor, torch.from_numpy(windows[low : low + rows]))
        for low in range(0, len(windows), rows)
    ]
    norms = checked(np.concatenate(parts), predictor, "the gradient of a loss")
    each = np.flip(norms.mean(0))
    bins = np.array([k.bit_length() - 1 for k in range(1, context + 1)])
    total = each.sum()
    shares = np.bincount(bins, each) / (total or 1.0)
    half = int(np.searchsorted(each.cumsum(), total / 2)) + 1
    return Influence(each, shares, half)


def gradients(predictor: Predictor, windows: Tensor) -> NDArray[np.float64]:
    """(B, c) norms of the gradient of the loss of each window's last token, by its inputs."""
    made: list[Tensor] = []

    def watched(_module: object, _inputs: object, output: Tensor) -> Tensor:
        made.append(output.detach().requires_grad_())
        return made[-1]

    module = predictor.embedding()
    assert module is not None, "asked of a model whose inputs are no vectors"
    handle = module.register_forward_hook(watched)
    try:
        with torch.enable_grad():
            state = predictor.start(len(windows))
            nats, _ = predictor.losses(windows[:, :-1], windows[:, -1:], state)
            found = torch.autograd.grad(nats.sum(), made)
    finally:
        handle.remove()
    # a model that cuts a long call looks its inputs up piece by piece
    return torch.cat(found, 1).double().norm(dim=2).cpu().numpy()


def _spread(length: int, count: int) -> list[int]:
    """At most `count` of 0 … length - 1, evenly spaced."""
    count = min(count, length)
    return [int((i + 0.5) * length / count) for i in range(count)]
