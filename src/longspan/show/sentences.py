"""Says in plain words what the numbers show, also where they show that memory does not help.

Every sentence is made from the numbers that stand beside it. Nothing is claimed that they do not
carry: no word about significance, since a band says how far the level is known, not the difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from longspan.show.numbers import apart, count, duration, known, size

YARDSTICK = "yardstick, untrained"
"""What an archiver is: it shows how hard the text is, and has learned from no other text."""

SMALL = 0.0005
"""A relative change below this is written as none: it would read 0.0%."""

LEVEL = 0.005
"""A relative rise below this since the lowest point of a training curve is called level."""


def best(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The row of the model that needs the fewest bits."""
    models = [r for r in rows if r.get("kind") != "archive" and known(r.get("bits_per_byte"))]
    return min(models, key=lambda row: row["bits_per_byte"], default=None)


def compared(new: float, old: float) -> str:
    """`6.1% less than`, `2.0% more than`, `as many bits as`."""
    relative = new / old - 1 if old else 0.0
    if abs(relative) < SMALL:
        return "as many as"
    return f"{abs(relative):.1%} {'less' if relative < 0 else 'more'} than"


def summary(results: Mapping[str, Any]) -> str:
    """The paragraph under the title: what was trained, what memory is worth, beside what."""
    run = results.get("run") or {}
    rows = [r for r in results.get("rows") or [] if known(r.get("bits_per_byte"))]
    parts = [_trained(results), _memory(rows, run.get("memory"))]
    chosen = _chosen(rows, run.get("memory"))
    for row in rows:
        if row.get("kind") == "sliding":
            parts.append(_sliding(row, chosen))
    archives = [row for row in rows if row.get("kind") == "archive"]
    if archives:
        texts = apart([row["bits_per_byte"] for row in archives])
        needs = [f"{text} ({row['name']})" for row, text in zip(archives, texts, strict=True)]
        verb = "needs" if len(archives) == 1 else "need"
        subject = "an archiver that has" if len(archives) == 1 else "archivers that have"
        parts.append(f"For scale: {subject} learned from no other text {verb} {_joined(needs)}.")
    return " ".join(part for part in parts if part)


def read_memory(
    points: Sequence[Mapping[str, Any]],
    trained: int | None = None,
    left_out: Sequence[tuple[str, float]] = (),
    band: str | None = None,
) -> str:
    """How to read the memory curve.

    Args:
        points: those of `results["curve"]`.
        trained: memory length in training, tokens.
        left_out: names and bits of reference lines that lie too far from the curve to be drawn.
        band: what the band is, for example "95% of 1000 resamplings of the files".
    """
    found = sorted((p for p in points if known(p["bits_per_byte"])), key=lambda p: p["memory"])
    if not found:
        return "no point was measured."
    by_length = {point["memory"]: point["bits_per_byte"] for point in found}
    last = found[-1]["memory"]
    length = trained if trained in by_length and trained else last
    lowest = min(by_length, key=lambda memory: by_length[memory])
    none, with_it = by_length.get(0), by_length[length]
    said = sorted({length, lowest, last} | ({0} & set(by_length)))
    shown = dict(zip(said, apart([by_length[memory] for memory in said]), strict=True))

    sentence = f"with {length:,} tokens of memory the model needs {shown[length]} bits for a byte"
    if length == 0:
        sentence = f"without memory the model needs {shown[0]} bits for a byte"
    elif none is not None:
        sentence += f", {compared(with_it, none)} without"
        if with_it > none * (1 - SMALL):
            sentence += ": here memory does not help"
    sentences = [sentence + "."]
    if trained and last > trained and length == trained:
        sentences.append(_beyond(by_length, shown, trained, last, lowest))
    elif lowest != length and len(by_length) > 1:
        where = f"{lowest:,} tokens" if lowest else "no memory at all"
        sentences.append(f"The fewest, {shown[lowest]}, it needs with {where}.")
    if any(known(p.get("low")) and known(p.get("high")) for p in found):
        sentences.append(f"The band is {band or 'the interval given with the results'}.")
    if left_out:
        listed = _joined([f"{name} ({value:.2f})" for name, value in left_out])
        sentences.append(f"Too far away to be drawn: {listed}.")
    sentences.append("Lower is better; the vertical axis does not start at zero.")
    return " ".join(sentences)


def read_training(
    training: Sequence[Mapping[str, Any]],
    validation: Sequence[Mapping[str, Any]] = (),
    settled: float | None = None,
    cut: float | None = None,
) -> str:
    """How to read the training curve.

    Args:
        training, validation: the points of the results.
        settled: where the smoothed training curve ends, bits.
        cut: the highest value measured, if it lies above the picture.
    """
    held = [point for point in validation if known(point["bits_per_byte"])]
    sentences = []
    if held:
        values = [point["bits_per_byte"] for point in held]
        at = min(range(len(values)), key=values.__getitem__)
        first, low, end = apart([values[0], values[at], values[-1]])
        if len(held) == 1:
            sentences.append(f"on held-out text the model needs {end} bits for a byte.")
        elif at == len(values) - 1:
            sentences.append(
                f"on held-out text the model needs {end} bits for a byte at the end, down from "
                f"{first} when first measured, and it was still improving."
            )
        else:
            lowest = (
                f"on held-out text the model needed the fewest bits for a byte, {low}, "
                f"at {_when(held[at])}"
            )
            if values[-1] / values[at] - 1 < LEVEL:
                sentences.append(f"{lowest}, and has been level since ({end} at the end).")
            else:
                sentences.append(
                    f"{lowest}, and ends at {end}: the later steps did not help on new text."
                )
    if settled is not None:
        if held:
            gap = held[-1]["bits_per_byte"] - settled
            side = "below" if gap >= 0 else "above"
            sentences.append(
                f"On the text it trains on it ends at {settled:.2f}, {abs(gap):.2f} {side} that."
            )
        else:
            sentences.append(
                f"on the text it trains on the model ends at {settled:.2f} bits for a byte; it was "
                "not measured on other text while training."
            )
    if training:
        sentences.append("The faint line is what was measured, the strong one its moving mean.")
    if cut is not None:
        sentences.append(f"The first steps, from {cut:.2f}, lie above the picture.")
    return " ".join(sentences) or "no point was measured."


def _trained(results: Mapping[str, Any]) -> str:
    run, data = results.get("run") or {}, results.get("data") or {}
    subject = "A model"
    if run.get("parameters"):
        subject += f" of {count(run['parameters'])} parameters"
    done = []
    if run.get("tokens_seen"):
        done.append(f"read {count(run['tokens_seen'])} tokens")
    if data.get("train_bytes"):
        text = f"{size(data['train_bytes'])} of text"
        done.append(f"from {text}" if done else f"was trained on {text}")
    if run.get("train_seconds"):
        done.append(f"in {duration(run['train_seconds'])}" if done else "")
    if not any(done):
        return ""
    where = f" ({run['hardware']})" if run.get("hardware") else ""
    return f"{subject} {' '.join(word for word in done if word)}{where}."


def _chosen(rows: Sequence[Mapping[str, Any]], trained: int | None) -> Mapping[str, Any] | None:
    """The row that speaks for memory: of the trained length, else the first."""
    kinds = ("memory", "state")
    of_memory = [r for r in rows if r.get("kind") in kinds and (r.get("memory") or _is_state(r))]
    exact = [row for row in of_memory if row.get("memory") == trained]
    return next(iter(exact or of_memory), None)


def _memory(rows: Sequence[Mapping[str, Any]], trained: int | None) -> str:
    row = _chosen(rows, trained)
    none = next((r for r in rows if r.get("kind") == "none"), None)
    if row is None and none is None:
        return ""
    if row is None or none is None:
        only = row or none
        assert only is not None
        how = _with(only) if row else "Without memory"
        return f"{how} it needs {only['bits_per_byte']:.2f} bits for each byte of text new to it."
    with_it, without = row["bits_per_byte"], none["bits_per_byte"]
    shown = apart([with_it, without])
    relative = with_it / without - 1 if without else 0.0
    start = (
        f"{_with(row)} it needs {shown[0]} bits for each byte of text new to it, and {shown[1]} "
        "without"
    )
    if relative <= -SMALL:
        return f"{start}: memory saves {-relative:.1%}."
    if relative < SMALL:
        return f"{start}: here memory makes no difference."
    return f"{start}: here memory does not help, it costs {relative:.1%} more."


def _is_state(row: Mapping[str, Any]) -> bool:
    return row.get("kind") == "state"


def _with(row: Mapping[str, Any]) -> str:
    if _is_state(row):
        return "With what it carries from segment to segment"
    return f"With {row['memory']:,} tokens of memory"


def _sliding(row: Mapping[str, Any], chosen: Mapping[str, Any] | None) -> str:
    length = f" of {row['memory']:,} tokens" if row.get("memory") else ""
    values = [row["bits_per_byte"]] + ([chosen["bits_per_byte"]] if chosen else [])
    sentence = f"A sliding window{length} instead of memory needs {apart(values)[0]} bits"
    ours, its = (chosen or {}).get("tokens_per_second"), row.get("tokens_per_second")
    if ours and its and known(ours) and known(its):
        if ours / its >= 1.1:
            sentence += f" and takes {_times(ours / its)} times as long"
        elif its / ours >= 1.1:
            sentence += f" and is {_times(its / ours)} times as fast"
    return sentence + "."


def _beyond(
    by_length: Mapping[int, float], shown: Mapping[int, str], trained: int, last: int, lowest: int
) -> str:
    if lowest > trained:
        return (
            f"Longer memory than it was trained with still helps: {shown[lowest]} bits with "
            f"{lowest:,} tokens."
        )
    relative = by_length[last] / by_length[trained] - 1
    if relative >= SMALL:
        return (
            f"Longer memory than it was trained with does not help: {shown[last]} bits with "
            f"{last:,} tokens."
        )
    return "Longer memory than it was trained with makes no difference."


def _when(point: Mapping[str, Any]) -> str:
    if point.get("step") is not None:
        return f"step {point['step']:,}"
    return f"{count(point['tokens'])} tokens"


def _times(ratio: float) -> str:
    return f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.1f}"


def _joined(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
