"""Lanes: batches in which every row reads on where it stopped, so that its memory stays true.

The corpus of N tokens is a circle without a break, and row b of B starts reading at b·⌊N/B⌋. At
step s it reads the T tokens from b·⌊N/B⌋ + s·T on; what follows each is its target. A batch
depends on the step alone: a run that goes on has nothing to restore but its number.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from longspan.data.corpus import Corpus
from longspan.errors import DataError


class Batch(NamedTuple):
    """One step's tokens, of B rows and T columns.

    Attributes:
        inputs: (B, T) int64.
        targets: (B, T) int64, the token after each.
        starts: (B, T) bool, inputs that are a document's start symbol: memory starts afresh.
    """

    inputs: Tensor
    targets: Tensor
    starts: Tensor


class Lanes:
    """The batches of a corpus.

    Args:
        corpus: what to read.
        batch: rows, B.
        segment: tokens a row reads in a step, T.

    Attributes:
        lane: ⌊N/B⌋, the tokens after which a row comes to where the next one started.

    Raises:
        DataError: the corpus is too short for one segment a row.
    """

    def __init__(self, corpus: Corpus, batch: int, segment: int) -> None:
        if batch < 1 or segment < 1:
            raise DataError(f"batch and segment must be 1 or more, not {batch} and {segment}")
        tokens = len(corpus)
        if tokens < segment + 1:
            raise DataError(
                f"the data has {tokens} tokens, fewer than a segment of {segment} and the token "
                f"after it; use more data, or a segment of at most {max(1, tokens - 1)}"
            )
        if tokens // batch < segment:
            raise DataError(
                f"the data has {tokens} tokens, fewer than the {batch * segment} that {batch} "
                f"rows read in a step of {segment}; use more data, a batch of at most "
                f"{tokens // segment}, or a segment of at most {max(1, tokens // batch)}"
            )
        self.corpus = corpus
        self.batch = batch
        self.segment = segment
        self.lane = tokens // batch
        self._tokens = np.asarray(corpus.tokens)
        self._first = np.arange(batch) * self.lane

    @property
    def epoch(self) -> int:
        """Steps after which every token has been read."""
        rest = len(self.corpus) - (self.batch - 1) * self.lane  # the last row's way is the longest
        return -(-rest // self.segment)

    def at(self, step: int) -> Batch:
        """The batch of a step, counted from 0 and without end."""
        n, width = len(self._tokens), self.segment + 1
        rows = np.empty((self.batch, width), np.int64)
        for row, begin in zip(rows, (self._first + step * self.segment) % n, strict=True):
            fits = min(width, n - begin)
            row[:fits] = self._tokens[begin : begin + fits]
            row[fits:] = self._tokens[: width - fits]
        both = torch.from_numpy(rows)
        inputs, targets = both[:, :-1].contiguous(), both[:, 1:].contiguous()
        return Batch(inputs, targets, inputs == self.corpus.codec.start)
