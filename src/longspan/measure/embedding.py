"""Vectors of texts and other contents: the mean of a run's last hidden states.

An encoder reads a content whole; a decoder reads it segment by segment with the memory that it
carries, so a content may be of any length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from numpy.typing import NDArray

from longspan.data.inputs.text import TextEncoding
from longspan.data.labelled.item import Item
from longspan.data.labelled.reading import Reading
from longspan.data.labelled.sequences import gather, limited
from longspan.errors import DivergedError
from longspan.models.classifier import Classifier
from longspan.models.pooling import pooled, reader
from longspan.task import device_of
from longspan.training.run import Run

TOKENS = 16_384
"""Rows times length that are read at once."""


@torch.no_grad()
def embed(
    run: Run,
    items: Iterable[Item],
    *,
    first: int | None = None,
    advance: Callable[[int], None] | None = None,
) -> NDArray[np.float32]:
    """A vector of each content.

    Args:
        run: of any task.
        items: what is read.
        first: of longer contents only so many tokens or vectors are read; None for all.
        advance: told how many are done.

    Returns:
        (N, C) float32, in their order.

    Raises:
        DataError: a content is none, or longer than the model has places.
        DivergedError: a vector is no numbers.
    """
    model, learnt = run.model, run.learnt
    if not isinstance(learnt, Reading):
        learnt = Reading("text", TextEncoding(run.tokenizer, run.task.begins), ())
    sequences, stack = gather(items, learnt, first), reader(model)
    limited(sequences, stack.config.position.limit, stack.config.position.name)
    found = np.zeros((len(sequences), stack.config.width), np.float32)
    for chosen in sequences.alike(TOKENS):
        batch = sequences.rows(chosen)
        x, valid = batch.x.to(device_of(model)), batch.valid.to(device_of(model))
        if isinstance(model, Classifier):
            x = model.entered(x)
        vectors = pooled(stack, x, None if bool(valid.all()) else valid, "mean").float()
        if not bool(vectors.isfinite().all()):
            bad = int((~vectors.isfinite()).any(1).nonzero()[0])
            raise DivergedError(f"{sequences.places[chosen[bad]]}: its vector is no numbers")
        found[chosen] = vectors.cpu().numpy()
        if advance is not None:
            advance(len(chosen))
    return found
