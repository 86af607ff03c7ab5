"""Nyströmformer (2102.03902): the weights of all pairs from those of a few landmarks.

    softmax(Q K~ᵀ / √D)  softmax(Q~ K~ᵀ / √D)⁺  softmax(Q~ Kᵀ / √D) V            (equation 13)

Q~ and K~ are means of the queries and keys of as many runs of neighbouring tokens as there are
landmarks. The pseudo-inverse A⁺ is approached by iterating (equation 16)

    Z ← Z (13 I - A Z (15 I - A Z (7 I - A Z))) / 4,        Z₀ = Aᵀ / (‖A‖₁ ‖A‖∞),

where ‖A‖∞, the largest sum of a row, is 1. A depthwise convolution of the values is added.

Token t of n stands by landmark ⌊t m / n⌋: runs are of one length where m divides n, as in the
paper, and differ by one token at most elsewhere; where m is above n, m - n landmarks are left out.
Each row's n is its own, so padding leaves no trace. (In transformers landmarks are means of padding
too, and m must divide n; nystrom-attention pads in front.) Where every token is a landmark the
formula still holds; transformers then takes softmax attention.

Dropout is of the first and the last of the three; the paper names none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from longspan.comparing import each_head
from longspan.errors import ConfigError, unlisted
from longspan.lowrank import LowRank
from longspan.mixing import Layer, Mixer
from longspan.slots import Places

Start = Literal["exact", "original"]


@dataclass(frozen=True)
class Nystrom(Mixer, name="nystrom"):
    """Attention by landmarks.

    Attributes:
        landmarks: m.
        iterations: towards the pseudo-inverse; 6 in the paper.
        start: ‖A‖₁ of Z₀ is each head's own ("exact"), or the largest of all heads ("original", as
            in the authors' first code, which takes it over the batch as well and so lets rows
            depend on each other).
        convolution: tokens that the convolution spans, odd; 0 for none.
    """

    causal: ClassVar[bool] = False
    bidirectional: ClassVar[bool] = True
    drops: ClassVar[bool] = True

    landmarks: int = 64
    iterations: int = 6
    start: Start = "exact"
    convolution: int = 65

    def __post_init__(self) -> None:
        problems = [
            f"mixer.{name} must be 1 or more, not {value}"
            for name in ("landmarks", "iterations")
            if (value := getattr(self, name)) < 1
        ]
        if self.convolution and (self.convolution < 0 or self.convolution % 2 == 0):
            problems.append(f"mixer.convolution must be odd, or 0 for none, not {self.convolution}")
        problems += unlisted("mixer", self)
        if problems:
            raise ConfigError(problems)

    def build(self, layer: Layer) -> Landmarks:
        return Landmarks(self, layer)


class Landmarks(LowRank):
    """Nyström attention in one layer; `near` is the convolution, a kernel a head."""

    def __init__(self, config: Nystrom, layer: Layer) -> None:
        super().__init__(layer, config.name)
        self.config = config
        span, heads = config.convolution, layer.heads
        self.near = (
            nn.Conv2d(heads, heads, (span, 1), padding=(span // 2, 0), groups=heads, bias=False)
            if span
            else None
        )

    def products(self) -> tuple[float, float]:
        # four products with landmarks, and the convolution; what is done once a sequence aside
        each = 4 * self.config.landmarks + self.config.convolution
        return 0.0, float(each * self.heads * self.head_dim)

    def meet(self, q: Tensor, k: Tensor, v: Tensor, places: Places) -> Tensor:
        k, v = each_head(k, self.heads), each_head(v, self.heads)
        q = q * self.head_dim**-0.5
        middle_q, middle_k, filled = self._landmarks(q, k, places)
        first = self.weigh(q @ middle_k.transpose(2, 3), filled)
        between = self.weigh(middle_q @ middle_k.transpose(2, 3), filled)
        last = self.weigh(middle_q @ k.transpose(2, 3), places.valid)
        if filled is not None:
            # rows and columns of what is left out are 0, and so are those of the inverse
            between = between * filled[:, None, :, None]
        inverse = pseudo_inverse(between, self.config.iterations, self.config.start).to(q.dtype)
        out = self.dropped(first) @ (inverse @ (self.dropped(last) @ v))
        return out if self.near is None else out + self.near(v)

    def _landmarks(
        self, q: Tensor, k: Tensor, places: Places
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Means of queries and of keys (B, H, m, D), and which there are (1 or B, m) bool."""
        length, count = q.shape[2], self.config.landmarks
        if places.valid is None and length % count == 0:
            run = (count, length // count)
            return q.unflatten(2, run).mean(3), k.unflatten(2, run).mean(3), None
        share = shares(length, count, places).to(q.dtype)
        filled = share.sum(2) > 0
        return share[:, None] @ q, share[:, None] @ k, filled


def shares(length: int, count: int, places: Places) -> Tensor:
    """(1 or B, m, T) float64: what each token brings to the mean that is a landmark.

    Args:
        length: T.
        count: m.
        places: where the tokens stand.
    """
    slot = torch.arange(length, device=places.pos.device)[None]
    tokens = (
        torch.full_like(slot[:, :1], length) if places.counts is None else places.counts[:, None]
    )
    landmark = slot * count // tokens.clamp(min=1)
    member = landmark[:, None, :] == torch.arange(count, device=slot.device)[:, None]
    member = (member & (slot < tokens)[:, None, :]).double()
    return member / member.sum(2, keepdim=True).clamp(min=1)


def pseudo_inverse(a: Tensor, iterations: int, start: Start) -> Tensor:
    """A⁺ of matrices (B, H, m, m) whose rows sum to 1 or are 0, approached; at least float32."""
    a = a.to(torch.promote_types(a.dtype, torch.float32))
    most = a.sum(2).amax(2, keepdim=True)
    if start == "original":
        most = most.amax(1, keepdim=True)
    # where there are no landmarks at all, nothing is divided by
    z = a.transpose(2, 3) / (most + (most == 0))[..., None]
    one = torch.eye(a.shape[3], dtype=a.dtype, device=a.device)
    for _ in range(iterations):
        az = a @ z
        z = z @ (13 * one - az @ (15 * one - az @ (7 * one - az))) / 4
    return z
