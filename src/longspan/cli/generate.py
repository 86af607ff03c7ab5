"""`longspan generate`."""

from __future__ import annotations

import codecs
import sys

from longspan.cli.decoding import DecodingOptions
from longspan.cli.options import Checkpoint, Device, DType, Threads, open_run
from longspan.decoding.generate import tokens


def generate(
    run: str,
    /,
    *,
    prompt: str = "",
    how: DecodingOptions | None = None,
    checkpoint: Checkpoint = "best",
    device: Device = "auto",
    dtype: DType = "auto",
    threads: Threads = 0,
) -> None:
    """Continue a prompt, token by token as they come.

    Parameters
    ----------
    run
        A run's folder.
    prompt
        What the text begins with; it is printed too.
    """
    decoding = (how or DecodingOptions()).decoding()
    loaded = open_run(run, checkpoint, device, dtype, threads)
    # a character may come as several tokens
    text = codecs.getincrementaldecoder("utf-8")(errors="replace")
    steps = tokens(loaded, prompt, decoding=decoding)
    between = text.decode(loaded.tokenizer.gap(prompt))  # refused before anything is printed
    # bytes that are no text reach us as lone surrogates, which cannot be printed
    sys.stdout.write(prompt.encode("utf-8", "surrogateescape").decode("utf-8", "replace") + between)
    sys.stdout.flush()
    for step in steps:
        sys.stdout.write(text.decode(step.bytes))
        sys.stdout.flush()
    sys.stdout.write(text.decode(b"", final=True) + "\n")
    sys.stdout.flush()
