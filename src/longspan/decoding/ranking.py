"""The few best of many numbers: what `topk` finds, without ranking all that it is given."""

from __future__ import annotations

import torch
from torch import Tensor

STRIDE = 8
"""Numbers of which at first only the greatest is ranked."""

MANY = 64
"""Numbers for each that is looked for, from which on this is faster than `topk` itself."""


def best(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` greatest of each row (N, M), greatest first, and their places (N, count) int64.

    Among equals any may come. The greatest `count` lie in those `count` groups of numbers whose
    own greatest are the greatest.
    """
    size = values.shape[1]
    if size < MANY * count:
        found = values.topk(count)
        return found.values, found.indices
    # a group is every so manieth number: the greatest of all groups are found side by side
    groups = size // STRIDE
    whole = groups * STRIDE
    tops = values[:, :whole].unflatten(1, (STRIDE, groups)).amax(1)
    within = torch.arange(0, whole, groups, device=values.device)
    places = (tops.topk(count, sorted=False).indices[:, :, None] + within).flatten(1)
    if whole < size:
        rest = torch.arange(whole, size, device=values.device)
        places = torch.cat((places, rest.expand(len(values), -1)), 1)
    found = values.gather(1, places).topk(count)
    return found.values, places.gather(1, found.indices)
