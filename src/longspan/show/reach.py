"""Writes what was measured of reach as one page that opens offline, and as tables for the terminal.

`results` is what `longspan.measure.reach.summary.summarise` gives, plain data as JSON holds it:

    title, longspan, created, hardware    str
    data      path (str), documents, tokens (int), bytes_per_token (float)
    plan      longest, targets, scored, pieces, samples, step, seed (int)
    models    a list of
        name, unit (str), vocabulary, segment, layers (int), memory (tokens, 0 for none, null where
        no one number says it)
        effective    {tokens, bytes, above, open} (`measure/reach/effective.py`)
        recl         a list of {r, tokens, bytes, furthest, gains, open} (`recl.py`)
        contexts     a list of {context, bits_per_byte, low, high}
        memories, positions    lists of {at, bits_per_byte, low, high} (`reading.py`)
        looking      null, or {layers, mass, memory, distance} (`looking.py`)
        influence    null, or {shares, half} (`influence.py`)
        worth        a list of {change, layer, bits_per_byte, low, high} (`worth.py`)
        copying, associating, needle    lists of {length, depth, distance, recalled, told, untold}
        recurring    a list of {rank, since, tokens, bits} (`recurring.py`)
        price        null, or {parameters, flops, state, after}
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from rich import box
from rich.table import Table
from rich.text import Text

from longspan.show import reach_sentences as said
from longspan.show.drawing import Plot
from longspan.show.numbers import NOTHING, bits, count, size
from longspan.show.plots import memory_curve
from longspan.show.reach_plots import Line, bars, curves, frontier, heat
from longspan.show.report import template, write_page
from longspan.show.text import style

Results = Mapping[str, Any]

HEADINGS = ("effective\ncontext", "RECL\nr = 0.1", "RECL\nr = 0.5", "RECL\nr = 1.0")


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        id: its anchor.
        title: its heading.
        lead: what is measured, in a sentence.
        plots: its figures.
    """

    id: str
    title: str
    lead: str
    plots: Sequence[Plot]


def write_reach(results: Results, path: str | os.PathLike[str]) -> None:
    """Writes the page to `path`: whole or not at all; equal results give equal bytes.

    Raises:
        LongspanError: it cannot be written there.
    """
    write_page(render_reach(results), path)


def render_reach(results: Results) -> str:
    """The page as HTML."""
    sections = [section for section in _sections(results) if section.plots]
    return template("reach.html.j2").render(
        title=results["title"],
        version=results.get("longspan"),
        created=results.get("created"),
        summary=said.summary(results),
        shades=style(),
        headings=[heading.split("\n") for heading in HEADINGS],
        rows=_rows(results),
        sections=sections,
        facts=_facts(results),
    )


def reach_table(results: Results) -> Table:
    """A line a model: effective context, RECL at each r, bits a byte, state and FLOPs a token."""
    table = Table(
        box=box.SIMPLE_HEAD,
        title=Text(str(results["title"])),
        caption=Text(_unit(results["models"][0]["unit"])),
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("model", overflow="fold", min_width=10)
    for heading in (*HEADINGS, "bits\nper byte", "state a\nstream", "MFLOPs\na token"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, *cells in _rows(results):
        table.add_row(Text(name), *(Text(cell) for cell in cells))
    return table


def _rows(results: Results) -> list[list[str]]:
    rows = []
    for model in results["models"]:
        found, price = model["effective"], model["price"]
        least = "≥ " if found["open"] else ""
        rows.append(
            [
                model["name"],
                f"{least}{found['tokens']:,}",
                *(_recl(model, place) for place in range(len(HEADINGS) - 1)),
                bits(model["contexts"][-1]["bits_per_byte"]),
                NOTHING if price is None else size(price["state"]),
                NOTHING if price is None else f"{price['flops'] / 1e6:,.3g}",
            ]
        )
    return rows


def _recl(model: Mapping[str, Any], place: int) -> str:
    """At one r; nothing of a model that was measured alone."""
    if not model["recl"]:
        return NOTHING
    found = model["recl"][place]
    return ("≥ " if found["open"] else "") + f"{found['tokens']:,}"


def _unit(unit: str) -> str:
    return f"lengths in {unit}s; RECL by 1901.02860, appendix C, over these models as a group"


def _facts(results: Results) -> list[tuple[str, str]]:
    data, plan = results["data"], results["plan"]
    unit = results["models"][0]["unit"]
    facts = [
        ("text", data["path"]),
        ("documents", f"{data['documents']:,}"),
        (f"{unit}s", f"{data['tokens']:,}, {data['bytes_per_token']:.2f} bytes each"),
        ("longest distance", said.length(plan["longest"], unit, data["bytes_per_token"])),
        ("scored at every context", f"{plan['scored']:,} {unit}s"),
        ("step of RECL", f"{plan['step']:,} {unit}s"),
    ]
    for model in results["models"]:
        how = f"{model['layers']} layers, reads {model['segment']:,} {unit}s at a time, "
        memory = model["memory"]
        how += "carries nothing" if memory == 0 else f"memory {memory or 'of no one length'}"
        if price := model["price"]:
            how += f"; {count(price['parameters'])} parameters; {size(price['state'])} of state "
            how += f"after {price['after']:,} {unit}s, {count(price['flops'])} FLOPs a token"
        facts.append((model["name"], how))
        facts.append(
            (
                f"{model['name']}, pieces",
                f"{model['read']['pieces']} of {model['read']['tokens']:,} {unit}s",
            )
        )
    return [*facts, ("hardware", results["hardware"])]


def _sections(results: Results) -> list[Section]:
    models, plan = results["models"], results["plan"]
    unit = models[0]["unit"]
    sections = [
        Section(
            "context",
            "How much context it uses",
            f"Bits a byte when a model is told the last so many {unit}s and nothing else.",
            [_contexts(models, plan["step"], unit)],
        )
    ]
    memories = [_memories(index, model) for index, model in enumerate(models) if model["memories"]]
    sections += [
        Section(
            "memory",
            "What more memory brings",
            "The same weights with other lengths of memory, carried from segment to segment.",
            memories,
        ),
        Section(
            "position",
            "How it warms up",
            "Bits a byte by how much was read before, from an empty state on.",
            [_positions(models, unit)],
        ),
    ]
    several = len(models) > 1
    looks, values, probes = [], [], []
    for index, model in enumerate(models):
        name = f"{model['name']}: " if several else ""
        looks += _looking(index, name, model, unit)
        values += _worth(index, name, model)
        probes += _probes(index, name, model, unit)
    if any(model["influence"] for model in models):
        looks.append(_influence(models, unit))
    sections += [
        Section(
            "looking",
            "Where it looks",
            "Attention by distance, layer and head; and how much the loss would change with an "
            "input so far back, which every model has.",
            looks,
        ),
        Section(
            "worth",
            "What its memory is worth",
            "The memory is changed just before it is read, and what that loses is counted.",
            values,
        ),
        Section(
            "recall",
            "What it can recall",
            "Probes made of this text's own tokens. The share recalled is 1 − (bits of the answer "
            "after it was told) / (bits of it where something else was told).",
            probes,
        ),
    ]
    if several and all(model["price"] for model in models):
        sections.append(
            Section(
                "price",
                "What reach costs",
                f"Effective context against what one stream carries after {plan['longest']:,} "
                f"{unit}s, and against the FLOPs of a {unit}.",
                _prices(models, unit),
            )
        )
    return sections


def _contexts(models: Sequence[Any], step: int, unit: str) -> Plot:
    lines = [
        _line(model["name"], model["contexts"], "context", model["effective"]["tokens"])
        for model in models
    ]
    x = f"context, {unit}s (logarithmic)"
    return curves(
        "context",
        "Bits per byte by context",
        lines,
        x,
        "bits per byte",
        said.contexts(models, step),
    )


def _memories(index: int, model: Any) -> Plot:
    points = [{**point, "memory": point["at"]} for point in model["memories"]]
    drawn = memory_curve(points, model["memory"])
    reading = f"{model['name']}: {said.memories(model)}"
    # of Markup it would escape what it puts in
    svg = str(drawn.svg).replace('id="plot-memory"', f'id="plot-memory-{index}"', 1)
    return Plot(Markup(svg), reading)


def _positions(models: Sequence[Any], unit: str) -> Plot:
    lines = [_line(model["name"], said.settled(model), "at") for model in models]
    x = f"{unit}s read before, from here to twice as many (logarithmic)"
    return curves(
        "position", "Bits per byte by position", lines, x, "bits per byte", said.positions(models)
    )


def _looking(index: int, name: str, model: Any, unit: str) -> list[Plot]:
    seen = model["looking"]
    if seen is None:
        return []
    layers = [str(layer) for layer in seen["layers"]]
    mean = [
        [sum(column) / len(column) for column in zip(*layer, strict=True)] for layer in seen["mass"]
    ]
    used = max(j for row in mean for j, share in enumerate(row) if share > 0) + 1
    distances = ["0", *(_span(2**j) for j in range(used - 1))]
    heads = [str(head) for head in range(len(seen["distance"][0]))]
    plots = [
        heat(
            f"mass-{index}",
            f"{name}attention by distance",
            [row[:used] for row in mean],
            layers,
            distances,
            f"distance, {unit}s",
            "layer",
            name + said.mass(model),
        ),
        heat(
            f"heads-{index}",
            f"{name}mean distance of attention",
            seen["distance"],
            layers,
            heads,
            f"head (cells: {unit}s)",
            "layer",
            name + said.heads(model),
            digits=",.0f",
        ),
    ]
    if model["memory"] != 0:
        plots.append(
            heat(
                f"share-{index}",
                f"{name}attention on memory",
                seen["memory"],
                layers,
                heads,
                "head (cells: share)",
                "layer",
                name + said.remembered(model),
                top=1.0,
            )
        )
    return plots


def _influence(models: Sequence[Any], unit: str) -> Plot:
    lines = []
    for model in models:
        if model["influence"]:
            shares = model["influence"]["shares"]
            lines.append(Line(model["name"], [2**j for j in range(len(shares))], shares))
    x = f"distance, from here to twice as far, {unit}s (logarithmic)"
    return curves(
        "influence",
        "Gradient influence by distance",
        lines,
        x,
        "share of gradient norm",
        said.pull(models),
    )


def _worth(index: int, name: str, model: Any) -> list[Plot]:
    if not model["worth"]:
        return []
    whole = [one for one in model["worth"] if one["layer"] is None]
    named = [(o["change"], o["bits_per_byte"], o["low"], o["high"]) for o in whole]
    table = {(o["change"], o["layer"]): o["bits_per_byte"] for o in model["worth"]}
    changes = [one["change"] for one in whole]
    layers = sorted({layer for _, layer in table if layer is not None})
    return [
        bars(
            f"worth-{index}",
            f"{name}bits a byte lost",
            named,
            "bits per byte lost",
            name + said.worth(model),
        ),
        heat(
            f"layers-{index}",
            f"{name}bits a byte lost, by layer",
            [[table.get((change, layer)) for change in changes] for layer in layers],
            [str(layer) for layer in layers],
            changes,
            "change (cells: bits per byte)",
            "layer",
            name + said.layers(model),
            digits=".3f",
        ),
    ]


def _probes(index: int, name: str, model: Any, unit: str) -> list[Plot]:
    plots = []
    if cells := model["copying"]:
        columns = [f"{cell['distance']:,}" for cell in cells]
        plots.append(
            heat(
                f"copy-{index}",
                f"{name}copy",
                [[cell["recalled"] for cell in cells]],
                ["copied"],
                columns,
                f"length that is copied, {unit}s (cells: share recalled)",
                "",
                f"{name}{said.recall(cells, 'a copied token', unit)}",
                top=1.0,
            )
        )
    for key, title, what in (
        ("associating", "associative recall", "the value of a key"),
        ("needle", "a needle in this text", "the answer"),
    ):
        if cells := model[key]:
            lengths = sorted({cell["length"] for cell in cells})
            depths = sorted({cell["depth"] for cell in cells})
            table = {(cell["depth"], cell["length"]): cell["recalled"] for cell in cells}
            plots.append(
                heat(
                    f"{key}-{index}",
                    f"{name}{title}",
                    [[table.get((depth, n)) for n in lengths] for depth in depths],
                    [f"{depth:.0%}" for depth in depths],
                    [f"{n:,}" for n in lengths],
                    f"{unit}s before the answer (cells: share recalled)",
                    "depth, 0 % first",
                    f"{name}{said.recall(cells, what, unit)}",
                    top=1.0,
                )
            )
    if rows := model["recurring"]:
        since = sorted({row["since"] for row in rows})
        table = {(row["rank"], row["since"]): row["bits"] for row in rows}
        plots.append(
            heat(
                f"recurring-{index}",
                f"{name}bits of a token by when it last came",
                [[table.get((rank, s)) for s in since] for rank in range(4)],
                ["rarest", "rare", "common", "commonest"],
                ["new", *(_span(s) for s in since if s)]
                if since[0] == 0
                else list(map(_span, since)),
                f"{unit}s since it last came (cells: bits)",
                "",
                name + said.recurring(model),
                digits=".1f",
            )
        )
    return plots


def _prices(models: Sequence[Any], unit: str) -> list[Plot]:
    named = [(m["name"], m["effective"]["tokens"], m["price"]) for m in models]
    return [
        frontier(
            "state",
            "Reach against state",
            [(n, p["state"], t) for n, t, p in named],
            "bytes of state a stream (logarithmic)",
            unit,
            said.frontier(models, "state"),
        ),
        frontier(
            "flops",
            "Reach against work",
            [(n, p["flops"], t) for n, t, p in named],
            "FLOPs a token, forward (logarithmic)",
            unit,
            said.frontier(models, "flops"),
        ),
    ]


def _line(name: str, points: Sequence[Any], key: str, mark: int | None = None) -> Line:
    columns = ([p[k] for p in points] for k in (key, "bits_per_byte", "low", "high"))
    xs, ys, lows, highs = columns
    return Line(name, xs, ys, lows, highs, mark)


def _span(first: int) -> str:
    """`1`, `4–7`, `1,024–`."""
    if first == 1:
        return "1"
    return f"{first}–{2 * first - 1}" if first < 32 else f"{first:,}–"
