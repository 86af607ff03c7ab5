"""Writes a run's results as one page that opens offline and loads nothing.

`results` is plain data, as JSON holds it:

    title       "longspan demo"
    longspan    "0.1.0", the version that measured
    created     "2026-01-31 12:00 UTC"
    run         parameters, steps, tokens_seen, segment, memory, threads, peak_memory_bytes (int),
                tokens_per_second, train_seconds, total_seconds (float), dtype, hardware (str),
                versions ({"torch": "2.13.0"}), recipe (YAML text)
    data        path (str), train_bytes, train_files, test_bytes, test_files, scored_bytes (int)
    rows        a list, in the order shown, of
                    name            "memory 256, as trained"
                    kind            "memory", "none", "state" (carried, but of no length),
                                    "sliding" or "archive"
                    memory          tokens, or null
                    bits_per_byte   float, or null where it could not be measured
                    against_none    relative change, -0.061 for 6.1% fewer bits, or null
                    tokens_per_second, note, command (to reproduce the row); each may be null
    curve       a list of {"memory": 0, "bits_per_byte": 2.1, "low": 2.05, "high": 2.15}
    band        what `low` and `high` are, in words that follow "The band is"
    training    a list of {"step": 10, "tokens": 40960, "bits_per_byte": 3.1}
    validation  the same
    sample      prompt, seed, settings ("top-p 0.9") and tokens, a list of
                    {"bytes": "64" (hexadecimal), "bits": 1.2, "prompt": true}

Every key may be missing, and the part of the page that needs it is then left out. Inside a list,
`name` and `kind` of a row, `memory` and `bits_per_byte` of a point and `bytes` of a token are
needed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from longspan.errors import DataError, LongspanError, did_you_mean
from longspan.show.drawing import Plot
from longspan.show.facts import facts
from longspan.show.numbers import NOTHING, bits, change, known, rate
from longspan.show.plots import Reference, memory_curve, training_curve
from longspan.show.sentences import YARDSTICK, best, summary
from longspan.show.text import legend, shaded, style

KINDS = ("archive", "memory", "none", "sliding", "state")


def write_report(results: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Writes the page to `path`: whole or not at all; equal results give equal bytes.

    Raises:
        DataError: `results` lacks what a part of it needs; every problem is named.
        LongspanError: the page cannot be written there.
    """
    write_page(render(results), path)


def write_page(text: str, path: str | os.PathLike[str]) -> None:
    """Writes a page to `path`, whole or not at all.

    Raises:
        LongspanError: it cannot be written there.
    """
    page = text.encode("utf-8", "backslashreplace")
    target = Path(path)
    draft = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(page)
        draft.replace(target)
    except OSError as error:
        raise LongspanError(f"cannot write the report {target}: {error.strerror}") from error
    finally:
        draft.unlink(missing_ok=True)


def render(results: Mapping[str, Any]) -> str:
    """The page as HTML.

    Raises:
        DataError: as `write_report`.
    """
    _check(results)
    sample = results.get("sample")
    return template("report.html.j2").render(
        title=results.get("title") or "longspan report",
        version=results.get("longspan"),
        created=results.get("created"),
        summary=summary(results),
        rows=_rows(results.get("rows") or []),
        curve=sorted(results.get("curve") or [], key=lambda point: point["memory"]),
        memory_plot=_memory_plot(results),
        training_plot=_training_plot(results),
        sample=sample,
        sample_text=shaded(sample.get("tokens") or []) if sample else "",
        has_prompt=any(token.get("prompt") for token in (sample or {}).get("tokens") or []),
        drawn=_drawn(sample or {}),
        legend=legend(),
        shades=style(),
        facts=facts(results),
        recipe=(results.get("run") or {}).get("recipe"),
        nothing=NOTHING,
        bits=bits,
        change=change,
        rate=rate,
    )


def template(name: str) -> Template:
    """A page's template; what it does not know is an error, and what it is given is escaped."""
    environment = Environment(
        loader=PackageLoader("longspan.show"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def _rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    winner = best(rows)
    return [
        {
            "memory": None,
            "bits_per_byte": None,
            "against_none": None,
            "tokens_per_second": None,
            "note": None,
            "command": None,
            **{key: value for key, value in row.items() if not _is_gap(value)},
            "label": YARDSTICK if row["kind"] == "archive" else None,
            "best": row is winner,
        }
        for row in rows
    ]


def _is_gap(value: Any) -> bool:
    """Whether this is a number that is none, such as the NaN of a measurement that failed."""
    return isinstance(value, float) and not known(value)


def _drawn(sample: Mapping[str, Any]) -> str:
    """`top-p 0.9, seed 1`, or as much of it as is known."""
    seed = sample.get("seed")
    parts = [sample.get("settings"), None if seed is None else f"seed {seed}"]
    return ", ".join(part for part in parts if part)


def _memory_plot(results: Mapping[str, Any]) -> Plot | None:
    points = [point for point in results.get("curve") or [] if known(point["bits_per_byte"])]
    if not points:
        return None
    references = [
        Reference(row["name"], row["bits_per_byte"], model=row["kind"] == "sliding")
        for row in results.get("rows") or []
        if row["kind"] in ("sliding", "archive") and known(row.get("bits_per_byte"))
    ]
    trained = (results.get("run") or {}).get("memory")
    return memory_curve(points, trained, references, results.get("band"))


def _training_plot(results: Mapping[str, Any]) -> Plot | None:
    training, validation = results.get("training") or [], results.get("validation") or []
    if not any(known(point["bits_per_byte"]) for point in [*training, *validation]):
        return None
    return training_curve(training, validation)


def _check(results: Mapping[str, Any]) -> None:
    """Names every entry of a list that lacks what its part of the page needs."""
    needed = {
        "rows": ("name", "kind"),
        "curve": ("memory", "bits_per_byte"),
        "training": ("bits_per_byte",),
        "validation": ("bits_per_byte",),
    }
    lists = {part: results.get(part) or [] for part in needed}
    lists["sample.tokens"] = (results.get("sample") or {}).get("tokens") or []
    needed["sample.tokens"] = ("bytes",)
    problems = [
        f"{part}[{place}] lacks {key!r}"
        for part, entries in lists.items()
        for place, entry in enumerate(entries)
        for key in needed[part]
        if key not in entry
    ]
    points = [*lists["training"], *lists["validation"]]
    if not any(all(key in point for point in points) for key in ("step", "tokens")):
        problems.append("training and validation need 'step' in every point, or 'tokens' in every")
    for place, row in enumerate(lists["rows"]):
        if row.get("kind", "none") not in KINDS:
            hint = did_you_mean(str(row["kind"]), KINDS)
            problems.append(f"rows[{place}] has unknown kind {row['kind']!r}{hint}")
    if problems:
        raise DataError("results for the report: " + "; ".join(problems))
