"""One layer: a mixer and a feed-forward network, each with a residual path and a norm.

In a decoder that reads another sequence, cross-attention stands between them.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn.functional import silu

from longspan.dropping import Dropout
from longspan.mixing import Mixing
from longspan.models.cross import CrossAttention, Source
from longspan.slots import Pairs, Places
from longspan.state import Carried

NORMS = {"layer": nn.LayerNorm, "rms": nn.RMSNorm}

NormName = Literal["layer", "rms"]
ActivationName = Literal["relu", "gelu", "swiglu"]
Placement = Literal["pre", "post"]


class SwiGLU(nn.Module):
    """silu(a) · b of the two halves a and b (2002.05202, equation 6)."""

    def forward(self, x: Tensor) -> Tensor:
        """(…, 2 F) to (…, F)."""
        gate, value = x.chunk(2, -1)
        return silu(gate) * value


ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "swiglu": SwiGLU}


class FeedForward(nn.Module):
    """Two linear maps around an activation (1706.03762, equation 2), dropout after each.

    With "swiglu" the first gives a gate and a value, each of width `inner`.
    """

    def __init__(self, dim: int, inner: int, activation: ActivationName, dropout: float) -> None:
        super().__init__()
        self.inner = nn.Linear(dim, 2 * inner if activation == "swiglu" else inner)
        self.activation = ACTIVATIONS[activation]()
        self.outer = nn.Linear(inner, dim)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to (B, T, C)."""
        return self.dropout(self.outer(self.dropout(self.activation(self.inner(x)))))


class Block(nn.Module):
    """A mixer (attention, or something else), cross-attention if there is any, then feed-forward.

    With placement "post", y = norm(x + f(x)) as in 1706.03762 and 1901.02860; with "pre",
    y = x + f(norm(x)) (2002.04745), where the memory keeps x itself and is normalised when it is
    read, with today's norm.

    Args:
        mixer: made with the first norm if and only if the placement is "pre".
        cross: asks another sequence, and its norm; None asks nothing.
    """

    def __init__(
        self,
        mixer: Mixing,
        feed_forward: FeedForward,
        norms: tuple[nn.Module, nn.Module],
        placement: Placement,
        dropout: float,
        cross: tuple[CrossAttention, nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.mixer = mixer
        self.feed_forward = feed_forward
        self.placement = placement
        self.dropout = Dropout(dropout)
        if placement == "post":
            self.mixer_norm = norms[0]
        self.cross = None if cross is None else cross[0]
        if cross is not None:
            self.cross_norm = cross[1]
        self.feed_forward_norm = norms[1]

    def forward(
        self,
        x: Tensor,
        carried: Carried,
        places: Places,
        pairs: Pairs | None,
        read: tuple[Source, Pairs] | None = None,
        seen: list[Tensor] | None = None,
    ) -> tuple[Tensor, Carried]:
        """(B, T, C) to (B, T, C), and what the layer carries now.

        Args:
            read: what cross-attention asks, and which token meets which of the source's.
            seen: to which its weights (B, H, T, S) are appended; None forms none.
        """
        y, carried = self.mixer.mix(x, carried, places, pairs)
        x = x + self.dropout(y)
        if self.placement == "post":
            x = self.mixer_norm(x)
        if self.cross is not None:
            assert read is not None, "cross-attention needs a source"
            asking = self.cross_norm(x) if self.placement == "pre" else x
            if seen is not None:
                seen.append(self.cross.weights(asking, *read))
            x = x + self.dropout(self.cross.ask(asking, *read))
            if self.placement == "post":
                x = self.cross_norm(x)
        if self.placement == "pre":
            return x + self.feed_forward(self.feed_forward_norm(x)), carried
        return self.feed_forward_norm(x + self.feed_forward(x)), carried
