"""A progress bar for work that takes longer than a second, where somebody sits at a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

PATIENCE = 1.0
"""Seconds without a bar."""


@contextmanager
def progress(label: str, total: int | None) -> Generator[Callable[[int], None], None, None]:
    """Gives a function that is told how many bytes were done since it was called last.

    Args:
        label: what is being done.
        total: bytes to do; None if nobody knows.
    """
    begin = time.monotonic()
    done = 0
    bar: Any = None

    def advance(count: int) -> None:
        nonlocal done, bar
        done += count
        if bar is None and time.monotonic() - begin > PATIENCE and sys.stderr.isatty():
            bar = _bar(label, total)
        if bar is not None:
            bar.update(bar.task_ids[0], completed=done)

    try:
        yield advance
    finally:
        if bar is not None:
            bar.stop()


def _bar(label: str, total: int | None) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    bar.add_task(label, total=total)
    bar.start()
    return bar
