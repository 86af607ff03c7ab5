"""`longspan generate`."""

from __future__ import annotations

import codecs
import sys

from longspan.cli.options import Checkpoint, Device, DType, Threads, open_run
from longspan.decoding.generate import tokens
from longspan.decoding.sampling import Sampling


def generate(
    run: str,
    /,
    *,
    prompt: str = "",
    max_tokens: int = 200,
    greedy: bool = False,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int | None = None,
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
    max_tokens
        Generate at most so many.
    greedy
        Take the most probable token each time.
    temperature
        Below 1 sharpens, above 1 flattens.
    top_k
        Draw from the k most probable; 0 for all.
    top_p
        Draw from the most probable that together reach p.
    seed
        The same seed draws the same text.
    """
    sampling = Sampling(greedy=greedy, temperature=temperature, top_k=top_k, top_p=top_p)
    loaded = open_run(run, checkpoint, device, dtype, threads)
    # a character may come as several tokens
    text = codecs.getincrementaldecoder("utf-8")(errors="replace")
    steps = tokens(loaded, prompt, max_tokens=max_tokens, sampling=sampling, seed=seed)
    between = text.decode(loaded.tokenizer.gap(prompt))  # refused before anything is printed
    # bytes that are no text reach us as lone surrogates, which cannot be printed
    sys.stdout.write(prompt.encode("utf-8", "surrogateescape").decode("utf-8", "replace") + between)
    sys.stdout.flush()
    for step in steps:
        sys.stdout.write(text.decode(step.bytes))
        sys.stdout.flush()
    sys.stdout.write(text.decode(b"", final=True) + "\n")
    sys.stdout.flush()
