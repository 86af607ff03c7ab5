"""The two plots of a report, as SVG that stands inside the page and takes on its colours.

Lines differ in their dashes too, never in colour alone, and carry their name beside them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log2
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from longspan.show.drawing import (
    INK,
    MODEL,
    PAPER,
    SECOND,
    THIRD,
    Plot,
    empty,
    limit,
    name_lines,
    settings,
    svg,
    tick,
)
from longspan.show.numbers import apart, known
from longspan.show.sentences import read_memory, read_training

REACH = 2.5
"""How many times the curve's own height reference lines may stretch the picture."""

FIRST_GAP = 1.4
"""Width from memory 0 to the shortest memory, in doublings: zero has no logarithm."""


@dataclass(frozen=True)
class Reference:
    """A horizontal line to compare a curve with: its name, its bits and whether it is a model."""

    name: str
    bits: float
    model: bool = True


def memory_curve(
    points: Sequence[Mapping[str, Any]],
    trained: int | None = None,
    references: Sequence[Reference] = (),
    band: str | None = None,
) -> Plot:
    """Bits per byte against the length of the memory.

    Args:
        points: `{"memory": 256, "bits_per_byte": 2.1, "low": 2.05, "high": 2.15}`; the interval
            is optional.
        trained: memory length in training, tokens; marked if given.
        references: drawn where they do not squeeze the curve, else said in the reading.
        band: what the interval is, in words.
    """
    found = sorted((p for p in points if known(p["bits_per_byte"])), key=lambda p: p["memory"])
    lengths = [point["memory"] for point in found]
    values = [point["bits_per_byte"] for point in found]
    lows = [_else(point.get("low"), point["bits_per_byte"]) for point in found]
    highs = [_else(point.get("high"), point["bits_per_byte"]) for point in found]
    near, far = _within([*lows, *highs], references)
    reading = read_memory(found, trained, [(line.name, line.bits) for line in far], band)

    with settings("memory"):
        figure, axes = empty(right=0.76 if near else 0.97)
        axes.set_xlabel("length of the memory, tokens (logarithmic, with 0 at the left)")
        axes.set_ylabel("bits per byte")
        scale = [*lengths, trained] if trained else lengths
        shortest = min((length for length in scale if length > 0), default=1)
        places = [_place(length, shortest) for length in lengths]
        if lows != values or highs != values:
            axes.fill_between(places, lows, highs, color=MODEL, alpha=0.16, linewidth=0)
        if trained:
            axes.axvline(_place(trained, shortest), color=INK, linewidth=0.7, dashes=(1, 2.5))
            axes.annotate(
                f"trained with {trained:,}",
                (_place(trained, shortest), 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(0, 4),
                textcoords="offset points",
                ha="center",
            )
        axes.plot(
            places, values, color=MODEL, marker="o", markersize=5, markeredgecolor=PAPER, zorder=3
        )
        _name_points(axes, places, lengths, values, trained)
        for place, line in enumerate(near):
            colour, dashes = (SECOND, (5, 2)) if line.model else (THIRD, (1.2, 1.8))
            axes.axhline(line.bits, color=colour, linewidth=1.1, dashes=dashes, zorder=2 + place)
        labelled = _spaced(scale, shortest, keep={0, trained, lengths[-1] if lengths else 0})
        axes.xaxis.set_major_locator(FixedLocator([_place(x, shortest) for x in labelled]))
        axes.set_xticklabels([f"{length:,}" for length in labelled])
        ends = [_place(length, shortest) for length in scale] or [0.0]
        axes.set_xlim(min(ends) - 0.35, max(ends) + 0.35)
        limit(axes, [*lows, *highs, *(line.bits for line in near)])
        texts = apart([line.bits for line in near])
        name_lines(
            axes,
            [
                (line.bits, f"{line.name}, {text}", SECOND if line.model else THIRD)
                for line, text in zip(near, texts, strict=True)
            ],
        )
        drawn = svg(figure, "memory", "Bits per byte against the length of the memory", reading)
    return Plot(drawn, reading)


def training_curve(
    training: Sequence[Mapping[str, Any]], validation: Sequence[Mapping[str, Any]] = ()
) -> Plot:
    """Bits per byte while the model was trained, on training and on held-out text.

    Args:
        training, validation: `{"step": 10, "tokens": 40960, "bits_per_byte": 3.1}`; against steps
            if all points have them, else against tokens.
    """
    raw = [point for point in training if known(point["bits_per_byte"])]
    held = [point for point in validation if known(point["bits_per_byte"])]
    unit, label = _progress([*raw, *held])
    xs, ys = [point[unit] for point in raw], [point["bits_per_byte"] for point in raw]
    smooth = _smoothed(ys)
    held_xs, held_ys = [point[unit] for point in held], [point["bits_per_byte"] for point in held]
    ceiling = _ceiling(ys, held_ys)
    above = ceiling is not None and max([*ys, *held_ys]) > ceiling
    reading = read_training(
        raw, held, smooth[-1] if smooth else None, max([*ys, *held_ys]) if above else None
    )

    with settings("training"):
        figure, axes = empty(right=0.81)
        axes.set_xlabel(label)
        axes.set_ylabel("bits per byte")
        lines = []
        if raw:
            axes.plot(xs, ys, color=SECOND, linewidth=0.6, alpha=0.35)
            axes.plot(xs, smooth, color=SECOND, linewidth=1.3, dashes=(5, 1.5))
            lines.append((smooth[-1], "training", SECOND))
        if held:
            axes.plot(
                held_xs,
                held_ys,
                color=MODEL,
                marker="o",
                markersize=3.5 if len(held) < 40 else 0,
                markeredgecolor=PAPER,
                markeredgewidth=0.5,
                zorder=4,
            )
            lines.append((held_ys[-1], "held-out", MODEL))
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: tick(x)))
        limit(axes, [*ys, *held_ys], ceiling)
        texts = apart([bits for bits, _, _ in lines])
        name_lines(
            axes,
            [
                (bits, f"{name}, {text}", colour)
                for (bits, name, colour), text in zip(lines, texts, strict=True)
            ],
        )
        drawn = svg(figure, "training", "Bits per byte during training", reading)
    return Plot(drawn, reading)


def _place(length: int, shortest: int) -> float:
    """Where a memory length stands: doublings are equally wide, and 0 is a place of its own."""
    if length < shortest:
        return FIRST_GAP * length / shortest
    return FIRST_GAP + log2(length / shortest)


def _spaced(lengths: Sequence[int], shortest: int, keep: set[int | None]) -> list[int]:
    """The lengths whose labels have room; those in `keep` come first."""
    width = _place(max(lengths, default=0), shortest) or 1.0
    chosen: list[int] = []
    for length in sorted(set(lengths), key=lambda length: (length not in keep, length)):
        place = _place(length, shortest)
        if all(abs(place - _place(other, shortest)) > 0.075 * width for other in chosen):
            chosen.append(length)
    return sorted(chosen)


def _within(
    values: Sequence[float], references: Sequence[Reference]
) -> tuple[list[Reference], list[Reference]]:
    """Reference lines that may be drawn, nearest first, and those that would squeeze the curve."""
    usable = [line for line in references if known(line.bits)]
    if not values:
        return usable, []
    low, high = min(values), max(values)
    room = REACH * max(high - low, 0.03 * high)
    near: list[Reference] = []
    far: list[Reference] = []
    for line in sorted(usable, key=lambda line: max(low - line.bits, line.bits - high)):
        reach = (min(low, line.bits), max(high, line.bits))
        if reach[1] - reach[0] > room:
            far.append(line)
        else:
            low, high = reach
            near.append(line)
    return near, far


def _name_points(
    axes: Axes,
    places: Sequence[float],
    lengths: Sequence[int],
    values: Sequence[float],
    trained: int | None,
) -> None:
    """Writes the bits at no memory, at the trained length and at the longest."""
    ends = (0, len(lengths) - 1)
    marked = [i for i, length in enumerate(lengths) if i in ends or length == trained]
    for index, text in zip(marked, apart([values[index] for index in marked]), strict=True):
        last = index == len(lengths) - 1
        rising = not last and values[index + 1] > values[index]
        axes.annotate(
            text,
            (places[index], values[index]),
            xytext=(0, 7) if last else (5, -11 if rising else 5),  # where the curve does not go
            textcoords="offset points",
            ha="center" if last else "left",
            color=MODEL,
            zorder=5,
        )


def _progress(points: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """The key of the horizontal axis and its label."""
    if not all("step" in point for point in points):
        return "tokens", "training, tokens read"
    each = {
        point["tokens"] / point["step"] for point in points if point.get("tokens") and point["step"]
    }
    if len(each) == 1 and all(known(value) for value in each):
        return "step", f"training, steps of {each.pop():,.0f} tokens"
    return "step", "training, steps"


def _smoothed(values: Sequence[float]) -> list[float]:
    """The mean over a window on both sides.

    The window shrinks towards the start, where the curve is steep and a mean would lie above it,
    and is cut at the end, where one step says little.
    """
    reach = max(len(values) // 40, 1)
    means = []
    for place in range(len(values)):
        window = values[place - min(reach, place) : place + min(reach, place) + 1]
        means.append(sum(window) / len(window))
    if len(values) > reach:
        means[-reach:] = [
            sum(values[i - reach :]) / len(values[i - reach :]) for i in range(-reach, 0)
        ]
    return means


def _ceiling(training: Sequence[float], validation: Sequence[float]) -> float | None:
    """Where to cut the picture, so that the first steps do not squeeze all others; None for not."""
    if len(training) < 20:
        return None
    later = [*training[len(training) // 25 :], *validation]
    top, low = max(later), min([*training, *validation])
    return top if max(training) - low > 1.3 * (top - low) else None


def _else(value: float | None, other: float) -> float:
    return value if value is not None and known(value) else other
