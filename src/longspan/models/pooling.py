"""One vector of a sequence: a weighted mean of its hidden states, whatever its length.

    vector = pooled(stack, tokens, valid, "mean")

An encoder reads a sequence whole. A decoder reads it segment by segment with the memory that it
carries, and only the sum so far is kept, so that in evaluation a document of any length takes the
room of a segment.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from longspan.errors import InputError
from longspan.models.decoder import PIECE, Decoder
from longspan.models.encoder import Encoder

Pool = Literal["mean", "first", "last"]
"""What a sequence is taken by: all its hidden states alike, its first one, or its last one."""


def weights(pool: Pool, valid: Tensor) -> Tensor:
    """What each hidden state counts, (B, T) float32 that sums to 1 in each row.

    Args:
        pool: how.
        valid: (B, T) bool, marks what is real (right padding is False).
    """
    if pool == "mean":
        return valid / valid.sum(1, keepdim=True)
    places = torch.zeros_like(valid[:, 0], dtype=torch.long)
    if pool == "last":
        places = valid.sum(1) - 1
    return one_hot(places, valid.shape[1]).float()


def pooled(stack: Encoder | Decoder, x: Tensor, valid: Tensor | None, pool: Pool) -> Tensor:
    """A vector of each sequence.

    Args:
        stack: what reads.
        x: (B, T) int64 tokens, or (B, T, C) vectors of an encoder's width.
        valid: (B, T) bool, marks what is real (right padding is False); None if all is.
        pool: how its hidden states become one.

    Returns:
        (B, C), at least float32.

    Raises:
        InputError: a row without a token, or `x` that the stack cannot take.
    """
    real = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if valid is None else valid
    if not x.shape[1] or not bool(real[:, 0].all()):
        raise InputError("every sequence must have a token or more")
    share = weights(pool, real)
    if isinstance(stack, Encoder):
        read = stack.encode if x.is_floating_point() else stack
        return _sum(read(x, valid=valid), share)
    step = stack.config.segment
    if step == 1:
        step = x.shape[1] if stack.training else PIECE
    total, state = None, None
    for low in range(0, x.shape[1], step):
        piece = slice(low, low + step)
        h, state = stack.hidden(
            x[:, piece], state, valid=None if valid is None else valid[:, piece]
        )
        part = _sum(h, share[:, piece])
        total = part if total is None else total + part
    assert total is not None
    return total


def _sum(h: Tensor, share: Tensor) -> Tensor:
    h = h.to(torch.promote_types(h.dtype, torch.float32))
    # what stands at padding is finite, so that a weight of zero leaves nothing of it
    return (h * share.to(h.dtype)[:, :, None]).sum(1)


def reader(model: nn.Module) -> Encoder | Decoder:
    """What in a model reads sequences: its encoder, or the decoder of one that has none.

    Raises:
        InputError: it has neither.
    """
    for part in (model, getattr(model, "encoder", None), getattr(model, "decoder", None)):
        if isinstance(part, Encoder | Decoder):
            return part
    raise InputError(f"a {type(model).__name__} has neither an encoder nor a decoder")
