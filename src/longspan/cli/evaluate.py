"""`longspan evaluate`."""

from __future__ import annotations

import json
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from longspan.cli.options import Checkpoint, Device, DType, Threads, open_run
from longspan.data import read
from longspan.errors import ConfigError
from longspan.measure.perplexity import Score, remembered, sliding
from longspan.measure.perplexity import evaluate as score
from longspan.models.decoder import DecoderConfig
from longspan.training.run import own_data


def evaluate(
    run: str,
    /,
    *,
    data: str | None = None,
    memory: Annotated[list[int] | None, Parameter(consume_multiple=True)] = None,
    segment: int | None = None,
    sliding_window: Annotated[bool, Parameter(name="--sliding", negative="")] = False,
    stride: int = 1,
    limit: int = 0,
    batch: int = 16,
    documents: bool = True,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
    checkpoint: Checkpoint = "best",
    device: Device = "auto",
    dtype: DType = "auto",
    threads: Threads = 0,
) -> None:
    """Score held-out data at several lengths of memory, every token exactly once.

    Parameters
    ----------
    run
        A run's folder.
    data
        A file, a folder, globs, - or hf:NAME; the run's own test data if not given.
    memory
        Lengths of memory in tokens, 0 for none; as trained if not given. Layers that take no memory
        (recurrent ones, for instance) carry on what they carry.
    segment
        Tokens a segment; as trained if not given.
    sliding_window
        Score with a sliding window of one segment instead, which starts from nothing each time.
    stride
        Tokens that the sliding window moves at a time; 1 gives each the longest context.
    limit
        Score the first so many tokens only; 0 for all.
    batch
        Documents at a time.
    documents
        Each file is a document whose memory starts afresh; otherwise all are one stream.
    as_json
        Write a line of JSON for each result instead of a table.
    """
    loaded = open_run(run, checkpoint, device, dtype, threads)
    if data is None:
        corpus = own_data(loaded).test
    else:
        corpus = read(data, loaded.tokenizer, documents=documents)
    scored = min(limit or len(corpus), len(corpus) - len(corpus.offsets))
    results: list[tuple[str, int | None, Score]] = []
    lengths: list[int | None] = [None] if memory is None else [*memory]
    if sliding_window and memory is not None:
        raise ConfigError("--sliding has no memory; leave --memory out")
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    ) as progress:
        if sliding_window:
            task = progress.add_task("sliding window", total=scored)
            value = sliding(
                loaded.language_model,
                corpus,
                loaded.tokenizer,
                stride=stride,
                window=segment,
                limit=limit,
                batch=batch,
                advance=lambda count: progress.advance(task, count),
            )
            results.append((f"sliding window, stride {stride}", None, value))
            lengths = []
        for length in lengths:
            model = loaded.language_model
            if length is not None:
                model = model.remembering(length, segment)
            elif segment is not None:
                model = model.segmented(segment)
            length, name = remembered(model.config)
            task = progress.add_task(name, total=scored)
            advance = lambda count, task=task: progress.advance(task, count)  # noqa: E731
            value = score(
                model, corpus, loaded.tokenizer, limit=limit, batch=batch, advance=advance
            )
            results.append((name, length, value))
    if as_json:
        for name, length, value in results:
            print(json.dumps(_facts(name, length, value)))
    else:
        Console().print(_table(results, loaded.language_model.config))


def _facts(name: str, length: int | None, value: Score) -> dict[str, object]:
    low, high = value.interval()
    facts: dict[str, object] = {
        "name": name,
        "memory": length,
        "bits_per_byte": value.bits_per_byte,
        "low": low,
        "high": high,
        "tokens": int(value.tokens.sum()),
        "bytes": int(value.bytes.sum()),
        "documents": len(value.tokens),
        "tokens_per_second": value.tokens_per_second,
    }
    if value.unit != "byte":
        facts[f"{value.unit}_perplexity"] = value.perplexity
    return facts


def _table(results: list[tuple[str, int | None, Score]], config: DecoderConfig) -> Table:
    first = results[0][2]
    caption = "interval: 95 %, bootstrap over documents"
    if config.own and config.memories:
        caption += f"; beside the memory there is the state of {' and '.join(config.own)}"
    table = Table(caption=caption)
    table.add_column("context")
    columns = ["bits/byte", "interval", "bytes", "tokens/s"]
    if first.unit != "byte":
        columns.insert(1, f"{first.unit} perplexity")
    for column in columns:
        table.add_column(column, justify="right")
    for name, _, value in results:
        low, high = value.interval()
        cells = [f"{value.bits_per_byte:.4f}", f"{low:.3f} to {high:.3f}"]
        cells += [f"{int(value.bytes.sum()):,}", f"{value.tokens_per_second:,.0f}"]
        if first.unit != "byte":
            cells.insert(1, f"{value.perplexity:.2f}")
        table.add_row(name, *cells)
    return table
