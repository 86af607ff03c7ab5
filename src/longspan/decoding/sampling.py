"""Which token next: greedy, or drawn after temperature, top-k and top-p (nucleus, 1904.09751)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from longspan.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a token is drawn.

    Attributes:
        greedy: take the most probable.
        temperature: divides the logits; below 1 sharpens.
        top_k: only the k most probable; 0 for all.
        top_p: only the most probable that together reach p; 1 for all.
    """

    greedy: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        problems = []
        if not self.temperature > 0:
            problems.append(
                f"temperature must be above 0, not {self.temperature}; use greedy for none"
            )
        if self.top_k < 0:
            problems.append(f"top_k must be 0 (all) or more, not {self.top_k}")
        if not 0 < self.top_p <= 1:
            problems.append(f"top_p must be above 0 and at most 1, not {self.top_p}")
        if problems:
            raise ConfigError(problems)

    def probabilities(self, logits: Tensor) -> Tensor:
        """(B, V) float32 or float64: what is drawn from, after temperature, top-k, then top-p."""
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32)) / self.temperature
        if self.top_k and self.top_k < logits.shape[-1]:
            best = logits.topk(self.top_k, -1)
            logits = torch.full_like(logits, -torch.inf).scatter(-1, best.indices, best.values)
        if self.top_p < 1:
            ranked, order = logits.sort(descending=True, dim=-1, stable=True)
            probs = ranked.softmax(-1)
            # a token stays if those before it have not reached p: the first always does
            drop = probs.cumsum(-1) - probs >= self.top_p
            logits = logits.masked_fill(drop.gather(-1, order.argsort(-1)), -torch.inf)
        return logits.softmax(-1)

    def draw(self, logits: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The next token (B,) int64 for logits (B, V)."""
        if self.greedy:
            return logits.argmax(-1)
        return torch.multinomial(self.probabilities(logits), 1, generator=generator)[:, 0]
