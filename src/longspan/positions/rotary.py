"""Rotary position embedding (2104.09864, equation 34): pairs of features turn with position."""

from __future__ import annotations

from dataclasses import dataclass

from longspan.rotation import Rotation


@dataclass(frozen=True)
class Rotary(Rotation, name="rotary"):
    """Turns queries and keys by position · base^(-2i/D)."""
