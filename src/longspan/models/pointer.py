"""A pointer: the next token may be one of the source, as it stands there (1704.04368).

    P(w) = g · P_vocabulary(w) + (1 - g) · Σ a_j over the places j of the source where w stands

Names and numbers are copied so that the vocabulary hardly ever sees; a small model that must make
them out of hidden states names the wrong ones. What a token may be taken from, keys of the source
and its tokens, is state like all that is read of it (`State.sources`, the last).

Differs from the paper: its decoder has one attention, whose weights are the pointer's as well; here
layers and heads have many, so that the pointer compares by itself, scaled products of the last
hidden state and what the encoder gave. g is told by that hidden state alone, which has taken in
what the paper adds to it. With subwords no word of a source lies outside of the vocabulary, which
therefore does not grow.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from longspan.errors import StateError
from longspan.models.branches import plain
from longspan.models.cross import Alignment, check_source
from longspan.models.decoder import Decoder
from longspan.state import Carried, State


@dataclass(frozen=True)
class Pointed(Carried, kind="pointed"):
    """What a pointer may point at.

    Attributes:
        k: (B, S, C) keys.
        tokens: (B, S) int64.
        valid: (B, S) bool, real tokens.
    """

    k: Tensor
    tokens: Tensor
    valid: Tensor

    def reset(self, rows: Tensor) -> Pointed:
        # another document is written about the same source
        return self


class Pointer(nn.Module):
    """Hidden states (B, T, C) and a source to how likely each token is, copied or not.

    Args:
        dim: C, width of the hidden states, of queries and of keys.
        source: width of what the encoder gives.
    """

    def __init__(self, dim: int, source: int) -> None:
        super().__init__()
        self.dim = dim
        self.q = nn.Linear(dim, dim, bias=False)
        self.k = nn.Linear(source, dim, bias=False)
        self.gate = nn.Linear(dim, 1)
        nn.init.normal_(self.q.weight, std=dim**-0.5)
        nn.init.normal_(self.k.weight, std=source**-0.5)
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)

    def read(self, encoded: Tensor, tokens: Tensor, valid: Tensor | None = None) -> Pointed:
        """What may be pointed at: tokens (B, S) int64, of which the encoder gave (B, S, C')."""
        return Pointed(self.k(encoded), tokens, check_source(encoded, valid))

    def weights(self, h: Tensor, source: Pointed) -> Tensor:
        """a: (B, T, S), at least float32; each token's sum to 1."""
        scores = _exact(self.q(h) @ source.k.mT * self.dim**-0.5)
        return scores.masked_fill(~source.valid[:, None], -torch.inf).softmax(-1)

    def forward(self, h: Tensor, source: Pointed, logits: Tensor) -> Tensor:
        """Log-probabilities (B, T, V), at least float32, of what the logits say and of copies."""
        a, gate = self.weights(h, source), _exact(self.gate(h))
        copied = a.new_zeros(logits.shape)
        copied.scatter_add_(-1, source.tokens[:, None].expand_as(a), a)
        written = _exact(logits).log_softmax(-1) + logsigmoid(gate)
        return torch.logaddexp(written, _log(copied) + logsigmoid(-gate))

    def nll(self, h: Tensor, source: Pointed, targets: Tensor, written: Tensor) -> Tensor:
        """Negative log-likelihood (B, T) in nats of targets (B, T) int64, without (B, T, V).

        Args:
            h: (B, T, C).
            source: what may be pointed at.
            targets: the tokens.
            written: (B, T) their negative log-likelihood by the vocabulary alone.
        """
        same = source.tokens[:, None] == targets[..., None]
        copied = _log((self.weights(h, source) * same).sum(-1))
        gate = _exact(self.gate(h))[..., 0]
        return -torch.logaddexp(logsigmoid(gate) - written, logsigmoid(-gate) + copied)


class Pointing:
    """The step of a decoder with a pointer, for decoding: log-probabilities in place of logits.

    Args:
        decoder: a step that shows its hidden states (`hidden`, `head`).
        pointer: what points.
    """

    def __init__(self, decoder: Decoder, pointer: Pointer) -> None:
        self.decoder, self.pointer = decoder, pointer

    def __call__(
        self, tokens: Tensor, state: State, /, *, valid: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Log-probabilities (B, T, V) of the token after each, and the state.

        Raises:
            StateError: a state without a source, or of another model.
        """
        h, source, state = self._hidden(tokens, state, valid)
        return self._pointed(h, source), state

    def align(
        self, tokens: Tensor, state: State, /, *, valid: Tensor | None = None
    ) -> tuple[Tensor, State, Alignment]:
        """As the step itself, and where the pointer pointed before each token was chosen."""
        h, source, state = self._hidden(tokens, state, valid)
        weights = self.pointer.weights(_beside(h, source), source).view(*h.shape[:2], -1)
        real = source.valid.repeat_interleave(len(h) // len(source.valid), 0)
        return self._pointed(h, source), state, Alignment((weights[:, None],), real)

    def _pointed(self, h: Tensor, source: Pointed) -> Tensor:
        logits = self.decoder.head(h)
        pointed = self.pointer(_beside(h, source), source, _beside(logits, source))
        return pointed.view(logits.shape)

    def _hidden(
        self, tokens: Tensor, state: State, valid: Tensor | None
    ) -> tuple[Tensor, Pointed, State]:
        if valid is not None or tokens.shape[1] > 1:
            state = plain(state)
        before, source = apart(state)
        if source.k.shape[-1] != self.pointer.dim:
            raise StateError("the state has keys of another width to point at: another model's")
        h, after = self.decoder.hidden(tokens, before, valid=valid)
        return h, source, replace(after, sources=state.sources)


def apart(state: State) -> tuple[State, Pointed]:
    """What the decoder's layers know of a state, and what is pointed at.

    Raises:
        StateError: there is nothing to point at.
    """
    *sources, last = state.sources or (None,)
    if not isinstance(last, Pointed):
        raise StateError(
            "the state has nothing to point at, and this model points; begin with what "
            "encode(…) gives"
        )
    return replace(state, sources=tuple(sources)), last


def _beside(values: Tensor, source: Pointed) -> Tensor:
    """(B, T, …), or (F · K, 1, …) of K branches of each source as (F, K, …)."""
    return values.reshape(len(source.k), -1, values.shape[-1])


def _exact(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _log(chances: Tensor) -> Tensor:
    # of a token that the source has not, the logarithm would have no gradient
    return chances.clamp_min(torch.finfo(chances.dtype).tiny).log()
