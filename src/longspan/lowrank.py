"""What mixers of low rank share: heads over a sequence that is there as a whole.

A matrix of weights (T, T) is never made; what stands for it has a rank that the recipe says.
Nothing of this has a causal form: every number of a compressed sequence knows all of it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from longspan.dropping import drop
from longspan.errors import ConfigError, InputError
from longspan.mixing import Layer, Mixing, Nothing
from longspan.slots import Pairs, Places
from longspan.state import Carried


class LowRank(Mixing):
    """Multi-head attention of low rank: `q`, `k`, `v` and `o` as in softmax attention.

    Args:
        layer: sizes, dropout of weights, and norm.
        name: of the mixer, for messages.

    Raises:
        ConfigError: a causal pattern.
    """

    def __init__(self, layer: Layer, name: str) -> None:
        if layer.pattern.causal:
            raise ConfigError(
                f"mixer '{name}' has no causal form; use it in an encoder with pattern 'full'"
            )
        super().__init__(layer.width, layer.norm)
        self.heads, self.kv_heads, self.head_dim = layer.heads, layer.kv_heads, layer.head_dim
        self.name, self.dropout = name, layer.dropout
        inner, shared = layer.heads * layer.head_dim, layer.kv_heads * layer.head_dim
        self.q = nn.Linear(layer.width, inner, bias=False)
        self.k = nn.Linear(layer.width, shared, bias=False)
        self.v = nn.Linear(layer.width, shared, bias=False)
        self.o = nn.Linear(inner, layer.width, bias=False)

    def begin(self, batch: int, like: Tensor) -> Carried:
        return Nothing()

    def fits(self, carried: Carried) -> bool:
        return isinstance(carried, Nothing)

    def mix(
        self, x: Tensor, carried: Carried, places: Places, pairs: Pairs | None
    ) -> tuple[Tensor, Carried]:
        if places.doc is not None:
            raise InputError(
                f"mixer '{self.name}' compresses each row as a whole; give every document a row "
                "of its own, and no starts"
            )
        read = self.read(x)
        q, k, v = (self._split(each(read)) for each in (self.q, self.k, self.v))
        if places.valid is not None:
            v = v.masked_fill(~places.valid[:, None, :, None], 0.0)
        out = self.meet(q, k, v, places)
        return self.o(out.transpose(1, 2).flatten(2)), carried

    def meet(self, q: Tensor, k: Tensor, v: Tensor, places: Places) -> Tensor:
        """The answers of all heads.

        Args:
            q: (B, H, T, D).
            k, v: (B, G, T, D); values of padding are 0.
            places: where the tokens stand, of one document a row.

        Returns:
            (B, H, T, D).
        """
        raise NotImplementedError

    def weigh(self, scores: Tensor, shown: Tensor | None = None) -> Tensor:
        """Softmax of scores (B, H, N, S) over what is `shown` (1 or B, S) bool; None for all.

        A row that is shown nothing gets finite weights.
        """
        if shown is not None:
            lowest = torch.finfo(scores.dtype).min / 2
            scores = scores.masked_fill(~shown[:, None, None, :], lowest)
        return scores.softmax(-1)

    def dropped(self, weights: Tensor) -> Tensor:
        """Weights of which some are dropped in training."""
        return drop(weights, self.dropout) if self.training else weights

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
