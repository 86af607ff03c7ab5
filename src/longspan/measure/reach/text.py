"""The text that is measured on: which tokens are scored, and with how much before them.

Distances are counted in tokens. In bytes a distance is as many times the bytes that a token of this
text stands for on average.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from longspan.data import Corpus
from longspan.errors import DataError

RUN = 64
"""Neighbouring tokens that are scored together: they share most of their context."""


@dataclass(frozen=True)
class Text:
    """Documents as token ids.

    Attributes:
        documents: int64 ids of each, its start symbol first.
        bytes_per_token: of its content, on average.
    """

    documents: tuple[NDArray[np.int64], ...]
    bytes_per_token: float

    @staticmethod
    def of(corpus: Corpus) -> Text:
        """The text of a corpus."""
        count = len(corpus.offsets)
        tokens = len(corpus) - count
        if not tokens:
            raise DataError("there is nothing to measure on: the data holds no token")
        documents = tuple(corpus.document(i).astype(np.int64) for i in range(count))
        return Text(documents, corpus.bytes / tokens)

    @property
    def longest(self) -> int:
        """The longest distance that can be asked for: before a run of the longest document."""
        return max(len(document) for document in self.documents) - 1 - RUN

    def check(self, distance: int) -> None:
        """Refuses a distance that no document is long enough for.

        Raises:
            DataError: it names the longest possible.
        """
        if distance > self.longest:
            if self.longest < 1:
                raise DataError(
                    f"the longest document has {self.longest + RUN} tokens, and measuring reach "
                    f"takes at least {RUN + 1}; give longer data"
                )
            raise DataError(
                f"no document is long enough for a distance of {distance:,} tokens: the longest "
                f"has {self.longest + RUN:,}, which allows {self.longest:,}; ask for --longest "
                f"{self.longest} or less, or give longer data"
            )

    def targets(self, distance: int, count: int) -> Targets:
        """Tokens to score that have `distance` tokens before them in their document.

        Runs of `RUN` neighbours, evenly spaced over all places there are; the start symbol counts
        as no context.

        Args:
            distance: the longest that will be asked for.
            count: tokens, rounded up to whole runs; fewer where the text has no room for so many.

        Raises:
            DataError: no document is long enough.
        """
        self.check(distance)
        room = np.array([max(0, len(d) - RUN - distance) for d in self.documents])
        ends = room.cumsum()
        runs = min(-(-count // RUN), max(1, int(sum(-(-room // RUN)))))
        chosen = ((np.arange(runs) + 0.5) * ends[-1] / runs).astype(np.int64)
        document = np.searchsorted(ends, chosen, side="right")
        first = chosen - (ends - room)[document] + distance + 1
        return Targets(self, tuple(zip(document.tolist(), first.tolist(), strict=True)), RUN)

    def stretches(self, length: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(B, length + 1): pieces to be read from an empty state, and (B,) of which document.

        The beginnings of the documents; where there are fewer than `count` so long, then what
        follows in them, each piece behind a start symbol of its own.

        Raises:
            DataError: no document is so long.
        """
        if max(len(d) for d in self.documents) <= length:
            raise DataError(
                f"no document has {length:,} tokens to read from its beginning: the longest has "
                f"{max(len(d) for d in self.documents) - 1:,}; ask for less, or give longer data"
            )
        rows, owners, piece = [], [], 0
        while len(rows) < count:
            some = [
                (index, document[1 + piece * length : 1 + (piece + 1) * length])
                for index, document in enumerate(self.documents)
                if len(document) > (piece + 1) * length
            ]
            if not some:
                break
            rows += [np.concatenate([self.documents[i][:1], content]) for i, content in some]
            owners += [i for i, _ in some]
            piece += 1
        return np.stack(rows[:count]), np.array(owners[:count])


@dataclass(frozen=True)
class Targets:
    """Runs of neighbouring tokens to score.

    Attributes:
        text: where they stand.
        places: (document, index of the first) of each run; index 0 is the start symbol.
        run: tokens of each.
    """

    text: Text
    places: tuple[tuple[int, int], ...]
    run: int

    @property
    def tokens(self) -> int:
        """How many there are."""
        return len(self.places) * self.run
