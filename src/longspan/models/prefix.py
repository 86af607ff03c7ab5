"""A decoder that reads before it writes: the source is the beginning of the text that it goes on.

What an encoder and a decoder do with two stacks (`encoder_decoder.py`) one stack does here, with
whatever memory it carries: a source of any length is read segment by segment, in constant memory if
the memory is, and what is written asks nothing but that memory.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from longspan.models.cross import check_source
from longspan.models.decoder import Decoder, DecoderConfig
from longspan.state import State, take


class Prefix(nn.Module):
    """A decoder with the face of `EncoderDecoder`.

    Args:
        config: what the decoder is made of.
        size: V, tokens in the vocabulary of sources and targets.

    Raises:
        IncompatibleConfig: choices that exclude each other, all of them at once.
    """

    def __init__(self, config: DecoderConfig, size: int) -> None:
        super().__init__()
        self.decoder = Decoder(config, size)

    @property
    def config(self) -> DecoderConfig:
        """What the decoder is made of."""
        return self.decoder.config

    @property
    def step(self) -> Decoder:
        """What goes on from `encode`, token by token: what `longspan.decode` asks for."""
        return self.decoder

    def encode(self, source: Tensor, valid: Tensor | None = None) -> State:
        """Reads a source, and gives the state from which to decode.

        Args:
            source: (B, S) int64.
            valid: (B, S) bool, marks real tokens (right padding is False).

        Raises:
            InputError: a source of another shape, dtype or vocabulary, or a row without a token.
        """
        if valid is not None:
            check_source(source, valid)
        return self.decoder.hidden(source, valid=valid)[1]

    def decode(
        self, target: Tensor, state: State, *, valid: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Logits (B, T, V) for the token after each further token (B, T) of the target."""
        return self.decoder(target, state, valid=valid)

    def nll(
        self,
        source: Tensor,
        inputs: Tensor,
        targets: Tensor,
        *,
        source_valid: Tensor | None = None,
        valid: Tensor | None = None,
        smoothing: float = 0.0,
    ) -> Tensor:
        """Negative log-likelihood (N,) of the N real targets, as `EncoderDecoder.nll`."""
        h = self.taught(source, inputs, source_valid=source_valid, valid=valid)
        real = torch.ones_like(targets, dtype=torch.bool) if valid is None else valid
        return self.decoder.head.nll(h[real], targets[real], smoothing)

    def taught(
        self,
        source: Tensor,
        target: Tensor,
        *,
        source_valid: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> Tensor:
        """Hidden states (B, T, C) of targets that follow their sources without a gap.

        Sources and targets of a row are joined, so that segments are where they are when it writes.

        Args:
            source: (B, S) int64.
            target: (B, T) int64.
            source_valid, valid: (B, S) and (B, T) bool, mark real tokens (right padding is False).
        """
        batch, read = source.shape
        if source_valid is not None:
            check_source(source, source_valid)
        lengths = _lengths(source, source_valid)
        written = _lengths(target, valid)
        slots = torch.arange(int((lengths + written).max()), device=source.device)
        own = slots < lengths[:, None]
        after = (slots - lengths[:, None]).clamp(0, target.shape[1] - 1)
        before = slots.clamp(max=read - 1).expand(batch, -1)
        tokens = torch.where(own, source.gather(1, before), target.gather(1, after))
        real = slots < (lengths + written)[:, None]
        h, _ = self.decoder.segmentwise(tokens, valid=None if bool(real.all()) else real)
        places = lengths[:, None] + torch.arange(target.shape[1], device=source.device)
        return take(h, places.clamp(max=h.shape[1] - 1))


def _lengths(tokens: Tensor, valid: Tensor | None) -> Tensor:
    if valid is None:
        return torch.full((len(tokens),), tokens.shape[1], device=tokens.device)
    return valid.sum(1)
