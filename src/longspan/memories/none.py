"""Nothing survives the segment: the vanilla Transformer of 1706.03762, window by window.

In evaluation the state still holds the unfinished segment, so that a segment may arrive in pieces.
"""

from __future__ import annotations

from dataclasses import dataclass

from longspan.buffer import Buffer


@dataclass(frozen=True)
class NoMemory(Buffer, name="none"):
    """Keeps the current segment only."""
