"""The scores a second time, from the papers' equations alone, one number after another.

Bahdanau (1409.0473, section 3.1 and appendix A.1.2):

    e_ij = v_a · tanh(W_a s + U_a h_j)      α_ij = exp(e_ij) / Σ_k exp(e_ik)      c_i = Σ_j α_ij h_j

Luong (1508.04025, section 3.1), with target states h_t and source states h_s:

    dot      h_t · h_s
    general  h_t W_a h_s
    concat   v_a · tanh(W_a [h_t; h_s])

and 1706.03762, equation 1, for the scaled product. Matrices are as in the papers, (out, in).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

Weights = dict[str, Tensor]


def product(a: Tensor, b: Tensor) -> Tensor:
    """a · b."""
    return torch.stack([x * y for x, y in zip(a, b, strict=True)]).sum()


def times(matrix: Tensor, vector: Tensor) -> Tensor:
    """Matrix times column."""
    return torch.stack([product(row, vector) for row in matrix])


def score(name: str, weights: Weights, query: Tensor, key: Tensor) -> Tensor:
    """How well a query (D,) and a key (D,) go together, a number."""
    match name:
        case "scaled":
            return product(query, key) / math.sqrt(len(key))
        case "dot":
            return product(query, key)
        case "general":
            return product(query, times(weights["W"], key))
        case "additive":
            hidden = times(weights["W"], query) + times(weights["U"], key)
            return product(weights["v"], hidden.tanh())
        case "concat":
            hidden = times(weights["W"], torch.cat([query, key]))
            return product(weights["v"], hidden.tanh())
    raise AssertionError(name)


def context(
    name: str, weights: Weights, query: Tensor, keys: list[Tensor], values: list[Tensor]
) -> Tensor:
    """What a query gathers of the values."""
    shares = [score(name, weights, query, key).exp() for key in keys]
    whole = torch.stack(shares).sum()
    parts = [share / whole * value for share, value in zip(shares, values, strict=True)]
    return torch.stack(parts).sum(0)


def as_papers(name: str, parameters: Weights, head: int) -> Weights:
    """Weights of one head of longspan's layer as the papers write them."""
    ours = {key: value[head] for key, value in parameters.items()}
    match name:
        case "general":
            return {"W": ours["w"] / math.sqrt(len(ours["w"]))}
        case "additive":
            return {"W": ours["w"].T, "U": ours["u"].T, "v": ours["v"]}
        case "concat":
            return {"W": ours["w"].T, "v": ours["v"]}
    assert not ours
    return {}
