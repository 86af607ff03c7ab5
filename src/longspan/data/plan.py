"""Which records make a batch: those of like length, within a budget of tokens.

Each epoch the records are shuffled, sorted within large chunks, and cut wherever one more would
exceed the budget; then the batches are shuffled. All draws come from the seed and the number of the
epoch, so a batch depends on the step alone: a run that goes on has nothing to restore but its
number.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

CHUNK = 64
"""Batches' worth of tokens that are sorted together, or half of the records if they are fewer."""


class Epoch(NamedTuple):
    """`order[cuts[i]:cuts[i + 1]]` are the records of its batch i."""

    order: NDArray[np.int64]
    cuts: NDArray[np.int64]

    @property
    def batches(self) -> int:
        """How many there are."""
        return len(self.cuts) - 1


class Plan:
    """The batches of N records, one or more.

    Args:
        widths: (N,) int64, what each record takes of the budget, at most `tokens`.
        tokens: rows times the widest of a batch.
        seed: of all shuffles.
        ties: (N,) each, by what records of equal width are sorted, the first most.
    """

    def __init__(
        self,
        widths: NDArray[np.int64],
        tokens: int,
        seed: int,
        ties: Sequence[NDArray[np.int64]] = (),
    ) -> None:
        self.widths, self.tokens, self.seed, self.ties = widths, tokens, seed, ties
        # epochs differ in their number of batches, so where one begins follows from those before
        # it; the epoch at hand and the ends of those made save time and change nothing
        self._epoch, self._at = self.made(0), 0
        self._ends = [self._epoch.batches]

    @property
    def epoch(self) -> int:
        """Batches of the first epoch; steps 0 to `epoch` - 1 read every record once. Another
        epoch may have a few more or less.
        """
        return self._ends[0]

    def chosen(self, step: int) -> NDArray[np.int64]:
        """Which records are in the batch of a step, counted from 0 and without end."""
        while step >= self._ends[-1]:
            self._turn(len(self._ends))
            self._ends.append(self._ends[-1] + self._epoch.batches)
        epoch = bisect_right(self._ends, step)
        self._turn(epoch)
        batch = step - (self._ends[epoch - 1] if epoch else 0)
        order, cuts = self._epoch
        return order[cuts[batch] : cuts[batch + 1]]

    def made(self, epoch: int) -> Epoch:
        """All batches of an epoch."""
        draw = np.random.default_rng((self.seed, epoch))
        widths = self.widths
        order = draw.permutation(len(widths))
        # of two chunks or more each has other records in every epoch, and so has each batch
        chunks = max(2, round(widths.sum() / (CHUNK * self.tokens)))
        chunk = np.cumsum(widths[order]) * chunks // (widths.sum() + 1)
        keys = [tie[order] for tie in reversed(self.ties)]
        order = order[np.lexsort((*keys, widths[order], chunk))]
        starts, sizes = self._cut(widths[order])
        shuffled = draw.permutation(len(starts))
        starts, sizes = starts[shuffled], sizes[shuffled]
        cuts = np.concatenate([[0], np.cumsum(sizes)])
        # each batch's stretch of `order`, one after the other
        places = np.arange(len(order)) + np.repeat(starts - cuts[:-1], sizes)
        return Epoch(order[places], cuts)

    def _turn(self, epoch: int) -> None:
        if epoch != self._at:
            self._epoch, self._at = self.made(epoch), epoch

    def _cut(self, widths: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Begin and size of each batch: as many records as fit, one after the other."""
        starts, start = [], 0
        while start < len(widths):
            starts.append(start)
            most = self.tokens // int(widths[start])  # it is as wide as its first record or wider
            width = np.maximum.accumulate(widths[start : start + most])
            fits = width * np.arange(1, len(width) + 1) <= self.tokens
            start += len(fits) if fits.all() else int(fits.argmin())
        begins = np.array(starts)
        return begins, np.diff(begins, append=len(widths))
