"""How much of the source a text has looked at (1609.08144, equation 14).

    cp = beta · sum over i of log(min(sum over j of p_ij, 1))

p_ij is the attention that the j-th written token paid to the i-th of the source, here the mean over
the heads of the last layer (their model has one head). A source that was looked at nowhere counts
most. What each row has looked at travels in its state, so that beams take it along.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from longspan.decoding.step import Step
from longspan.errors import InputError
from longspan.models.cross import Alignment


@runtime_checkable
class Aligned(Step, Protocol):
    """A step that tells what it looked at, as a `Decoder` that reads a source does."""

    def align(
        self, tokens: Tensor, state: Any, /, *, valid: Tensor | None = None
    ) -> tuple[Tensor, Any, Alignment]:
        """As the step itself, and the weights."""
        ...


@dataclass(frozen=True)
class Covered:
    """A state, and what the text has looked at.

    Attributes:
        state: the model's.
        sums: (N, S) attention that each token of the source got, float32 or wider.
        valid: (N, S) bool, real tokens of the source.
    """

    state: Any
    sums: Tensor
    valid: Tensor

    def select(self, rows: Tensor) -> Covered:
        """These rows, as of `State.select`."""
        return Covered(self.state.select(rows), self.sums[rows], self.valid[rows])

    @property
    def lacking(self) -> Tensor:
        """(N,) the sum of -log(min(attention, 1)) over the source; 0 where all was looked at."""
        # a token that got no attention at all would end the comparison
        least = torch.finfo(self.sums.dtype).tiny
        return -self.sums.clamp(least, 1).log().masked_fill(~self.valid, 0).sum(1)


@dataclass(frozen=True)
class Covering:
    """A step over `Covered` states, or over the model's own at first.

    Attributes:
        step: the model.
        adds: each call's newest token adds to what was looked at; else it begins it anew, as the
            last token of a prompt does, whose attention is that of the first token written.
    """

    step: Aligned
    adds: bool = False

    @staticmethod
    def of(step: Step) -> Covering:
        """Over a model.

        Raises:
            InputError: it tells no attention to a source.
        """
        if not isinstance(step, Aligned):
            raise InputError(
                "a coverage penalty asks for attention to a source, which this step does not tell; "
                "give the decoder itself (model.decoder), or what has `align` as well"
            )
        return Covering(step)

    @property
    def going_on(self) -> Covering:
        """The same, for the tokens that are written."""
        return replace(self, adds=True)

    def __call__(
        self, tokens: Tensor, state: Any, /, *, valid: Tensor | None = None
    ) -> tuple[Tensor, Covered]:
        before = state if isinstance(state, Covered) else None
        inner = state if before is None else before.state
        logits, inner, alignment = self.step.align(tokens, inner, valid=valid)
        last = alignment.weights[-1]
        weights = last.to(torch.promote_types(last.dtype, torch.float32)).mean(1)
        counts = torch.full((len(tokens),), tokens.shape[1], device=tokens.device)
        counts = counts if valid is None else valid.sum(1)
        rows = torch.arange(len(tokens), device=tokens.device)
        sums = weights[rows, (counts - 1).clamp(min=0)]
        if before is not None:
            held = before.sums
            more = held + sums if self.adds else sums
            # a row without a token in this call has looked at nothing
            sums = torch.where((counts > 0)[:, None], more, held)
        return logits, Covered(inner, sums, alignment.valid)
