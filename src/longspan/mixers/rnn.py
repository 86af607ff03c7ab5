"""The simple recurrent network (Elman 1990): h_t = tanh(W x_t + b + U h_(t-1) + c).

Equations and weights are those of torch's `nn.RNN`, whose two biases are one too many.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

from longspan.recurrence import Recurrent


@dataclass(frozen=True)
class RNN(Recurrent, name="rnn"):
    """A simple recurrent network.

    Attributes:
        hidden: N, its units (in each direction); the model's width if None.
        nonlinearity: "tanh", or "relu", which only stays bounded where the weights let it.
    """

    nonlinearity: Literal["tanh", "relu"] = "tanh"

    def cells(self, width: int, hidden: int, both: bool) -> nn.RNN:
        return nn.RNN(
            width, hidden, nonlinearity=self.nonlinearity, batch_first=True, bidirectional=both
        )
