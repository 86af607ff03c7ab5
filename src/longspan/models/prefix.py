"""A decoder that reads before it writes: the source is the beginning of the text that it goes on.

What an encoder and a decoder do with two stacks (`encoder_decoder.py`) one stack does here, with
whatever memory it carries: a source of any length is read segment by segment, in constant memory if
the memory is, and what is written asks nothing but that memory.
"""

from __future__ import annotations

from torch import Tensor, nn

from longspan.models.cross import check_source
from longspan.models.decoder import Decoder, DecoderConfig
from longspan.models.vocabulary import Head
from longspan.state import State


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
    def head(self) -> Head:
        """From hidden states to scores of tokens."""
        return self.decoder.head

    def encode(self, source: Tensor, valid: Tensor | None = None) -> State:
        """Reads a source, and gives the state from which to decode.

        In training it reads segment by segment, as one call of training is one segment.

        Args:
            source: (B, S) int64.
            valid: (B, S) bool, marks real tokens (right padding is False).

        Raises:
            InputError: a source of another shape, dtype or vocabulary, or a row without a token.
        """
        if valid is not None:
            check_source(source, valid)
        segment = self.config.segment
        step = segment if self.training and segment > 1 else source.shape[1]
        state = None
        for low in range(0, source.shape[1], step):
            piece = slice(low, low + step)
            real = None if valid is None else valid[:, piece]
            _, state = self.decoder.hidden(source[:, piece], state, valid=real)
        assert state is not None
        return state

    def decode(
        self, target: Tensor, state: State, *, valid: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Logits (B, T, V) for the token after each further token (B, T) of the target."""
        return self.decoder(target, state, valid=valid)

    def hidden(
        self, target: Tensor, state: State, *, valid: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """As `decode`, but (B, T, C) hidden states, for losses that never make (B, T, V)."""
        return self.decoder.hidden(target, state, valid=valid)
