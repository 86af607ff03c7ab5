"""`longspan report`."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console

from longspan.cli.options import Checkpoint, Device, DType, Threads, open_run
from longspan.errors import ConfigError
from longspan.measure.summary import Plan, summarise
from longspan.show.report import write_report
from longspan.show.table import facts_table, results_table
from longspan.training.run import write_json


def report(
    run: str,
    /,
    *,
    limit: int = 0,
    stride: int = 32,
    prompt: str = "",
    sample: int = 600,
    seed: int = 1,
    to: Path | None = None,
    checkpoint: Checkpoint = "best",
    device: Device = "auto",
    dtype: DType = "auto",
    threads: Threads = 0,
) -> None:
    """Measure a run on its own test data: a table here, report.html and report.json in its folder.

    Parameters
    ----------
    run
        A run's folder.
    limit
        Score the first so many test tokens only; 0 for all.
    stride
        Tokens that the sliding window moves at a time.
    prompt
        What the sample begins with; the first line of the first test document if not given.
    sample
        Tokens in the sample.
    seed
        Of the sample.
    to
        The page; report.html in the run's folder if none is given.
    """
    loaded = open_run(run, checkpoint, device, dtype, threads)
    console = Console(stderr=True)
    plan = Plan(limit=limit, stride=stride, prompt=prompt, sample=sample, seed=seed)
    with console.status("measuring") as status:
        results = summarise(loaded, plan, lambda what: status.update(f"measuring: {what}"))
    target = to or loaded.path / "report.html"
    try:
        write_json(target.with_suffix(".json"), json.loads(json.dumps(results)))
        write_report(results, target)
    except OSError as error:
        raise ConfigError(f"{target} cannot be written ({error.strerror or error})") from error
    out = Console()
    out.print(results_table(results))
    out.print(facts_table(results))
    print(target)
