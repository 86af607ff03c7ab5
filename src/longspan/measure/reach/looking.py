"""Where a model looks: attention by distance, layer and head, and memory against segment.

With a_lh(q, k) the weight that query q of layer l and head h gives to the key at position k,

    mass_lh(j)   = mean over q of the sum of a_lh(q, k) with 2^(j-1) ≤ q - k < 2^j; j = 0: q = k
    memory_lh    = mean over q of the sum of a_lh(q, k) over keys that the memory recalled
    distance_lh  = mean over q of the sum of a_lh(q, k) · (q - k)

Only the second half of what is read counts, so that memory is full where it ever is. A slot that
folds several tokens stands at its newest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from longspan.measure.reach.predictor import Predictor, Seen


@dataclass(frozen=True)
class Looking:
    """What was seen of each layer that has attention.

    Attributes:
        layers: their numbers.
        mass: (layers, H, J) share of attention by distance; bin j holds 2^(j-1) to 2^j - 1.
        memory: (layers, H) share of it on what the memory recalled.
        distance: (layers, H) tokens, its mean.
    """

    layers: tuple[int, ...]
    mass: NDArray[np.float64]
    memory: NDArray[np.float64]
    distance: NDArray[np.float64]


@torch.no_grad()
def looking(predictor: Predictor, rows: NDArray[np.int64]) -> Looking | None:
    """Where the tokens of `rows` (B, L + 1) look; None of a model without attention."""
    inputs = torch.from_numpy(rows[:, :-1])
    length = inputs.shape[1]
    bins = length.bit_length() + 1
    state: Any = predictor.start(len(rows))
    sums: dict[int, list[NDArray[np.float64]]] = {}
    queries: dict[int, int] = {}

    def add(seen: Seen) -> None:
        some = _summed(seen, bins)
        before = sums.get(seen.layer, [np.zeros_like(each) for each in some])
        sums[seen.layer] = [a + b for a, b in zip(before, some, strict=True)]
        queries[seen.layer] = queries.get(seen.layer, 0) + seen.q_pos.numel()

    def pass_over(seen: Seen) -> None:
        """Of a memory that is still filling."""

    for low in range(0, length, predictor.segment):
        piece = inputs[:, low : low + predictor.segment]
        early = low < length // 2 and length > predictor.segment
        state = predictor.looks(piece, state, pass_over if early else add)
    if not sums:
        return None
    layers = sorted(sums)
    each = [[part / queries[layer] for part in sums[layer]] for layer in layers]
    return Looking(tuple(layers), *(np.stack(parts) for parts in zip(*each, strict=True)))


def _summed(seen: Seen, bins: int) -> list[NDArray[np.float64]]:
    """By distance (H, J), on memory (H,), and weighted by distance (H,), over all queries."""
    weights = seen.weights.double()
    back = (seen.q_pos[:, :, None] - seen.k_pos[:, None, :]).clamp(min=0)
    # the number of bits of a distance is its bin; an empty slot has no weight, wherever it falls
    place = torch.frexp(back.double())[1].clamp(max=bins - 1).long()
    heads = weights.shape[1]
    mass = weights.new_zeros(heads, bins)
    for head in range(heads):
        mass[head] = torch.bincount(place.flatten(), weights[:, head].flatten(), minlength=bins)
    past = weights[..., : seen.past].sum((0, 2, 3))
    far = (weights * back[:, None]).sum((0, 2, 3))
    return [each.cpu().numpy() for each in (mass, past, far)]
