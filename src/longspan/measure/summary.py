"""All there is to say about a run on its own held-out data, as one JSON-able dict.

`show/report.py` says what the keys mean and makes a page of them.
"""

from __future__ import annotations

import datetime
import json
import lzma
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from longspan.config import write_yaml
from longspan.data import Corpus
from longspan.decoding.decode import Decoding
from longspan.decoding.filters.temperature import Temperature
from longspan.decoding.filters.top_p import TopP
from longspan.decoding.generate import tokens
from longspan.decoding.strategies.sample import Sample
from longspan.errors import CheckpointError, ConfigError
from longspan.machine import hardware, peak_memory, versions
from longspan.measure.perplexity import Score, check_stride, evaluate, remembered, sliding
from longspan.models.decoder import Decoder, DecoderConfig
from longspan.training.checkpoint import read_trainer
from longspan.training.run import Run, own_data


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured.

    Attributes:
        factors: lengths of memory, as multiples of the trained one.
        limit: held-out tokens to score; 0 for all. The same ones for every row.
        stride: of the sliding window.
        prompt: what the sample begins with; "" takes the first line of the first test document.
        sample: tokens in it.
        seed: of it.
    """

    factors: Sequence[float] = (0, 0.25, 0.5, 1, 2, 4)
    limit: int = 0
    stride: int = 32
    prompt: str = ""
    sample: int = 600
    seed: int = 1

    def __post_init__(self) -> None:
        least = {"limit": 0, "stride": 1, "sample": 0}
        problems = [
            f"--{name} must be {low} or more, not {getattr(self, name)}"
            for name, low in least.items()
            if getattr(self, name) < low
        ]
        if any(factor < 0 for factor in self.factors):
            problems.append(f"factors must be 0 or more, not {list(self.factors)}")
        if problems:
            raise ConfigError(problems)


def summarise(
    run: Run, plan: Plan | None = None, say: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Measures a trained run on the test data of its own recipe.

    Args:
        run: a loaded run.
        plan: what to measure.
        say: told what is measured next.

    Where the layers have no memory of one length that may change, there is no curve, and what the
    model carries is measured beside segments that start from nothing.

    Raises:
        ConfigError: an imported run, which has no data of its own, or a stride beyond the window.
        CheckpointError: the run was killed before its last step.
        DataError: the recipe leaves no test data.
    """
    plan = plan or Plan()
    begun = time.perf_counter()
    say("reading the data")
    splits = own_data(run)
    speed = _speed(run.path)
    test = splits.test
    check_stride(plan.stride, _segment(run))
    rows, curve = [], []
    models = _by_length(run.language_model, plan)
    trained = remembered(run.language_model.config)[0] if models else None
    if trained:
        scores: dict[int, Score] = {}
        for length, model in models.items():
            say(f"memory {length}")
            scores[length] = score = evaluate(model, test, run.tokenizer, limit=plan.limit)
            low, high = score.interval()
            point = {"memory": length, "bits_per_byte": score.bits_per_byte}
            curve.append(point | {"low": low, "high": high})
        for length in (0, trained, 4 * trained):
            if length in scores:
                asked = models[length].config, length, trained
                row = _memory_row(run, plan, *asked, scores[length], scores.get(0))
                rows.append(row)
    else:
        say(remembered(run.language_model.config)[1])
        rows += _carried_rows(run, plan, test)
    say(f"sliding window, stride {plan.stride}")
    rows.append(_sliding_row(run, plan, test))
    say("xz")
    scored = _contents(test, run, plan.limit)
    rows += _archive_rows(scored)
    say("a sample")
    trainer = read_trainer(run.checkpoint)
    metrics = _metrics(run.path)
    seconds = time.perf_counter() - begun
    recorded = json.loads((run.path / "versions.json").read_text(encoding="utf-8"))
    path = run.config["data"]["path"]
    device = run.language_model.head.bias.device
    return {
        "title": f"longspan: {run.path.name}",
        "longspan": versions()["longspan"],
        "created": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "run": {
            "parameters": sum(p.numel() for p in run.language_model.parameters()),
            "steps": trainer["step"],
            "tokens_seen": trainer["tokens"],
            "tokens_per_second": speed["tokens_per_second"],
            "train_seconds": speed["seconds"],
            "total_seconds": speed["seconds"] + seconds,
            "peak_memory_bytes": max(speed["peak_memory"], peak_memory()),
            "segment": _segment(run),
            "memory": trained,
            "dtype": run.config["train"]["dtype"],
            "threads": recorded["threads"],
            "hardware": hardware(device),
            "versions": versions(),
            "recipe": write_yaml(run.config),
        },
        "data": {
            "path": path if isinstance(path, str) else ", ".join(path),
            "train_bytes": splits.train.bytes,
            "train_files": len(splits.train.offsets),
            "test_bytes": test.bytes,
            "test_files": len(test.offsets),
            "scored_bytes": sum(map(len, scored)),
        },
        "rows": rows,
        "band": "the 95 % bootstrap interval over the held-out files",
        "curve": curve,
        "training": metrics[0],
        "validation": metrics[1],
        "sample": _sample(run, plan, plan.prompt or _first_line(scored[0])),
    }


def _by_length(model: Decoder, plan: Plan) -> dict[int, Decoder]:
    """The model at each length of memory; none if its layers have none that may change."""
    trained, _ = remembered(model.config)
    if not trained:
        return {}
    try:
        return {n: model.remembering(n) for n in (int(trained * f) for f in plan.factors)}
    except ConfigError:
        return {}


def _carried_rows(run: Run, plan: Plan, test: Corpus) -> list[dict[str, Any]]:
    """Segments that start from nothing, and beside them what the model carries, if anything."""
    window, limit, config = _segment(run), plan.limit, run.language_model.config
    alone = sliding(
        run.language_model, test, run.tokenizer, stride=window, window=window, limit=limit, batch=32
    )
    rows = [
        {
            "name": "no memory",
            "kind": "none",
            "memory": 0,
            "bits_per_byte": alone.bits_per_byte,
            "against_none": None,
            "tokens_per_second": alone.tokens_per_second,
            "note": f"each segment of {window} tokens starts from nothing",
            "command": _command(run, f"--sliding --stride {window} --segment {window}", limit),
        }
    ]
    if carriers := _carriers(config):
        carried = evaluate(run.language_model, test, run.tokenizer, limit=limit)
        rows.append(
            {
                "name": remembered(config)[1],
                "kind": "state",
                "memory": None,
                "bits_per_byte": carried.bits_per_byte,
                "against_none": carried.bits_per_byte / alone.bits_per_byte - 1,
                "tokens_per_second": carried.tokens_per_second,
                "note": "carried from segment to segment by " + ", ".join(carriers),
                "command": _command(run, "", limit),
            }
        )
    return rows


def _carriers(config: DecoderConfig) -> list[str]:
    """memory 'cache' and mixer 'lstm': what carries something from segment to segment."""
    kept = [memory for memory in config.memories if memory.carries]
    names = dict.fromkeys(f"memory '{memory.name}'" for memory in kept)
    return [*names, *(f"mixer '{name}'" for name in config.own)]


def _memory_row(
    run: Run,
    plan: Plan,
    config: DecoderConfig,
    length: int,
    trained: int,
    score: Score,
    without: Score | None,
) -> dict[str, Any]:
    if length == 0:
        name, note = "no memory", "each segment starts from nothing"
        if first := max(memory.sinks for memory in config.memories):
            name = f"memory 0, beside the first {first}"
            note = f"attention keeps the first {first} tokens of the document alone"
        elif config.own:
            note = "attention starts each segment from nothing"
        if own := config.own:
            note += f"; {' and '.join(own)} {'carries' if len(own) == 1 else 'carry'} on"
    else:
        times = length / trained
        name = f"memory {length}" + (", as trained" if times == 1 else f", {times:g}x the trained")
        note = "memory carried from segment to segment"
    against = None
    if without is not None and length:
        against = score.bits_per_byte / without.bits_per_byte - 1
    return {
        "name": name,
        "kind": "memory" if length else "none",
        "memory": length,
        "bits_per_byte": score.bits_per_byte,
        "against_none": against,
        "tokens_per_second": score.tokens_per_second,
        "note": note,
        "command": _command(run, f"--memory {length}", plan.limit),
    }


def _sliding_row(run: Run, plan: Plan, test: Corpus) -> dict[str, Any]:
    window = _segment(run)
    limit = plan.limit
    score = sliding(
        run.language_model,
        test,
        run.tokenizer,
        stride=plan.stride,
        window=window,
        limit=limit,
        batch=32,
    )
    # evaluate knows the pattern's segment only
    own = "" if window == run.language_model.config.segment else f" --segment {window}"
    context = f"{window - plan.stride + 1} to {window} tokens of context, computed again each time"
    return {
        "name": f"sliding window of {window}, stride {plan.stride}",
        "kind": "sliding",
        "memory": None,
        "bits_per_byte": score.bits_per_byte,
        "against_none": None,
        "tokens_per_second": score.tokens_per_second,
        "note": context,
        "command": _command(run, f"--sliding --stride {plan.stride}{own}", limit),
    }


def _segment(run: Run) -> int:
    """Tokens that training read at once: the pattern's own segment, or the recipe's."""
    return run.config["train"]["segment"] or run.language_model.config.segment


def _command(run: Run, what: str, limit: int) -> str:
    command = f"longspan evaluate {shlex.quote(str(run.path))} {what}".rstrip()
    return command + (f" --limit {limit}" if limit else "")


def _contents(test: Corpus, run: Run, limit: int) -> list[bytes]:
    """The bytes of each document that were scored."""
    edges = [*test.offsets.tolist(), len(test)]
    left = limit or len(test)
    contents = []
    for low, high in pairwise(edges):
        count = min(high - low - 1, left)
        left -= count
        if count > 0:
            contents.append(
                run.tokenizer.decode(np.asarray(test.tokens[low + 1 : low + 1 + count]))
            )
    return contents


def _archive_rows(contents: list[bytes]) -> list[dict[str, Any]]:
    total = sum(map(len, contents))
    each = sum(len(lzma.compress(content, preset=9)) for content in contents)
    whole = len(lzma.compress(b"".join(contents), preset=9))
    rows = []
    for name, size, note in (
        ("xz -9, each file", each, "every file on its own"),
        ("xz -9, one archive", whole, "all files one after another"),
    ):
        rows.append(
            {
                "name": name,
                "kind": "archive",
                "memory": None,
                "bits_per_byte": 8 * size / total,
                "against_none": None,
                "tokens_per_second": None,
                "note": note,
                "command": None,
            }
        )
    return rows


def _speed(path: Path) -> dict[str, Any]:
    try:
        return json.loads((path / "speed.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} has not been trained to its end (it has no speed.json); "
            f"`longspan train {shlex.quote(str(path))} --resume` goes on"
        ) from error


def _metrics(path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Points of the training and of the validation curve."""
    training, validation = [], []
    step_tokens: dict[int, int] = {}
    with open(path / "metrics.jsonl", encoding="utf-8") as file:
        for line in map(json.loads, file):
            if "loss" in line:
                step_tokens[line["step"]] = line["tokens"]
                bits = line["loss"] / float(np.log(2))
                training.append(
                    {"step": line["step"], "tokens": line["tokens"], "bits_per_byte": bits}
                )
            else:
                validation.append(
                    {
                        "step": line["step"],
                        "tokens": step_tokens.get(line["step"]),
                        "bits_per_byte": line["valid_bits_per_byte"],
                    }
                )
    return training, [point for point in validation if point["tokens"] is not None]


def _first_line(content: bytes) -> str:
    return content.decode("utf-8", errors="replace").split("\n")[0][:80] + "\n"


def _sample(run: Run, plan: Plan, prompt: str) -> dict[str, Any]:
    decoding = Decoding(
        strategy=Sample(),
        filters=(Temperature(0.8), TopP(0.95)),
        max_tokens=plan.sample,
        seed=plan.seed,
    )
    steps = tokens(run, prompt, decoding=decoding, echo=True)
    return {
        "prompt": prompt,
        "seed": plan.seed,
        "settings": "temperature 0.8, top-p 0.95",
        "tokens": [
            {"bytes": step.bytes.hex(), "bits": step.bits, "prompt": step.prompt} for step in steps
        ],
    }
