"""`longspan predict`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from cyclopts import Parameter
from numpy.typing import NDArray
from rich.console import Console

from longspan.cli.bar import counter
from longspan.cli.decoding import DecodingOptions
from longspan.cli.options import Checkpoint, Device, DType, Threads, open_run
from longspan.cli.texts import Line, decoded, written
from longspan.data import Codec
from longspan.decoding.explain import Explanation
from longspan.decoding.hypothesis import Hypothesis
from longspan.errors import ConfigError
from longspan.models.encoder_decoder import EncoderDecoder
from longspan.show.alignment import alignment
from longspan.task import Answering, Asked, Reply
from longspan.training.run import fitted, section
from longspan.transduction import Transduction, read

TOLD = 8
"""Candidates of each step that --explain prints."""


def predict(
    run: str,
    path: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    /,
    *,
    text: str | None = None,
    output: Path | None = None,
    scores: Annotated[bool, Parameter(negative="")] = False,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
    explain: Annotated[bool, Parameter(negative="")] = False,
    align: Path | None = None,
    layer: int | None = None,
    head: int | None = None,
    decoding: DecodingOptions | None = None,
    checkpoint: Checkpoint = "best",
    device: Device = "auto",
    dtype: DType = "auto",
    threads: Threads = 0,
) -> None:
    """Write what a model makes of new inputs: a translation, a summary, an answer, a class.

    Parameters
    ----------
    run
        A run's folder.
    path
        What to read: a text file with a source a line, a table (sources.jsonl, .tsv, .csv) with the
        fields that the run was trained on, or - for lines of standard input, each of which is
        replied to before the next is read. Of runs that tell classes also a folder of files.
    text
        One source, in place of a file.
    output
        A file to write to instead of standard output; .jsonl also has scores.
    scores
        Print the score before each text.
    as_json
        Write a line of JSON for each, with all that is known of it.
    explain
        Print step by step what was considered, and why the winner won.
    align
        Draw which tokens of the source each token of the text looked at, into a .png or .svg.
    layer, head
        Whose attention --align draws, counted from 0: the last layer's and the mean of its heads,
        if not said.
    """
    loaded = open_run(run, checkpoint, device, dtype, threads)
    task = loaded.task
    if not isinstance(task, Answering):
        raise ConfigError(
            f"{run} is a run of {task.name}, which `longspan generate` goes on from a prompt"
        )
    task = fitted(loaded, decoded(task, decoding))
    if (path is None) == (text is None):
        raise ConfigError("name what to read: a file, - for standard input, or --text TEXT")
    if align is None and (layer, head) != (None, None):
        raise ConfigError("--layer and --head say what --align FILE draws; name the file")
    if align is not None and not isinstance(loaded.model, EncoderDecoder):
        raise ConfigError(
            f"{run} has no encoder whose tokens could be looked at; leave --align out"
        )
    if explain and not isinstance(task, Transduction):
        raise ConfigError(f"{task.name} writes nothing step by step; leave --explain out")
    data = section(loaded)
    fields = task.fields(data)
    if text is not None and len(fields) > 1:
        raise ConfigError(f"--text is one field, and {task.name} asks {' and '.join(fields)}")

    def reply(some: Sequence[Asked], advance: Callable[[int], None] | None) -> list[list[Reply]]:
        told = TOLD if explain else 0
        return task.reply(
            loaded.model,  # type: ignore[arg-type]
            some,
            data,
            loaded.learnt,  # type: ignore[arg-type]
            alternatives=told,
            advance=advance,
        )

    def tell(line: Line, some: Sequence[Asked], found: Sequence[Sequence[Reply]]) -> None:
        for each, replies in zip(some, found, strict=True):
            for made in replies:
                facts = {"asked": each.texts, "text": made.text, "score": made.score, **made.more}
                line(f"{made.score:.3f}\t{made.text}" if scores else made.text, facts)

    if path == "-" and align is None and not explain:
        with written(output, as_json) as line:
            for each in task.asked(data, path):
                tell(line, [each], reply([each], None))
                sys.stdout.flush()
        return
    asked = [Asked("--text", (text,))] if text is not None else [*task.asked(data, path or "")]
    if align is not None and len(asked) > 1:
        raise ConfigError(f"--align draws one source, and there are {len(asked)}; use --text")
    with counter() as progress:
        row = progress.add_task("replying", total=len(asked))
        found = reply(asked, lambda count: progress.advance(row, count))
    if align is not None and isinstance(loaded.model, EncoderDecoder):
        codec = loaded.tokenizer
        source, text_found = codec.prompt(data.separator.join(asked[0].texts)), found[0][0]
        assert text_found.hypothesis is not None
        _draw(align, loaded.model, codec, source, text_found.hypothesis, layer, head)
    if explain and isinstance(task, Transduction):
        console, codec = Console(), loaded.tokenizer
        for each, replies in zip(asked, found, strict=True):
            console.print(*each.texts, style="bold", markup=False, highlight=False)
            texts = [reply.hypothesis for reply in replies if reply.hypothesis is not None]
            Explanation(texts, task.decode, codec.piece, codec.start).print(console)
        return
    with written(output, as_json) as line:
        tell(line, asked, found)


def _draw(
    path: Path,
    model: EncoderDecoder,
    codec: Codec,
    source: NDArray[np.int64],
    text: Hypothesis,
    layer: int | None,
    head: int | None,
) -> None:
    tokens = [codec.start, *text.tokens]
    with torch.no_grad():
        state = read(model, [source])
        _, _, made = model.align(torch.tensor([tokens], device=state.next.device), state)
    names = [[_word(codec, token) for token in side] for side in (source.tolist(), text.tokens)]
    picture = alignment(made, names[0], [*names[1], "end"], layer=layer, head=head)
    picture.save(path)
    print(f"{path}: {picture.reading}", file=sys.stderr)


def _word(codec: Codec, token: int) -> str:
    return codec.piece(token).decode("utf-8", "replace").strip() or "·"
