"""`longspan reach`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.console import Console

from longspan.cli.options import Checkpoint, Device, DType, Threads, open_run
from longspan.data import Corpus, read
from longspan.errors import ConfigError
from longspan.machine import choose_device, set_threads
from longspan.measure.reach.predictor import Predictor
from longspan.measure.reach.runs import RunPredictor
from longspan.measure.reach.summary import Plan, check_group, summarise
from longspan.measure.reach.text import Text
from longspan.show.reach import reach_table, write_reach
from longspan.training.run import Run, own_data, write_json

HF = "hf:"


def reach(
    *runs: str,
    data: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    longest: int = 0,
    targets: int = 512,
    pieces: int = 8,
    samples: int = 4,
    seed: int = 0,
    units: Literal["text", "bytes", "ids"] | None = None,
    documents: bool = True,
    to: Path | None = None,
    checkpoint: Checkpoint = "best",
    device: Device = "auto",
    dtype: DType = "auto",
    threads: Threads = 0,
) -> None:
    """Measure how far back models really look: a table here, a page and JSON beside it.

    Parameters
    ----------
    runs
        Runs' folders, or hf:PATH for a causal model of Hugging Face's (a folder, a GGUF file or a
        name); several are measured as a group.
    data
        A file, a folder, globs, - or hf:NAME; the first run's own test data if not given.
    longest
        Distance in tokens up to which is measured; 0 for 8 times the trained memory.
    targets
        Tokens whose loss is taken at every context.
    pieces
        Pieces of text that are read from an empty state.
    samples
        Sequences a cell of the recall probes.
    seed
        Of all draws.
    units
        How hf:PATH reads data: text by its tokenizer, bytes, or ids (numbers); text if it has one.
    documents
        Each file is a document; otherwise all are one.
    to
        The page; reach.html in the first run's folder, or here for hf:PATH. JSON goes beside it.
    """
    plan = Plan(longest=longest, targets=targets, pieces=pieces, samples=samples, seed=seed)
    if not runs:
        raise ConfigError("name a run, or hf:PATH: longspan reach RUN --data PATH")
    if to is not None and to.suffix.lower() == ".json":
        raise ConfigError(
            f"--to names the page, and {to} is where its JSON goes; name {to.with_suffix('.html')}"
        )
    set_threads(threads)
    theirs = [name for name in runs if name.startswith(HF)]
    if units is not None and not theirs:
        raise ConfigError("--units says how hf:PATH reads data, and a run knows; leave it out")
    loaded: dict[str, Run] = {}
    predictors: list[Predictor] = []
    corpus: Corpus | None = None
    for name in runs:
        if name in theirs:
            # only who asks for it waits for transformers
            from longspan.interop.causal import open_causal

            causal = open_causal(name.removeprefix(HF), units, device, dtype)
            predictor, codec = causal, causal.codec
        else:
            loaded[name] = open_run(name, checkpoint, device, dtype, threads)
            predictor, codec = RunPredictor.of(loaded[name]), loaded[name].tokenizer
        predictors.append(predictor)
        check_group(predictors)
        if corpus is None and data is not None:
            corpus = read(tuple(data), codec, documents=documents)
        elif corpus is None and name in loaded:
            corpus = own_data(loaded[name]).test
        elif corpus is None:
            raise ConfigError(f"{name} has no data of its own; name some with --data")
    assert corpus is not None, "the first model gave it"
    names = Counter(predictor.name for predictor in predictors)
    for given, predictor in zip(runs, predictors, strict=True):
        predictor.name = given if names[predictor.name] > 1 else predictor.name
    console = Console(stderr=True)
    with console.status("measuring reach") as status:
        results = summarise(
            predictors,
            Text.of(corpus),
            plan,
            " ".join(data or ["the run's own test data"]),
            choose_device(device),
            lambda what: status.update(f"measuring reach of {what}"),
        )
    folder = loaded[runs[0]].path if runs[0] in loaded else Path()
    target = to or folder / "reach.html"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_json(target.with_suffix(".json"), results)
        write_reach(results, target)
    except OSError as error:
        raise ConfigError(f"{target} cannot be written ({error.strerror or error})") from error
    Console().print(reach_table(results))
    print(target)
