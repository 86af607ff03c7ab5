"""The results and the facts as tables for the terminal.

Cells are `Text`, never markup: a row whose name holds `[bold]` shows just that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from longspan.show.facts import facts
from longspan.show.numbers import NOTHING, bits, change, rate
from longspan.show.sentences import YARDSTICK, best


def results_table(results: Mapping[str, Any]) -> Table:
    """One line a row of `results["rows"]` (see `longspan.show.report`); the best model is bold."""
    table = Table(box=box.SIMPLE_HEAD, title=Text(str(results.get("title", ""))), pad_edge=False)
    table.add_column("measured")
    for heading in ("memory\ntokens", "bits\nper byte", "against\nno memory", "tokens/s"):
        table.add_column(heading, justify="right", no_wrap=True)
    rows = results.get("rows") or []
    winner = best(rows)
    for row in rows:
        memory = row.get("memory")
        name = Text(row["name"])
        for words in (YARDSTICK if row.get("kind") == "archive" else "", row.get("note")):
            if words:
                name.append(f"\n{words}", style="dim")
        table.add_row(
            name,
            Text(NOTHING if memory is None else f"{memory:,}"),
            Text(bits(row.get("bits_per_byte")), style="bold" if row is winner else ""),
            Text(change(row.get("against_none"))),
            Text(rate(row.get("tokens_per_second"))),
        )
    return table


def facts_table(results: Mapping[str, Any]) -> Table:
    """What the run was: parameters, tokens, time, hardware, versions."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for label, value in facts(results):
        table.add_row(Text(label), Text(value))
    return table
