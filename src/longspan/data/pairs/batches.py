"""Batches of pairs of like length, within a budget of tokens.

Each epoch the records are shuffled, sorted within large chunks, and cut wherever one more would
exceed the budget; then the batches are shuffled. They are sorted by the longer of source and
target, which is what the budget counts, then by the target, so that the long sources of summaries
lie together as well as the like lengths of translations. All draws come from the seed and the
number of the epoch, so a batch depends on the step alone: a run that goes on has nothing to restore
but its number.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from longspan.data.pairs.corpus import Pairs
from longspan.errors import DataError

CHUNK = 64
"""Batches' worth of tokens that are sorted together, or half of the records if they are fewer."""


class PairBatch(NamedTuple):
    """One step's pairs: B rows, S tokens of source and T of target, right-padded with 0.

    Attributes:
        source: (B, S) int64.
        source_valid: (B, S) bool, what is no padding.
        inputs: (B, T) int64, [start, ids…].
        targets: (B, T) int64, [ids…, start]: what follows each input.
        target_valid: (B, T) bool, what is no padding, of both.
        records: (B,) int64, which pairs these are.
    """

    source: Tensor
    source_valid: Tensor
    inputs: Tensor
    targets: Tensor
    target_valid: Tensor
    records: Tensor


class Plan(NamedTuple):
    """An epoch: `order[cuts[i]:cuts[i + 1]]` are the records of its batch i."""

    order: NDArray[np.int64]
    cuts: NDArray[np.int64]

    @property
    def batches(self) -> int:
        """How many there are."""
        return len(self.cuts) - 1


class Batches:
    """The batches of a corpus of pairs.

    Args:
        pairs: what to read.
        tokens: rows times tokens of a batch, padding among them, for targets and for sources:
            whichever are longer count. A target counts with the start symbol.
        seed: of all shuffles.
        limit: tokens of the longest source or target that the model takes; None: no limit.

    Raises:
        DataError: there are no records, or one is longer than `tokens` or `limit`.
    """

    def __init__(
        self, pairs: Pairs, tokens: int = 4096, seed: int = 0, limit: int | None = None
    ) -> None:
        if tokens < 1:
            raise DataError(f"a batch must have 1 token or more, not {tokens}")
        if len(pairs) == 0:
            raise DataError("there are no pairs to make batches of")
        self.pairs = pairs
        self.tokens = tokens
        self.seed = seed
        self._lengths = pairs.lengths + np.array([0, 1])  # the start symbol is read or written too
        self._refuse(tokens, "a batch has; use larger batches, or")
        if limit is not None:
            self._refuse(limit, "the model takes; use")
        # epochs differ in their number of batches, so where one begins follows from those before
        # it; the plan at hand and the ends of those made save time and change nothing
        self._plan, self._at = self._made(0), 0
        self._ends = [self._plan.batches]

    @property
    def epoch(self) -> int:
        """Batches of the first epoch; steps 0 to `epoch` - 1 read every record once. Another
        epoch may have a few more or less.
        """
        return self._ends[0]

    @property
    def padding(self) -> float:
        """Share of padding among the places of the first epoch, sources' and targets'."""
        order, cuts = self._made(0)
        longest = np.maximum.reduceat(self._lengths[order], cuts[:-1])
        places = longest * np.diff(cuts)[:, None]
        return float(1 - self._lengths.sum() / places.sum())

    def at(self, step: int) -> PairBatch:
        """The batch of a step, counted from 0 and without end."""
        return self.rows(self.chosen(step))

    def chosen(self, step: int) -> NDArray[np.int64]:
        """Which records are in the batch of a step."""
        while step >= self._ends[-1]:
            self._turn(len(self._ends))
            self._ends.append(self._ends[-1] + self._plan.batches)
        epoch = bisect_right(self._ends, step)
        self._turn(epoch)
        batch = step - (self._ends[epoch - 1] if epoch else 0)
        order, cuts = self._plan
        return order[cuts[batch] : cuts[batch + 1]]

    def rows(self, records: NDArray[np.int64]) -> PairBatch:
        """A batch of the records given, in that order."""
        start = self.pairs.codec.start
        sources, targets = self._lengths[records].T
        source = np.zeros((len(records), sources.max()), np.int64)
        inputs = np.zeros((len(records), targets.max()), np.int64)
        outputs = np.zeros_like(inputs)
        inputs[:, 0] = start
        for row, record in enumerate(records):
            ids = self.pairs.target(record)
            source[row, : sources[row]] = self.pairs.source(record)
            inputs[row, 1 : targets[row]] = ids
            outputs[row, : len(ids)] = ids
            outputs[row, len(ids)] = start
        return PairBatch(
            torch.from_numpy(source),
            _valid(sources),
            torch.from_numpy(inputs),
            torch.from_numpy(outputs),
            _valid(targets),
            torch.from_numpy(records.copy()),  # the plan is not for others to change
        )

    def _turn(self, epoch: int) -> None:
        if epoch != self._at:
            self._plan, self._at = self._made(epoch), epoch

    def _made(self, epoch: int) -> Plan:
        draw = np.random.default_rng((self.seed, epoch))
        order = draw.permutation(len(self.pairs))
        widths = self._lengths.max(1)
        # of two chunks or more each has other records in every epoch, and so has each batch
        chunks = max(2, round(widths.sum() / (CHUNK * self.tokens)))
        chunk = np.cumsum(widths[order]) * chunks // (widths.sum() + 1)
        sources, targets = self._lengths[order].T
        order = order[np.lexsort((sources, targets, widths[order], chunk))]
        starts, sizes = self._cut(widths[order])
        shuffled = draw.permutation(len(starts))
        starts, sizes = starts[shuffled], sizes[shuffled]
        cuts = np.concatenate([[0], np.cumsum(sizes)])
        # each batch's stretch of `order`, one after the other
        places = np.arange(len(order)) + np.repeat(starts - cuts[:-1], sizes)
        return Plan(order[places], cuts)

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

    def _refuse(self, most: int, who: str) -> None:
        over = np.flatnonzero(self._lengths.max(1) > most)
        if len(over):
            first = int(over[0])
            side = int(self._lengths[first].argmax())
            others = f" ({len(over)} records are as long)" if len(over) > 1 else ""
            raise DataError(
                f"{self.pairs.name(first)}: the {('source', 'target')[side]} has "
                f"{self._lengths[first, side]} tokens, more than the {most} that {who} "
                f"data.longest: {most - 1} to leave such records out of training{others}"
            )


def _valid(lengths: NDArray[np.int64]) -> Tensor:
    return torch.from_numpy(np.arange(lengths.max()) < lengths[:, None])
