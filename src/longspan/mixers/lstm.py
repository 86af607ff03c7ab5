"""Long short-term memory (Hochreiter and Schmidhuber 1997), with a forget gate (Gers et al. 2000).

    i_t, f_t, o_t = σ(W x_t + b + U h_(t-1) + c), each with weights of its own
    g_t = tanh(W_g x_t + b_g + U_g h_(t-1) + c_g)
    c_t = f_t ⊙ c_(t-1) + i_t ⊙ g_t
    h_t = o_t ⊙ tanh(c_t)

Equations and weights are those of torch's `nn.LSTM`. Unlike there, the forget gate begins open: its
bias is 1, without which long distances are hardly ever found (Jozefowicz et al. 2015).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from longspan.mixing import Layer
from longspan.recurrence import Recurrence, Recurrent, Units


@dataclass(frozen=True)
class Cells(Units, kind="cells"):
    """What the cells of an LSTM keep.

    Attributes:
        h: (B, N) hidden state; zeros before a document.
        c: (B, N) what the cells hold; zeros before a document.
    """

    c: Tensor


class LongShort(Recurrence):
    """A layer of LSTM cells."""

    def begun(self, layer: int) -> None:
        super().begun(layer)
        units = self.cells.hidden_size
        for name, parameter in self.cells.named_parameters():
            if name.startswith("bias_ih"):
                nn.init.ones_(parameter.data[units : 2 * units])


@dataclass(frozen=True)
class LSTM(Recurrent, name="lstm"):
    """A network of long short-term memory."""

    carried: ClassVar[type[Units]] = Cells

    def cells(self, width: int, hidden: int, both: bool) -> nn.LSTM:
        return nn.LSTM(width, hidden, batch_first=True, bidirectional=both)

    def build(self, layer: Layer) -> LongShort:
        return LongShort(self._made(layer), self.carried, layer.norm)
