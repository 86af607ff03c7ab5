"""Predictors that use exactly lag k, and texts that they foresee: what must be found is known.

Their state is the tokens that they have read.
"""

from __future__ import annotations

from abc import abstractmethod
from math import log

import numpy as np
import torch
from torch import Tensor

from longspan.measure.reach.predictor import Predictor
from longspan.measure.reach.text import Targets, Text

V = 17
"""Tokens in the vocabulary; the last is the start symbol, which comes nowhere else."""

SURE = 0.999
"""Probability of what is foreseen; the rest is shared by all others."""


class Constructed(Predictor):
    """Foresees the token that `foreseen` says, where it says one; else all alike."""

    size, unit, vocabulary = V, "token", "constructed"

    def __init__(self, k: int) -> None:
        self.k, self.name = k, f"{type(self).__name__} {k}"

    def start(self, batch: int) -> Tensor:
        return torch.zeros(batch, 0, dtype=torch.long)

    def losses(self, inputs: Tensor, targets: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        history = torch.cat([state, inputs], 1)
        count = history.shape[1] - targets.shape[1]
        nats = torch.full(targets.shape, log(V), dtype=torch.float64)
        for place in range(targets.shape[1]):
            foreseen = self.foreseen(history[:, : count + place + 1])
            if foreseen is not None:
                right = foreseen == targets[:, place]
                known = torch.where(right, -log(SURE), -log((1 - SURE) / (V - 1))).double()
                nats[:, place] = torch.where(foreseen < 0, nats[:, place], known)
        return nats, history

    @abstractmethod
    def foreseen(self, history: Tensor) -> Tensor | None:
        """(B,) the token after `history` (B, P), -1 where nothing is; None for nowhere."""


class Copier(Constructed):
    """x_t = x_(t-k)."""

    def foreseen(self, history: Tensor) -> Tensor | None:
        return history[:, -self.k] if history.shape[1] >= self.k else None


class Markov(Constructed):
    """x_t looked up by all of the last k tokens: a sum of them, with weights, modulo 16."""

    def __init__(self, k: int) -> None:
        super().__init__(k)
        self.weights = torch.from_numpy(np.random.default_rng(k).integers(1, 16, k) | 1)

    def foreseen(self, history: Tensor) -> Tensor | None:
        if history.shape[1] < self.k:
            return None
        return (history[:, -self.k :] * self.weights).sum(1) % 16


class Keyed(Constructed):
    """A key (2 … 15) is told once; nothing (0) follows, then a question (1) and the key again."""

    def foreseen(self, history: Tensor) -> Tensor | None:
        told = (history >= 2) & (history < V - 1)
        first = history.gather(1, told.long().argmax(1, keepdim=True))[:, 0]
        asked = history[:, -1] == 1
        return torch.where(asked, torch.where(told.any(1), first, -1), 0)


def recurrence(predictor: Constructed, length: int) -> Text:
    """A text that begins with k random tokens and is foreseen from then on."""
    k = predictor.k
    tokens = torch.zeros(1, length, dtype=torch.long)
    tokens[0, :k] = torch.from_numpy(np.random.default_rng(1).integers(0, 16, k))
    for place in range(k, length):
        foreseen = predictor.foreseen(tokens[:, :place])
        assert foreseen is not None
        tokens[:, place] = foreseen
    return Text((np.concatenate([[V - 1], tokens[0].numpy()]),), 1.0)


def keys(k: int, longest: int, count: int = 8) -> Targets:
    """Documents in which the key stands k tokens before the only target."""
    documents = []
    for key in np.random.default_rng(2).integers(2, V - 1, count):
        document = np.zeros(longest + 2, np.int64)
        document[0] = V - 1
        document[[-1 - k, -1]] = key
        document[-2] = 1
        documents.append(document)
    return Targets(Text(tuple(documents), 1.0), tuple((i, longest + 1) for i in range(count)), 1)
