"""How a content becomes a sequence: an `Input` is the choice, fitting it gives an `Encoding`.

    text        tokens, of one tokenizer
    patches     squares, rows or single pixels of images

A sequence is of tokens (T,) or of vectors (T, F). Where nothing but the content is asked for, there
is no more to a kind of data than its input: what follows it (batches, models, heads, scores) reads
sequences.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from longspan.data.labelled.item import Item
from longspan.registry import Component


@dataclass(frozen=True)
class Input(Component, kind="input", folder="longspan.data.inputs"):
    """The choice of how contents are read.

    Traits:
        files: each content is a file by itself, as an image is; a file of texts has one a line.
        vectors: sequences are of vectors, not of tokens.
    """

    files: ClassVar[bool] = False
    vectors: ClassVar[bool] = False
    encoding: ClassVar[type[Encoding]]

    @abstractmethod
    def fit(self, items: Iterable[Item]) -> Encoding:
        """Learns what reading needs from the training records; each is read once.

        Raises:
            DataError: a content is none.
        """


class Encoding(ABC):
    """A fitted input."""

    @property
    @abstractmethod
    def size(self) -> int | None:
        """V, tokens in the vocabulary; None of vectors."""

    @property
    @abstractmethod
    def features(self) -> int | None:
        """F, numbers of a vector; None of tokens."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Equal for encodings that give equal sequences."""

    @abstractmethod
    def encode(self, items: Iterable[Item]) -> Iterator[NDArray[Any]]:
        """The sequence of each record as it is kept in memory: (T,) or (T, F), T ≥ 1.

        Raises:
            DataError: a content is none.
        """

    @abstractmethod
    def model_input(self, values: NDArray[Any]) -> Tensor:
        """What a model reads of sequences in a batch, padded with zeros.

        Args:
            values: (B, T) or (B, T, F), as `encode` gives them.

        Returns:
            (B, T) int64 tokens, or (B, T, F) float32.
        """

    def varied(self, values: NDArray[Any], draw: np.random.Generator) -> NDArray[Any]:
        """What training reads in place of sequences of like meaning, drawn anew each time.

        Args:
            values: (B, T) or (B, T, F), as `encode` gives them.
            draw: of this call alone.
        """
        return values

    @abstractmethod
    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes what `load` reads.

        Raises:
            CheckpointError: it cannot be written.
        """

    @classmethod
    @abstractmethod
    def load(cls, folder: str | os.PathLike[str]) -> Self:
        """Reads what `save` wrote.

        Raises:
            CheckpointError: it is missing or damaged.
        """
