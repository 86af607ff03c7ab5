"""`longspan compare`."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from longspan.measure.compare import compare as gather


def compare(*runs: Path) -> None:
    """Lay the results of runs beside the differences of their recipes.

    Parameters
    ----------
    runs
        Folders of runs.
    """
    results, settings = gather(list(runs))
    table = Table()
    table.add_column("")
    for run in runs:
        table.add_column(str(run), justify="right", overflow="fold")
    for name, values in results.items():
        table.add_row(name, *("-" if v is None else _shown(v) for v in values))
    table.add_section()
    for key, values in settings.items():
        table.add_row(key, *("-" if v is None else str(v) for v in values))
    Console().print(table)
    if not settings:
        print("the recipes are the same")


def _shown(value: float | int) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4f}"
