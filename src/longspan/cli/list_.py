"""`longspan list`."""

from __future__ import annotations

import inspect
from dataclasses import MISSING, fields
from typing import Any

from rich.console import Console
from rich.table import Table

from longspan.data.reader import Reader
from longspan.data.tokenizer import Tokenizer
from longspan.slots import Kernel, Memory, Pattern, Position
from longspan.training.recipe import recipe_names, recipe_text

KINDS = (Position, Pattern, Memory, Kernel, Tokenizer, Reader)


def list_() -> None:
    """List what a recipe can name: components by kind, with their settings, and recipes."""
    console = Console()
    for kind in KINDS:
        table = Table(title=kind.kind, title_justify="left", box=None, padding=(0, 2, 0, 0))
        for column in ("name", "settings", "what it is"):
            table.add_column(column, overflow="fold")
        for name, member in kind.all().items():
            table.add_row(name, _settings(member), _first_line(member))
        console.print(table)
        console.print()
    table = Table(title="recipe", title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("name")
    table.add_column("what it is")
    for name in recipe_names():
        table.add_row(name, recipe_text(name).splitlines()[0].lstrip("# "))
    console.print(table)


def _settings(member: type[Any]) -> str:
    words = []
    for f in fields(member):
        words.append(f.name if f.default is MISSING else f"{f.name}={f.default}")
    return ", ".join(words) or "-"


def _first_line(member: type[Any]) -> str:
    module = inspect.getmodule(member)
    text = (module.__doc__ if module else None) or member.__doc__ or ""
    return " ".join(text.strip().split("\n\n")[0].split())
