"""One sentence of reading a figure of reach, made from the numbers that stand in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from longspan.show.numbers import apart, count, size

Model = Mapping[str, Any]

FIRST = 4
"""Position from which on the loss is drawn."""

BAND = "The bands are 95 % intervals, bootstrapped over pieces of text."


def length(tokens: float, unit: str, per_token: float) -> str:
    """`512 tokens (2,201 bytes)`, `512 bytes`."""
    if unit == "byte":
        return f"{tokens:,.0f} byte" + ("" if tokens == 1 else "s")
    plural = "" if tokens == 1 else "s"
    return f"{tokens:,.0f} {unit}{plural} ({tokens * per_token:,.0f} bytes)"


def summary(results: Mapping[str, Any]) -> str:
    """The paragraph under the title: how far each model looks, and what its memory is worth."""
    per, longest = results["data"]["bytes_per_token"], results["plan"]["longest"]
    parts = []
    for model in results["models"]:
        found = model["effective"]
        much = length(found["tokens"], model["unit"], per)
        if found["open"]:
            said = f"still gains at {length(longest, model['unit'], per)}, the longest measured"
        else:
            said = f"uses {much} of context: beyond that more gains less than 1 % of perplexity"
        parts.append(f"{model['name']} {said}.")
        emptied = _change(model, "emptied")
        if emptied is not None:
            lost = emptied["bits_per_byte"]
            more = "more" if lost > 0 else "less"
            parts.append(f"Without what it carries a byte costs it {abs(lost):.3f} bits {more}.")
        elif model["memory"] != 0:
            parts.append(
                "What it carries is never full in texts so short, so its worth was not measured."
            )
        else:
            parts.append("It carries no memory from one window to the next.")
    return " ".join(parts)


def contexts(models: Sequence[Model], step: int) -> str:
    """How to read the loss at every context."""
    parts = []
    for model in models:
        points = model["contexts"]
        first, last = points[0], points[-1]
        ends = apart([first["bits_per_byte"], last["bits_per_byte"]])
        parts.append(
            f"{model['name']} needs {ends[0]} bits a byte when it is given {first['context']:,} "
            f"{_units(model, first['context'])} and {ends[1]} with {last['context']:,}."
        )
    parts.append("A dot marks the effective context, beyond which perplexity falls less than 1 %.")
    return " ".join([*parts, BAND])


def memories(model: Model) -> str:
    """How to read the loss against the length of the memory."""
    points = model["memories"]
    none, trained = points[0], next(p for p in points if p["at"] == model["memory"])
    best = min(points, key=lambda point: point["bits_per_byte"])
    shown = apart([p["bits_per_byte"] for p in (none, trained, best)])
    said = (
        f"without memory a byte costs {shown[0]} bits, with the {trained['at']:,} "
        f"{model['unit']}s of training {shown[1]}"
    )
    if best is not trained:
        said += f", and the fewest, {shown[2]}, with {best['at']:,}"
    return f"{said}. {BAND}"


def positions(models: Sequence[Model]) -> str:
    """How to read the loss against position."""
    parts = []
    for model in models:
        points = settled(model)
        first, last = points[0], points[-1]
        shown = apart([first["bits_per_byte"], last["bits_per_byte"]])
        parts.append(
            f"{model['name']} needs {shown[0]} bits a byte {first['at']:,} {model['unit']}s after "
            f"it began to read and {shown[1]} after {last['at']:,}."
        )
    return " ".join([*parts, f"The first {FIRST - 1} are left out.", BAND])


def settled(model: Model) -> Sequence[Mapping[str, Any]]:
    """Points of loss by position without the first tokens, which squeeze all others."""
    points = model["positions"]
    return [point for point in points if point["at"] >= FIRST] or points


def mass(model: Model) -> str:
    """How to read attention by distance."""
    near = [sum(_mean(layer)[:6]) for layer in model["looking"]["mass"]]
    far = min(range(len(near)), key=near.__getitem__)
    layers = model["looking"]["layers"]
    return (
        f"each row is a layer and sums to 1, the mean of its heads; {1 - near[far]:.0%} of what "
        f"layer {layers[far]} looks at lies 32 {model['unit']}s back or more, the most of all."
    )


def heads(model: Model) -> str:
    """How to read the mean distance of each head."""
    table = model["looking"]["distance"]
    best = max(((d, i, j) for i, row in enumerate(table) for j, d in enumerate(row)))
    layer = model["looking"]["layers"][best[1]]
    return (
        f"{model['unit']}s back at which a head looks on average; head {best[2]} of layer {layer} "
        f"looks furthest, {best[0]:,.0f} back."
    )


def remembered(model: Model) -> str:
    """How to read attention on memory."""
    table = model["looking"]["memory"]
    each = [_plain(row) for row in table]
    best = max(range(len(each)), key=each.__getitem__)
    layer = model["looking"]["layers"][best]
    return (
        f"the share of a head's attention that falls on what the memory recalled, the rest on the "
        f"segment itself; layer {layer} gives its memory the most, {each[best]:.0%}."
    )


def pull(models: Sequence[Model]) -> str:
    """How to read gradient influence."""
    said = "; ".join(
        f"half of what moves {m['name']}'s loss lies within {m['influence']['half']:,} "
        f"{_units(m, m['influence']['half'])}"
        for m in models
        if m["influence"]
    )
    return (
        f"{said}. Each point is the share of all gradient norm that inputs from there to twice as "
        "far have; a long bin holds more inputs."
    )


def worth(model: Model) -> str:
    """How to read what a memory is worth."""
    whole = [one for one in model["worth"] if one["layer"] is None]
    most = max(whole, key=lambda one: one["bits_per_byte"])
    least = min(whole, key=lambda one: one["bits_per_byte"])
    if most["bits_per_byte"] == least["bits_per_byte"] == 0:
        return "no change of what is carried changes a bit: there is no memory to change."
    return (
        f"bits a byte that are lost when the memory of every layer is changed before each segment; "
        f"{_called(most['change'])} loses most, {most['bits_per_byte']:.3f}, and "
        f"{_called(least['change'])} least, {_signed(least['bits_per_byte'])}. The lines are 95 % "
        "intervals over pieces of text."
    )


def layers(model: Model) -> str:
    """How to read what the memory of each layer is worth."""
    single = [one for one in model["worth"] if one["layer"] is not None]
    most = max(single, key=lambda one: one["bits_per_byte"])
    return (
        f"bits a byte lost when one layer's memory alone is changed; the most, "
        f"{most['bits_per_byte']:.3f}, is lost in layer {most['layer']}, {_called(most['change'])}."
    )


def recall(cells: Sequence[Mapping[str, Any]], what: str, unit: str) -> str:
    """How to read a recall probe."""
    good = [cell for cell in cells if cell["recalled"] >= 0.5]
    said = f"1: {what} is certain after it was told once; 0: no better than untold. "
    if not good:
        best = max(cells, key=lambda cell: cell["recalled"])
        return said + (
            f"Nowhere is half of it recalled; the most is {best['recalled']:.2f}, "
            f"{best['distance']:,} {unit}s after it was told."
        )
    far = max(good, key=lambda cell: cell["distance"])
    return said + f"Half of it or more is recalled up to {far['distance']:,} {unit}s after."


def recurring(model: Model) -> str:
    """How to read the loss of tokens that come again."""
    new = [one for one in model["recurring"] if one["since"] == 0]
    again = [one for one in model["recurring"] if one["since"]]
    if not new or not again:
        return "bits a token, by how long ago the same token last came."
    means = [
        sum(o["bits"] * o["tokens"] for o in some) / sum(o["tokens"] for o in some)
        for some in (new, again)
    ]
    shown = apart(means)
    return (
        f"a token that is new in what was read costs {shown[0]} bits, one that came before "
        f"{shown[1]}; rows keep rare and frequent tokens apart, since frequent ones are easy."
    )


def frontier(models: Sequence[Model], what: str) -> str:
    """How to read reach against what it costs."""
    found = max(models, key=lambda m: m["effective"]["tokens"])
    price = found["price"]
    cost = size(price["state"]) if what == "state" else f"{count(price['flops'])} FLOPs"
    unit = "of state a stream" if what == "state" else "a token"
    return (
        f"up and to the left is better; {found['name']} looks furthest, "
        f"{found['effective']['tokens']:,} {found['unit']}s, for {cost} {unit}."
    )


def _called(change: str) -> str:
    return f"cut to its {change}" if change.startswith("newest") else change


def _change(model: Model, name: str) -> Mapping[str, Any] | None:
    found = (o for o in model["worth"] if o["change"] == name and o["layer"] is None)
    return next(found, None)


def _signed(value: float) -> str:
    return f"{value:.3f}".replace("-", "−")


def _units(model: Model, number: int) -> str:
    return model["unit"] + ("" if number == 1 else "s")


def _mean(rows: Sequence[Sequence[float]]) -> list[float]:
    return [_plain(column) for column in zip(*rows, strict=True)]


def _plain(values: Sequence[float]) -> float:
    return sum(values) / len(values)
