"""Batches of pairs of like length, within a budget of tokens (`data/plan.py`).

They are sorted by the longer of source and target, which is what the budget counts, then by the
target, so that the long sources of summaries lie together as well as the like lengths of
translations.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from longspan.data.pairs.corpus import Pairs
from longspan.data.plan import Plan
from longspan.errors import DataError


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
        sources, targets = self._lengths.T
        self._plan = Plan(self._lengths.max(1), tokens, seed, (targets, sources))

    @property
    def epoch(self) -> int:
        """Batches of the first epoch; steps 0 to `epoch` - 1 read every record once. Another
        epoch may have a few more or less.
        """
        return self._plan.epoch

    @property
    def padding(self) -> float:
        """Share of padding among the places of the first epoch, sources' and targets'."""
        order, cuts = self._plan.made(0)
        longest = np.maximum.reduceat(self._lengths[order], cuts[:-1])
        places = longest * np.diff(cuts)[:, None]
        return float(1 - self._lengths.sum() / places.sum())

    def at(self, step: int) -> PairBatch:
        """The batch of a step, counted from 0 and without end."""
        return self.rows(self.chosen(step))

    def chosen(self, step: int) -> NDArray[np.int64]:
        """Which records are in the batch of a step."""
        return self._plan.chosen(step)

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
