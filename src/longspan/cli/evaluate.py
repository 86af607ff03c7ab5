"""`longspan evaluate`."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from longspan.cli.bar import counter
from longspan.cli.decoding import DecodingOptions
from longspan.cli.options import Checkpoint, Device, DType, Threads, open_run
from longspan.cli.texts import decoded, said, written
from longspan.data import read
from longspan.errors import ConfigError
from longspan.measure.perplexity import Score, remembered, sliding
from longspan.measure.perplexity import evaluate as score
from longspan.models.decoder import DecoderConfig
from longspan.task import Answering
from longspan.training.run import Run, fitted, own_data, section


def evaluate(
    run: str,
    /,
    *,
    data: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    memory: Annotated[list[int] | None, Parameter(consume_multiple=True)] = None,
    segment: int | None = None,
    sliding_window: Annotated[bool, Parameter(name="--sliding", negative="")] = False,
    stride: int = 1,
    limit: int = 0,
    batch: int = 16,
    documents: bool = True,
    save: Path | None = None,
    decoding: DecodingOptions | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
    checkpoint: Checkpoint = "best",
    device: Device = "auto",
    dtype: DType = "auto",
    threads: Threads = 0,
) -> None:
    """Score held-out data: of a language model at several lengths of memory, every token exactly
    once; of other tasks by their own measures.

    Parameters
    ----------
    run
        A run's folder.
    data
        A file, a folder, globs, - or hf:NAME; of pairs a table, or two parallel text files. The
        run's own test data if not given.
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
        Score the first so many tokens (of pairs: records) only; 0 for all.
    batch
        Documents at a time.
    documents
        Each file is a document whose memory starts afresh; otherwise all are one stream.
    save
        A file for what was written: .jsonl with references and scores, else a text a line.
    as_json
        Write a line of JSON for each result instead of a table.
    """
    loaded = open_run(run, checkpoint, device, dtype, threads)
    if isinstance(loaded.task, Answering):
        streams = {"--memory": memory, "--segment": segment, "--sliding": sliding_window or None}
        if given := [flag for flag, value in streams.items() if value is not None]:
            raise ConfigError(
                f"{', '.join(given)} is of language models, and {run} is a run of "
                f"{loaded.task.name}; leave it out"
            )
        _replies(loaded, decoded(loaded.task, decoding), data, limit, save, as_json)
        return
    if save is not None or decoding is not None:
        raise ConfigError(
            "--save and how to write are of tasks that write, and "
            f"{run} is a run of {loaded.task.name}; leave them out"
        )
    model = loaded.language_model
    if data is None:
        corpus = own_data(loaded).test
    else:
        corpus = read(tuple(data), loaded.tokenizer, documents=documents)
    scored = min(limit or len(corpus), len(corpus) - len(corpus.offsets))
    results: list[tuple[str, int | None, Score]] = []
    lengths: list[int | None] = [None] if memory is None else [*memory]
    if sliding_window and memory is not None:
        raise ConfigError("--sliding has no memory; leave --memory out")
    with counter() as progress:
        if sliding_window:
            task = progress.add_task("sliding window", total=scored)
            value = sliding(
                model,
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
            other = model
            if length is not None:
                other = model.remembering(length, segment)
            elif segment is not None:
                other = model.segmented(segment)
            length, name = remembered(other.config)
            task = progress.add_task(name, total=scored)
            advance = lambda count, task=task: progress.advance(task, count)  # noqa: E731
            value = score(
                other, corpus, loaded.tokenizer, limit=limit, batch=batch, advance=advance
            )
            results.append((name, length, value))
    if as_json:
        for name, length, value in results:
            print(json.dumps(_facts(name, length, value)))
    else:
        Console().print(_table(results, model.config))


def _replies(
    run: Run, task: Answering, data: list[str] | None, limit: int, save: Path | None, as_json: bool
) -> None:
    codec = run.learnt
    records = own_data(run).test if data is None else task.read(section(run), data, codec)
    records = task.first(records, limit) if limit else records
    task = fitted(run, task)
    begun = time.perf_counter()
    with counter() as progress:
        row = progress.add_task("replying", total=len(records))
        scores, replies = task.examine(
            run.model, records, codec, lambda count: progress.advance(row, count)
        )
    seconds = time.perf_counter() - begun
    if save is not None:
        with written(save) as line:
            for (best, *_), several in zip(replies, task.references(records), strict=True):
                facts = {"text": best.text, "score": best.score, "references": several}
                line(best.text, facts)
    if as_json:
        print(json.dumps({**scores, "records": len(records), "seconds": seconds}))
        return
    table = Table(caption=f"{len(records):,} records, {said(task)}{seconds:,.0f} s")
    for name in scores:
        table.add_column(name.replace("_per_", "/").replace("_", " "), justify="right")
    table.add_row(*(f"{value:.2f}" for value in scores.values()))
    Console().print(table)


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
