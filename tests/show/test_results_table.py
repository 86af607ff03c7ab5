"""The same rows and facts in the terminal."""

from __future__ import annotations

import io

from rich.console import Console
from rich.table import Table

from longspan.show.facts import facts
from longspan.show.table import facts_table, results_table


def printed(table: Table, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, no_color=True)
    console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_rows_show_their_numbers(results):
    lines = printed(results_table(results)).splitlines()
    (line,) = [line for line in lines if line.strip().startswith("memory 256")]
    assert line.split() == ["memory", "256", "256", "2.013", "−6.1%", "33,120"]
    assert sum("yardstick, untrained" in line for line in lines) == 2


def test_names_are_no_markup(results):
    results["rows"][0]["name"] = "[bold]none[/bold] [/]"
    assert "[bold]none[/bold] [/]" in printed(results_table(results))


def test_numbers_survive_a_narrow_terminal(results):
    shown = printed(results_table(results), width=50)
    assert all(f"{row['bits_per_byte']:.3f}" in shown for row in results["rows"])


def test_facts_say_what_is_known_and_no_more(results):
    shown = printed(facts_table(results))
    for words in ("6.31 million", "8,312 tokens/s", "1.93 GB", "torch 2.13.0", "2 cores"):
        assert words in shown
    assert facts({"run": {"steps": 5}}) == [("steps", "5")]


def test_nothing_is_an_empty_table():
    assert results_table({}).row_count == 0
    assert facts_table({}).row_count == 0
