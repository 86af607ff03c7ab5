"""What drawings of a page share: its colours, its font, axes, and SVG that stands inside it.

matplotlib draws with one placeholder colour a role, and each becomes a CSS custom property of the
page afterwards. One drawing therefore serves light mode, dark mode and print. Text stays text, in
the reader's own sans-serif font. Equal numbers give equal bytes: no date, no random ids.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from textwrap import wrap
from typing import Any

from markupsafe import Markup
from matplotlib import rc_context, rcParamsDefault
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

INK, FAINT, MODEL, SECOND, THIRD = "#010203", "#010204", "#010205", "#010206", "#010207"
"""Placeholder colours, one a role; no other colour of a drawing looks like these."""

PAPER = "#010208"
"""The page's ground, for the rim of a mark on a line."""

ROLES = {
    INK: "var(--ink, #1d1c1a)",
    FAINT: "var(--rule, #d9d5cc)",
    MODEL: "var(--model, #14589c)",
    SECOND: "var(--second, #a4480b)",
    THIRD: "var(--third, #6b5d7d)",
    PAPER: "var(--paper, #fdfcfa)",
}

WIDTH, HEIGHT = 6.6, 3.7
"""Inches of 72 units; the page stretches the drawing to its column."""

SIZE = 8.5
"""Font size in the same units."""


@dataclass(frozen=True)
class Plot:
    """A drawing and what it shows in words.

    Attributes:
        svg: an `<svg>` element to stand in a page.
        reading: how to read it, from the actual numbers.
    """

    svg: Markup
    reading: str


def settings(name: str) -> Any:
    """matplotlib's own defaults (whatever the user's matplotlibrc says) and what SVG needs.

    Ids come from `name`, so that those of two drawings on one page differ and never change.
    """
    return rc_context(
        {
            **{k: v for k, v in rcParamsDefault.items() if not k.startswith(("backend", "webagg"))},
            "svg.fonttype": "none",
            "svg.hashsalt": f"longspan {name}",
            "font.size": SIZE,
            "text.color": INK,
            "axes.edgecolor": INK,
            "axes.labelcolor": INK,
            "axes.linewidth": 0.6,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.axisbelow": True,
            "xtick.color": INK,
            "ytick.color": INK,
            "xtick.major.width": 0.6,
            "ytick.major.width": 0.6,
            "lines.linewidth": 1.6,
        }
    )


def empty(right: float, height: float = HEIGHT) -> tuple[Figure, Axes]:
    """A figure with axes that end at `right` of its width; inches of height."""
    figure = Figure(figsize=(WIDTH, height))
    figure.patch.set_visible(False)
    axes = figure.add_axes((0.1, 0.5 / height, right - 0.1, 1 - 0.78 / height))
    axes.patch.set_visible(False)
    axes.grid(axis="y", color=FAINT, linewidth=0.6)
    axes.yaxis.set_major_locator(MaxNLocator(6))
    return figure, axes


def limit(axes: Axes, values: Sequence[float], ceiling: float | None = None) -> None:
    """Makes the vertical axis hold all values, or those up to a ceiling."""
    if not values:
        return
    low, high = min(values), max(values) if ceiling is None else ceiling
    rim = 0.07 * (high - low) or 0.02 * abs(high) or 1.0
    axes.set_ylim(low - rim, high + rim)


def name_lines(axes: Axes, lines: Sequence[tuple[float, str, str]]) -> None:
    """Writes (value, name, colour) beside the end of its line, moved apart where names meet."""
    low, high = axes.get_ylim()
    step = 1.25 * SIZE / (72 * HEIGHT * axes.get_position().height)  # one line of text
    ordered = sorted(lines)
    texts = [wrap(name, 19) for _, name, _ in ordered]
    middles: list[float] = []
    for (bits, _, _), text in zip(ordered, texts, strict=True):
        wanted, half = (bits - low) / (high - low), step * len(text) / 2
        below = middles[-1] + step * len(texts[len(middles) - 1]) / 2 + 0.3 * step if middles else 0
        middles.append(max(wanted, below + half))
    over = middles[-1] + step * len(texts[-1]) / 2 - 1.05 if middles else 0
    for (_, _, colour), text, middle in zip(ordered, texts, middles, strict=True):
        axes.annotate(
            "\n".join(text),
            (1.0, middle - max(over, 0)),
            xycoords="axes fraction",
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            linespacing=1.2,
            parse_math=False,  # a dollar in a name is a dollar
        )


def tick(value: float) -> str:
    """`12,000`, `1.5 million`."""
    return f"{value / 1e6:g} million" if abs(value) >= 1e6 else f"{value:,.0f}"


def svg(figure: Figure, name: str, title: str, reading: str) -> Markup:
    """The drawing as an element of the page: its colours, its font, its ids, no outside names."""
    file = StringIO()
    figure.savefig(
        file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
    )
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.S)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.S)
    text = re.sub(r"<style.*?</style>\s*", "", text, flags=re.S)  # it would style the whole page
    text = re.sub(r"<g id=\"[^\"]*\"", "<g", text)
    text = text.replace("xlink:href", "href")
    text = re.sub(r"(style=\"[^\"]*?)font-family: [^;\"]*; ?", r"\1", text)
    for colour, role in ROLES.items():
        text = text.replace(colour, role)
    box = "0 0 {:g} {:g}".format(*(72 * figure.get_size_inches()))
    head = Markup('<svg class="plot" id="{}" viewBox="{}" role="img" aria-label="{}">').format(
        f"plot-{name}", box, f"{title}: {reading}"
    )
    return head + Markup(re.sub(r"^<svg[^>]*>", "", text))
