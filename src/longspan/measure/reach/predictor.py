"""What a measure asks of a model: tokens and a state in, log-probabilities and the next state out.

    nats, state = predictor.losses(inputs, targets, state)

The state is an argument and a result, as everywhere here; what it is, the predictor alone knows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from longspan.state import Carried


@dataclass(frozen=True)
class Seen:
    """Where the tokens of one call looked in one layer.

    Attributes:
        layer: its number, from 0.
        weights: (B, H, T, S) attention, each query's summing to 1 or, where a layer has something
            beside the softmax, to less.
        q_pos: (B, T) int64, where the queries stand.
        k_pos: (B, S) int64, where the keys do; below 0 for a slot that holds nothing.
        past: of the S keys, how many at the front are the memory's.
    """

    layer: int
    weights: Tensor
    q_pos: Tensor
    k_pos: Tensor
    past: int


@dataclass(frozen=True)
class Price:
    """What one stream costs.

    Attributes:
        parameters: numbers that were learned.
        flops: of a token, forward; a product of (m, k) and (k, n) counts 2mkn.
        state: bytes that one stream carries once it has read `after` tokens.
        after: tokens.
    """

    parameters: int
    flops: float
    state: int
    after: int


class Predictor(ABC):
    """A causal model as the measures see it.

    Attributes:
        name: what the report calls it.
        size: V, tokens in the vocabulary.
        unit: what a token is: "byte", "token" or "word".
        vocabulary: tells vocabularies apart: equal where equal ids mean the same.
        longest: tokens that a call and its state may span; None without limit.
        segment: tokens that are read at once when a text is read from its beginning.
        memory: tokens of memory as trained; 0 without memory, None if no one number says it.
        layers: how many there are.
    """

    name: str
    size: int
    unit: str
    vocabulary: str
    longest: int | None = None
    segment: int = 512
    memory: int | None = 0
    layers: int = 0

    @abstractmethod
    def start(self, batch: int) -> Any:
        """The state before any token."""

    @abstractmethod
    def losses(self, inputs: Tensor, targets: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Reads tokens and scores those that follow the last of them.

        Args:
            inputs: (B, T) int64, what is read.
            targets: (B, N) int64, N ≤ T: the tokens that follow the last N inputs.
            state: what `start` or the previous call gave.

        Returns:
            (B, N) -log of the targets' probabilities, nats, at least float32; and the state after
            the inputs.
        """

    def carried(self, state: Any) -> tuple[Carried, ...]:
        """What each layer carries into the next call, and last what is around them; () if nothing
        is carried.
        """
        return ()

    def carrying(self, state: Any, carried: Sequence[Carried]) -> Any:
        """`state` with this instead, as many as `carried` gave."""
        return state

    def remembering(self, tokens: int) -> Predictor | None:
        """The same weights with `tokens` tokens of memory; None if it has no such length."""
        return None

    def looks(self, inputs: Tensor, state: Any, told: Callable[[Seen], None]) -> Any:
        """Tells where tokens look, once or more for each layer that has attention.

        Args:
            inputs: (B, T) int64.
            state: before them.
            told: called with each `Seen`; all queries of a layer come once.

        Returns:
            The state after them.
        """
        return state

    def embedding(self) -> nn.Module | None:
        """The module whose output (B, T, C) are the inputs as vectors; None if it has none."""
        return None

    def price(self, after: int) -> Price | None:
        """What a stream costs that has read `after` tokens; None if it cannot be told."""
        return None
