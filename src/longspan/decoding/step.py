"""What decoding asks of a model: a step with explicit state.

    logits, state = step(tokens, state, valid=valid)

`Decoder` and `EncoderDecoder.decode` are such steps, and so is any function that keeps to the form;
a state need only be able to give some of its rows (`select`), in any order and as often as named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from longspan.errors import InputError

PIECE = 512
"""Tokens of a prompt that are read at once: logits of all of a long one would not fit."""


class Step(Protocol):
    """A model that goes on by some tokens.

    Takes tokens (N, T) int64, the state after what came before (None for nothing, if the model can
    begin from nothing) and `valid` (N, T) bool, which marks real tokens (right padding is False);
    a row may have none. Gives logits (N, T, V) for the token after each, and the state after them.
    """

    def __call__(
        self, tokens: Tensor, state: Any, /, *, valid: Tensor | None = None
    ) -> tuple[Tensor, Any]: ...


@dataclass(frozen=True)
class Draft:
    """A smaller model that writes ahead.

    Attributes:
        step: the model; its vocabulary must be that of the model that checks it.
        state: what it has read before, as the model's own; None for nothing, and then it reads for
            itself the tokens that the model's state has read.
    """

    step: Step
    state: Any = None


@runtime_checkable
class Shown(Step, Protocol):
    """A step that shows its last hidden states, as `Decoder` does: it is `head` of `hidden`."""

    def hidden(
        self, tokens: Tensor, state: Any, /, *, valid: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """As the step itself, but hidden states (N, T, C)."""
        ...

    def head(self, h: Tensor, /) -> Tensor:
        """Hidden states (N, T, C) to logits (N, T, V)."""
        ...


def shown(step: Step, who: str) -> Shown:
    """The step, which must show its hidden states.

    Args:
        who: the strategy that asks for them.

    Raises:
        InputError: it shows none.
    """
    if not isinstance(step, Shown):
        raise InputError(
            f"the strategy {who} compares hidden states, and this step shows none; give the "
            "decoder itself (model.decoder), or what has `hidden` and `head` as well; with a "
            "pointer, whose tokens are not all made of hidden states, take another strategy"
        )
    return step


def prefill(
    step: Step, prompts: Sequence[Sequence[int]], state: Any, device: torch.device | str
) -> tuple[Tensor, Any]:
    """Reads prompts of any lengths.

    Args:
        step: the model.
        prompts: ids, one or more of each row.
        state: what the model has read before, of as many rows; None for nothing.
        device: where the tokens are to lie.

    Returns:
        Logits (N, V) for the token after each prompt, and the state after them.

    Raises:
        InputError: there is no prompt, or one is empty.
    """
    tokens, lengths = padded(prompts, device)
    last = lengths - 1
    longest = tokens.shape[1]
    ragged = int(lengths.min()) < longest
    result = None
    # logits are made only of the last tokens, if the step can do that
    shows = isinstance(step, Shown)
    read = step.hidden if shows else step
    for low in range(0, longest, PIECE):
        piece = tokens[:, low : low + PIECE]
        places = torch.arange(low, low + piece.shape[1], device=device)
        valid = places <= last[:, None] if ragged else None
        told, state = read(piece, state, valid=valid)
        # where the prompt goes on, a later piece puts its own in this place
        slots = (last - low).clamp(0, piece.shape[1] - 1)
        ends = told[torch.arange(len(prompts), device=device), slots]
        result = ends if result is None else torch.where((last >= low)[:, None], ends, result)
    assert result is not None
    return (step.head(result[:, None])[:, 0] if shows else result), state


def padded(prompts: Sequence[Sequence[int]], device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Prompts as one tensor, with zeros after shorter ones, and their lengths.

    Returns:
        (N, T) and (N,), int64.

    Raises:
        InputError: there is no prompt, or one is empty.
    """
    if not prompts:
        raise InputError("there is no prompt: decoding needs one row or more")
    lengths = [len(prompt) for prompt in prompts]
    if 0 in lengths:
        raise InputError(
            f"row {lengths.index(0)} has an empty prompt; begin it with the start symbol"
        )
    longest = max(lengths)
    rows = [[*prompt, *[0] * (longest - len(prompt))] for prompt in prompts]
    return (
        torch.tensor(rows, dtype=torch.int64, device=device),
        torch.tensor(lengths, device=device),
    )
