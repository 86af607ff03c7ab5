"""Dropout (1207.0580), drawn a byte a number where torch draws a float one after another.

On a CPU torch's own takes as long as all products of a small model together: it draws serially.
Eight bytes come of one draw here, so the probability is a whole number of 256ths, the nearest to
the one asked for (0.1 is 0.1016, 0.3 is 0.3008) and what is kept is scaled by what is really kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def drop(x: Tensor, probability: float) -> Tensor:
    """`x` with numbers set to zero and the others scaled so that the expectation stays.

    Args:
        x: floats of any shape.
        probability: at least 0 and below 1; 0 gives `x` itself.
    """
    if not probability:
        return x
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return torch.dropout(x, probability, True)
    return x * kept(x.shape, probability, x.dtype)


def kept(shape: Sequence[int], probability: float, dtype: torch.dtype) -> Tensor:
    """Zeros where something is dropped, elsewhere what scales the rest: (…) of `dtype`."""
    below = min(255, max(1, round(256 * probability)))
    count = torch.Size(shape).numel()
    words = torch.empty(-(-count // 8), dtype=torch.int64).random_(-(2**63), None)
    bits = words.view(torch.uint8)[:count].view(shape)
    return (bits >= below).to(dtype).mul_(256 / (256 - below))


class Dropout(nn.Module):
    """`drop` in training, nothing in evaluation."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        """(…) to (…)."""
        return drop(x, self.probability) if self.training else x

    def extra_repr(self) -> str:
        return f"probability={self.probability}"
