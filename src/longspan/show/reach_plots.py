"""The figures of a page about reach: curves over tokens, heat maps, bars, a frontier.

As in `plots.py` nothing is told by colour alone: lines have dashes and names, cells their numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter

from longspan.show.drawing import (
    FAINT,
    INK,
    MODEL,
    PAPER,
    SECOND,
    SIZE,
    THIRD,
    Plot,
    empty,
    limit,
    name_lines,
    settings,
    svg,
    tick,
)

STYLES = (
    (MODEL, (1, 0)),
    (SECOND, (5, 2)),
    (THIRD, (1.2, 1.8)),
    (MODEL, (6, 1.5, 1.2, 1.5)),
    (SECOND, (1.2, 1.2)),
    (THIRD, (8, 3)),
)
"""Colour and dashes of each line."""

CELL = 0.27
"""Inches of a row of a heat map."""


@dataclass(frozen=True)
class Line:
    """A curve over tokens.

    Attributes:
        name: beside its end.
        xs: tokens, 1 or more.
        ys, lows, highs: values and their interval; no interval where both are ().
        mark: tokens at which it is marked; None for nowhere.
    """

    name: str
    xs: Sequence[int]
    ys: Sequence[float]
    lows: Sequence[float] = ()
    highs: Sequence[float] = ()
    mark: int | None = None


def curves(id: str, title: str, lines: Sequence[Line], across: str, up: str, reading: str) -> Plot:
    """Lines over tokens, whose axis is logarithmic; a dot where a line is marked."""
    with settings(id):
        figure, axes = empty(right=0.78)
        axes.set_xscale("log", base=2)
        axes.set_xlabel(across)
        axes.set_ylabel(up)
        values = []
        for line, (colour, dashes) in zip(lines, _styles(len(lines)), strict=True):
            if line.lows:
                axes.fill_between(
                    line.xs, line.lows, line.highs, color=colour, alpha=0.14, linewidth=0
                )
            axes.plot(line.xs, line.ys, color=colour, dashes=dashes, linewidth=1.5, zorder=3)
            for x, y in zip(line.xs, line.ys, strict=True):
                if x == line.mark:
                    axes.plot([x], [y], "o", color=colour, markeredgecolor=PAPER, zorder=4)
            values += [*line.ys, *line.lows, *line.highs]
        limit(axes, values)
        most = max((x for line in lines for x in line.xs), default=1)
        _doublings(axes, most)
        ends = [(line.ys[-1], line.name, style[0]) for line, style in _paired(lines) if line.ys]
        name_lines(axes, ends)
        return Plot(svg(figure, id, title, reading), reading)


def heat(
    id: str,
    title: str,
    values: Sequence[Sequence[float | None]],
    rows: Sequence[str],
    columns: Sequence[str],
    x: str,
    y: str,
    reading: str,
    *,
    top: float | None = None,
    digits: str = ".2f",
) -> Plot:
    """Cells of which the fullest colour is the highest value, each with its number if it has room.

    Args:
        values: a row a list, the first on top; None where nothing was measured.
        top: value of the fullest colour; the highest one if it is not said. Below 0 all is bare.
        digits: how a number is written.
    """
    known = [value for row in values for value in row if value is not None]
    most = (max(known, default=0.0) if top is None else top) or 1.0
    height = 0.95 + CELL * max(2, min(len(rows), 24))
    written = len(columns) <= 14 and len(rows) <= 24
    with settings(id):
        figure, axes = empty(right=0.97, height=height)
        box = axes.get_position()
        axes.set_position((0.13, box.y0, box.x1 - 0.13, box.height))
        axes.grid(False)
        for i, row in enumerate(values):
            for j, value in enumerate(row):
                if value is None:
                    continue
                share = min(1.0, max(0.0, value / most))
                axes.add_patch(Rectangle((j, i), 1, 1, color=MODEL, alpha=share, linewidth=0))
                if written:
                    axes.text(
                        j + 0.5,
                        i + 0.5,
                        _number(value, digits),
                        ha="center",
                        va="center",
                        color=PAPER if share > 0.55 else INK,
                        fontsize=0.85 * SIZE,
                    )
        axes.set_xlim(0, len(columns))
        axes.set_ylim(len(rows), 0)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        _labels(axes.xaxis, columns, 14)
        _labels(axes.yaxis, rows, 24)
        axes.tick_params(length=0)
        axes.set_title(title, loc="left", fontsize=SIZE, parse_math=False)
        return Plot(_unrimmed(svg(figure, id, title, reading)), reading)


def bars(
    id: str, title: str, named: Sequence[tuple[str, float, float, float]], x: str, reading: str
) -> Plot:
    """(name, value, low, high), one below the other, each with its interval."""
    with settings(id):
        figure, axes = empty(right=0.9, height=0.95 + 0.34 * max(2, len(named)))
        box = axes.get_position()
        axes.set_position((0.2, box.y0, box.x1 - 0.2, box.height))
        axes.grid(False)
        axes.grid(axis="x", color=FAINT, linewidth=0.6)
        for place, (_, value, low, high) in enumerate(named):
            axes.barh(place, value, height=0.56, color=MODEL, alpha=0.75)
            axes.plot([low, high], [place, place], color=INK, linewidth=1.0, zorder=4)
            axes.annotate(
                _number(value, ".3f"),
                (max(value, high, 0), place),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
            )
        axes.axvline(0, color=INK, linewidth=0.7)
        axes.set_yticks(range(len(named)), [name for name, *_ in named])
        axes.set_ylim(len(named) - 0.4, -0.6)
        axes.set_xlabel(x)
        axes.tick_params(axis="y", length=0)
        axes.set_title(title, loc="left", fontsize=SIZE, parse_math=False)
        return Plot(svg(figure, id, title, reading), reading)


def frontier(
    id: str, title: str, points: Sequence[tuple[str, float, float]], x: str, unit: str, reading: str
) -> Plot:
    """(name, cost, reach) on logarithmic axes; the line joins what nothing beats."""
    with settings(id):
        figure, axes = empty(right=0.93)
        axes.set_xscale("log")
        axes.set_yscale("log", base=2)
        axes.set_xlabel(x)
        axes.set_ylabel(f"effective context, {unit}s")
        best = unbeaten(points)
        axes.plot(
            [cost for _, cost, _ in best],
            [reach for *_, reach in best],
            color=FAINT,
            linewidth=1.2,
            drawstyle="steps-post",
        )
        for name, cost, reach in points:
            axes.plot([cost], [reach], "o", color=MODEL, markeredgecolor=PAPER, zorder=3)
            axes.annotate(
                name, (cost, reach), xytext=(6, 5), textcoords="offset points", parse_math=False
            )
        costs = [cost for _, cost, _ in points]
        axes.set_xlim(min(costs) / 2, max(costs) * 4)
        reaches = [reach for *_, reach in points]
        axes.set_ylim(min(reaches) / 2, max(reaches) * 2)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: tick(y)))
        return Plot(svg(figure, id, title, reading), reading)


def unbeaten(points: Sequence[tuple[str, float, float]]) -> list[tuple[str, float, float]]:
    """Those that no other point reaches further than at no higher cost; cheapest first."""
    found: list[tuple[str, float, float]] = []
    for point in sorted(points, key=lambda point: (point[1], -point[2])):
        if not found or point[2] > found[-1][2]:
            found.append(point)
    return found


def _number(value: float, digits: str) -> str:
    """Without a sign where nothing is left of a number."""
    text = f"{value:{digits}}"
    return text.replace("-", "−") if float(text.replace(",", "")) else text.removeprefix("-")


def _paired(lines: Sequence[Line]) -> list[tuple[Line, tuple[str, tuple[float, ...]]]]:
    return list(zip(lines, _styles(len(lines)), strict=True))


def _styles(count: int) -> list[tuple[str, tuple[float, ...]]]:
    return [STYLES[i % len(STYLES)] for i in range(count)]


def _doublings(axes: Axes, most: int) -> None:
    """Ticks at 1, 4, 16, … or at every power of 2 where they have room."""
    step = 1 if most.bit_length() <= 8 else 2
    places = [2**n for n in range(0, most.bit_length() + 1, step) if 2**n <= most * 1.1]
    axis = axes.xaxis
    axis.set_major_locator(FixedLocator(places))
    axis.set_minor_locator(FixedLocator([]))
    axis.set_major_formatter(FuncFormatter(lambda x, _: tick(x)))


def _labels(axis: Axis, names: Sequence[str], room: int) -> None:
    """Names in the middle of cells, as many as have room."""
    step = -(-len(names) // room)
    places = range(0, len(names), step)
    axis.set_ticks([i + 0.5 for i in places], [names[i] for i in places])


def _unrimmed(drawn: Markup) -> Markup:
    """Numbers on cells without the rim that sets text apart from lines."""
    # of Markup it would escape what it puts in
    return Markup(str(drawn).replace('class="plot"', 'class="plot cells"', 1))
