"""Linformer (2006.04768): keys and values are projected along the sequence to a fixed length.

    head = softmax(Q (E K)ᵀ / √D) F V                                            (equation 7)

E and F are learned and have a column for each place of the longest sequence. A shorter sequence
takes their first columns, so that padding leaves no trace; a longer one is refused. Positions must
enter at the input: a projected key stands nowhere.

E and F may be shared (section 4): by the heads, by keys and values as well, or by all layers too.
They are drawn with variance 1 / length, so that a projected key is as large as a key; the theorem's
1 / rank would make it larger by √(length / rank).
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from longspan.comparing import each_head
from longspan.errors import ConfigError, InputError, unlisted
from longspan.lowrank import LowRank
from longspan.mixing import Layer, Mixer, Mixing
from longspan.slots import Places

Sharing = Literal["none", "heads", "kv", "layers"]


@dataclass(frozen=True)
class Linformer(Mixer, name="linformer"):
    """Attention to a projected sequence.

    Attributes:
        length: tokens of the longest sequence.
        rank: tokens that it is projected to; k in the paper.
        sharing: "none", an E and an F for each head; "heads", one of both a layer; "kv", one that
            is both; "layers", that one in all layers of a stack that say so.
    """

    causal: ClassVar[bool] = False
    bidirectional: ClassVar[bool] = True
    drops: ClassVar[bool] = True

    length: int
    rank: int = 256
    sharing: Sharing = "heads"

    def __post_init__(self) -> None:
        problems = [
            f"mixer.{name} must be 1 or more, not {value}"
            for name in ("length", "rank")
            if (value := getattr(self, name)) < 1
        ]
        problems += unlisted("mixer", self)
        if problems:
            raise ConfigError(problems)

    def build(self, layer: Layer) -> Projected:
        return Projected(self, layer)


class Projected(LowRank):
    """Linformer in one layer.

    Shapes: `e` and `f` are (G or 1, rank, length), of keys and values; `f` is `e` where shared.
    """

    def __init__(self, config: Linformer, layer: Layer) -> None:
        super().__init__(layer, config.name)
        self.config = config
        each = layer.kv_heads if config.sharing == "none" else 1
        size, std = (each, config.rank, config.length), config.length**-0.5
        self.e = nn.Parameter(torch.randn(size) * std)
        both = config.sharing in ("kv", "layers")
        self.f = self.e if both else nn.Parameter(torch.randn(size) * std)

    @property
    def common(self) -> Hashable:
        return self.config if self.config.sharing == "layers" else None

    def share(self, first: Mixing) -> None:
        assert isinstance(first, Projected), "layers share with those of the same settings"
        self.e = self.f = first.e

    def products(self) -> tuple[float, float]:
        # projecting a token's key and value, and a query's scores and their values
        return 0.0, 2.0 * (self.kv_heads + self.heads) * self.config.rank * self.head_dim

    def meet(self, q: Tensor, k: Tensor, v: Tensor, places: Places) -> Tensor:
        length = q.shape[2]
        if length > self.config.length:
            raise InputError(
                f"a sequence of {length} tokens is longer than mixer.length={self.config.length}; "
                "cut it, or make the mixer for longer ones"
            )
        if places.valid is not None:
            k = k.masked_fill(~places.valid[:, None, :, None], 0.0)
        keys, values = self.e[..., :length] @ k, self.f[..., :length] @ v
        scores = q @ each_head(keys, self.heads).transpose(2, 3) * self.head_dim**-0.5
        return self.dropped(self.weigh(scores)) @ each_head(values, self.heads)
