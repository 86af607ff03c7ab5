"""No order at all but what the causal mask gives (2203.16634 shows that it suffices to learn)."""

from __future__ import annotations

from dataclasses import dataclass

from longspan.slots import Position


@dataclass(frozen=True)
class NoPosition(Position, name="none"):
    """Adds nothing, rotates nothing."""
