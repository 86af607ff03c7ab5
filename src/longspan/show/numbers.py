"""Writes numbers the way people read them: with their unit, and no digit too many."""

from __future__ import annotations

import math
from collections.abc import Sequence

NOTHING = "–"
"""Stands where a number was not measured."""


def known(value: float | None) -> bool:
    """Whether there is a number at all: neither missing nor NaN nor infinite."""
    return value is not None and math.isfinite(value)


def count(value: float) -> str:
    """`4,096`, `6.3 million`."""
    for size, word in ((1e9, "billion"), (1e6, "million")):
        if abs(value) >= size:
            return f"{value / size:.3g} {word}"
    return f"{value:,.0f}"


def size(value: float) -> str:
    """Bytes in decimal units: `512 bytes`, `10.2 MB`."""
    for unit, word in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if abs(value) >= unit:
            amount = value / unit
            return f"{amount:.0f} {word}" if amount >= 100 else f"{amount:.3g} {word}"
    return f"{value:.0f} byte" + ("" if value == 1 else "s")


def duration(seconds: float) -> str:
    """`0.4 s`, `45 s`, `41 min`, `2 h 05 min`."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def rate(value: float | None) -> str:
    """Tokens per second: `12,345`, `8.3`."""
    if value is None or not known(value):
        return NOTHING
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def bits(value: float | None) -> str:
    """Bits per byte, as tables show them: `2.013`."""
    return NOTHING if value is None or not known(value) else f"{value:.3f}"


def apart(values: Sequence[float]) -> list[str]:
    """Bits as sentences show them: `2.01`, with more digits if two that differ would look alike."""
    for digits in (2, 3, 4):
        texts = [f"{value:.{digits}f}" for value in values]
        if len(set(texts)) == len(set(values)):
            break
    return texts


def change(value: float | None) -> str:
    """A relative change with its sign: `−6.1%`."""
    if value is None or not known(value):
        return NOTHING
    text = f"{abs(value):.1%}"
    if text == "0.0%":
        return text
    return ("−" if value < 0 else "+") + text
