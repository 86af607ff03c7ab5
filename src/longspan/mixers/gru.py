"""The gated recurrent unit (1406.1078, section 2.3).

    r_t = σ(W_r x_t + b_r + U_r h_(t-1) + c_r)
    z_t = σ(W_z x_t + b_z + U_z h_(t-1) + c_z)
    n_t = tanh(W_n x_t + b_n + r_t ⊙ (U_n h_(t-1) + c_n))
    h_t = (1 - z_t) ⊙ n_t + z_t ⊙ h_(t-1)

Equations and weights are those of torch's `nn.GRU`: as there, and unlike in the paper, the reset
gate acts after the recurrent map, not before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from longspan.recurrence import Recurrent, Units


@dataclass(frozen=True)
class Gated(Units, kind="gated"):
    """As `Units`, of a gated network."""


@dataclass(frozen=True)
class GRU(Recurrent, name="gru"):
    """A network of gated recurrent units."""

    carried: ClassVar[type[Units]] = Gated

    def cells(self, width: int, hidden: int, both: bool) -> nn.GRU:
        return nn.GRU(width, hidden, batch_first=True, bidirectional=both)
