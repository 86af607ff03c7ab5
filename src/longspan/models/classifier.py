"""Which class a sequence is of: scores that are linear in its pooled hidden states.

An encoder reads it whole; or a decoder segment by segment, with the memory that it carries, so that
it may be of any length.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from longspan.dropping import Dropout
from longspan.errors import ConfigError, Conflict, unlisted
from longspan.models.decoder import Decoder, DecoderConfig
from longspan.models.encoder import Encoder, EncoderConfig
from longspan.models.pooling import Pool, pooled


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig(ABC):
    """What tells classes: what reads, and

    Attributes:
        pool: what a sequence is taken by: the mean of its hidden states, the first one (of an
            encoder) or the last one.
        dropout: of the pooled vector, in training.
    """

    pool: Pool = "mean"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        problems = unlisted("model", self)
        if not 0 <= self.dropout < 1:
            problems.append(f"model.dropout must be at least 0 and below 1, not {self.dropout}")
        if problems:
            raise ConfigError(problems)

    @property
    @abstractmethod
    def stack(self) -> EncoderConfig | DecoderConfig:
        """What reads."""

    def conflicts(self) -> list[Conflict]:
        """What the choices say against each other."""
        return self.stack.conflicts()

    @abstractmethod
    def build(self, size: int | None) -> Encoder | Decoder:
        """What reads, with fresh weights.

        Args:
            size: V, tokens in the vocabulary; None for vectors.
        """


@dataclass(frozen=True, kw_only=True)
class WholeConfig(ClassifierConfig):
    """A sequence is read whole, by

    Attributes:
        encoder: it.
    """

    encoder: EncoderConfig

    @property
    def stack(self) -> EncoderConfig:
        return self.encoder

    def build(self, size: int | None) -> Encoder:
        return Encoder(self.encoder, size)


@dataclass(frozen=True, kw_only=True)
class CarriedConfig(ClassifierConfig):
    """A sequence is read segment by segment, by

    Attributes:
        decoder: it, with the memory that it carries.
    """

    decoder: DecoderConfig

    @property
    def stack(self) -> DecoderConfig:
        return self.decoder

    def conflicts(self) -> list[Conflict]:
        found = super().conflicts()
        if self.pool == "first":
            found.append(
                Conflict(
                    "H1",
                    "pool='first' is what a decoder knows before it has read on.",
                    "Use model.pool=mean or last, or model.encoder.",
                )
            )
        return found

    def build(self, size: int | None) -> Decoder:
        if size is None:
            raise ConfigError("a decoder reads tokens; give vectors to model.encoder")
        return Decoder(self.decoder, size)


def config_of(tree: Any) -> type[WholeConfig | CarriedConfig]:
    """What the section `model` is, of which YAML gave `tree`."""
    carried = isinstance(tree, Mapping) and "decoder" in tree and "encoder" not in tree
    return CarriedConfig if carried else WholeConfig


class Classifier(nn.Module):
    """Sequences to scores of classes.

    Args:
        config: what it is made of.
        classes: K, how many there are.
        size: V, tokens in the vocabulary; None where sequences are of vectors.
        features: F, numbers of a vector; None of tokens.

    Raises:
        IncompatibleConfig: choices that exclude each other, all of them at once.
    """

    def __init__(
        self,
        config: WholeConfig | CarriedConfig,
        classes: int,
        size: int | None,
        features: int | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        stack, width = config.build(size), config.stack.width
        # called as in the recipe
        self.encoder = stack if isinstance(stack, Encoder) else None
        self.decoder = stack if isinstance(stack, Decoder) else None
        self.project = None if features is None else nn.Linear(features, width)
        self.dropout = Dropout(config.dropout)
        self.head = nn.Linear(width, classes)
        nn.init.zeros_(self.head.bias)
        nn.init.normal_(self.head.weight, std=width**-0.5)

    @property
    def stack(self) -> Encoder | Decoder:
        """What reads."""
        found = self.encoder or self.decoder
        assert found is not None
        return found

    def pooled(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """The vector (B, C) of each sequence that scores are made of; as `forward`."""
        return pooled(self.stack, self.entered(x), valid, self.config.pool)

    def entered(self, x: Tensor) -> Tensor:
        """What the stack reads: tokens as they are, vectors (B, T, F) as (B, T, C)."""
        return x if self.project is None else self.project(x.to(self.project.weight.dtype))

    def forward(self, x: Tensor, *, valid: Tensor | None = None) -> Tensor:
        """Scores of classes.

        Args:
            x: (B, T) int64 tokens, or (B, T, F) vectors.
            valid: (B, T) bool, marks what is real (right padding is False).

        Returns:
            (B, K) logits, at least float32.

        Raises:
            InputError: a row without a token, or `x` that the model cannot take.
        """
        h = self.dropout(self.pooled(x, valid))
        scores = self.head(h.to(self.head.weight.dtype))
        return scores.to(torch.promote_types(scores.dtype, torch.float32))
