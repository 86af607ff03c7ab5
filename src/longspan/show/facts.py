"""What a run was, as pairs of a name and a value, for the page and the terminal alike.

A fact that the results do not hold is left out rather than guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from longspan.show.numbers import count, duration, rate, size


def facts(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The facts of `results` (see `longspan.show.report`), in reading order."""
    run = results.get("run") or {}
    data = results.get("data") or {}
    found: list[tuple[str, str]] = []

    def add(label: str, value: Any, write: Callable[[Any], str] = str) -> None:
        if value is not None and value != "":
            found.append((label, write(value)))

    add("parameters", run.get("parameters"), count)
    add("steps", run.get("steps"), count)
    add("tokens seen in training", run.get("tokens_seen"), count)
    add("training speed", run.get("tokens_per_second"), lambda v: f"{rate(v)} tokens/s")
    add("training time", run.get("train_seconds"), duration)
    add("time in all", run.get("total_seconds"), duration)
    add("peak memory", run.get("peak_memory_bytes"), size)
    add("segment", run.get("segment"), lambda v: f"{v:,} tokens")
    add("memory in training", run.get("memory"), lambda v: f"{v:,} tokens")
    add("number format", run.get("dtype"))
    add("data", data.get("path"))
    add("training text", _text(data, "train"))
    add("held-out text", _text(data, "test"))
    add("of which scored", data.get("scored_bytes"), size)
    add("hardware", run.get("hardware"))
    add("threads", run.get("threads"))
    versions = run.get("versions") or {}
    add("versions", ", ".join(f"{name} {version}" for name, version in sorted(versions.items())))
    return found


def _text(data: Mapping[str, Any], part: str) -> str:
    """`10.2 MB in 312 files`, or as much of it as is known."""
    amount, files = data.get(f"{part}_bytes"), data.get(f"{part}_files")
    words = [] if amount is None else [size(amount)]
    if files is not None:
        words.append(f"in {files:,} file" + ("" if files == 1 else "s"))
    return " ".join(words)
