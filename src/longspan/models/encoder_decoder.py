"""Encoder and decoder: one sequence is read as a whole, another is written about it.

    logits, state = model(source, target, source_valid=…)      # all at once, in training
    state = model.encode(source, source_valid)                 # or read once
    logits, state = model.decode(tokens, state)                # and write in any pieces

With norms after the residuals and sinusoidal positions it is that of 1706.03762. Layers of the
decoder may be recurrent (`mixer: lstm`): with the score `additive` or `dot` that is a descendant of
Bahdanau's and Luong's models.

Differs from these: Bahdanau's decoder asks with its state before the word (1409.0473), and both
feed what they were told back into the recurrence; here a layer first takes in the word, then asks,
and what it was told goes to the next layer.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from longspan.compat import refuse
from longspan.errors import ConfigError, Conflict, InputError
from longspan.models.cross import Alignment, CrossConfig, check_source
from longspan.models.decoder import Decoder, DecoderConfig
from longspan.models.encoder import Encoder, EncoderConfig
from longspan.models.pointer import Pointer, Pointing, apart
from longspan.state import State


@dataclass(frozen=True, kw_only=True)
class EncoderDecoderConfig:
    """What an encoder and a decoder are made of, and what is between them.

    Attributes:
        encoder, decoder: the two stacks. Their widths may differ.
        cross: how the decoder reads what the encoder gives.
        shared: both have one embedding (1706.03762, section 3.4; with `tied` vocabularies the
            output has it as well), and so one vocabulary and one width.
        pointer: tokens may be copied from the source (1704.04368, `models/pointer.py`), which must
            be tokens of the same vocabulary.
    """

    encoder: EncoderConfig
    decoder: DecoderConfig
    cross: CrossConfig = field(default_factory=CrossConfig)
    shared: bool = False
    pointer: bool = False

    def __post_init__(self) -> None:
        encoder, decoder, problems = self.encoder, self.decoder, []
        if self.cross.source not in (None, encoder.width):
            problems.append(
                f"cross.source={self.cross.source} is not encoder.width={encoder.width}; "
                "leave it out"
            )
        if self.shared and encoder.width != decoder.width:
            problems.append(
                f"shared embeddings need one width, not encoder.width={encoder.width} and "
                f"decoder.width={decoder.width}"
            )
        if self.shared and encoder.vocabulary != decoder.vocabulary:
            problems.append(
                "shared embeddings need one vocabulary; make encoder.vocabulary equal to "
                "decoder.vocabulary"
            )
        if problems:
            raise ConfigError(problems)

    def conflicts(self) -> list[Conflict]:
        """What the choices say against each other."""
        parts = {
            "encoder": self.encoder.conflicts(),
            "decoder": self.decoder.conflicts(),
            "cross": self.cross.conflicts(self.decoder.layer(0)),
        }
        return [
            replace(conflict, reason=f"{part}: {conflict.reason}")
            for part, conflicts in parts.items()
            for conflict in conflicts
        ]


class EncoderDecoder(nn.Module):
    """A source and a target to logits for the target's next token.

    Args:
        config: what it is made of.
        source: tokens in the source's vocabulary; None if the source is vectors.
        target: V, tokens in the target's vocabulary.

    Raises:
        ConfigError: a shared embedding of two vocabularies, or a pointer from one to the other.
        IncompatibleConfig: choices that exclude each other, all of them at once.
    """

    def __init__(self, config: EncoderDecoderConfig, source: int | None, target: int) -> None:
        refuse(config.conflicts())
        if config.shared and source != target:
            raise ConfigError(
                f"shared embeddings need one vocabulary, not source={source} and target={target}"
            )
        if config.pointer and source != target:
            raise ConfigError(
                f"a pointer copies within one vocabulary, not from source={source} to "
                f"target={target}; make model.pointer false"
            )
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.encoder, source)
        cross = replace(config.cross, source=config.encoder.width)
        self.decoder = Decoder(config.decoder, target, cross=cross)
        if config.shared:
            self.encoder.embedding = self.decoder.embedding
        self.pointer = (
            Pointer(config.decoder.width, config.encoder.width) if config.pointer else None
        )

    @property
    def step(self) -> Decoder | Pointing:
        """What goes on from `encode`, token by token: what `longspan.decode` asks for."""
        return self.decoder if self.pointer is None else Pointing(self.decoder, self.pointer)

    def forward(
        self,
        source: Tensor,
        target: Tensor,
        *,
        source_valid: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """Logits for the token after each token of the target.

        Args:
            source: (B, S) int64 tokens, or (B, S, C) vectors of the encoder's width.
            target: (B, T) int64.
            source_valid: (B, S) bool, marks real tokens (right padding is False).
            valid: (B, T) bool, the same of the target.

        Returns:
            (B, T, V): logits, or log-probabilities if the output is adaptive or there is a pointer;
            and the state after these tokens, from which `decode` goes on.

        Raises:
            InputError: a source or target of another shape, dtype or vocabulary, or a row of the
                source without a token.
        """
        return self.decode(target, self.encode(source, source_valid), valid=valid)

    def encode(self, source: Tensor, valid: Tensor | None = None) -> State:
        """Reads a source, and gives the state from which to decode.

        Args:
            source: (B, S) int64 tokens, or (B, S, C) vectors.
            valid: (B, S) bool, marks real tokens (right padding is False).
        """
        if source.dim() < 2:
            raise InputError(
                f"source must be (B, S) tokens or (B, S, C) vectors, not {tuple(source.shape)}"
            )
        if valid is not None:
            check_source(source, valid)
        vectors = source.is_floating_point()
        read = self.encoder.encode if vectors else self.encoder.forward
        encoded = read(source, valid=valid)
        state = self.decoder.reading(encoded, valid)
        if self.pointer is None:
            return state
        return replace(state, sources=(*state.sources, self.pointer.read(encoded, source, valid)))

    def decode(
        self, target: Tensor, state: State, *, valid: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Logits for the token after each further token of the target; see `forward`.

        In evaluation the same tokens in pieces of any length give the same.

        Raises:
            StateError: a state without a source, or of another model or batch.
        """
        return self.step(target, state, valid=valid)

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
        """Negative log-likelihood (N,) in nats of the N real targets, row by row.

        Never makes (B, T, V). A decoder whose memory is written where a segment ends is taught
        segment by segment.

        Args:
            source, source_valid: as for `forward`.
            inputs: (B, T) int64, the token before each target.
            targets: (B, T) int64.
            valid: (B, T) bool, marks real targets (right padding is False).
            smoothing: of the targets (`Head.nll`), of those that the vocabulary makes.
        """
        state = self.encode(source, source_valid)
        state, pointed = (state, None) if self.pointer is None else apart(state)
        h, _ = self.decoder.segmentwise(inputs, state, valid=valid)
        real = torch.ones_like(targets, dtype=torch.bool) if valid is None else valid
        losses = self.decoder.head.nll(h[real], targets[real], smoothing)
        if self.pointer is None or pointed is None:
            return losses
        written = losses.new_zeros(targets.shape).masked_scatter(real, losses)
        return self.pointer.nll(h, pointed, targets, written)[real]

    def align(
        self, target: Tensor, state: State, *, valid: Tensor | None = None
    ) -> tuple[Tensor, State, Alignment]:
        """As `decode`, and what each token looked at in the source (`Decoder.align`).

        A pointer's own weights where there is one.
        """
        return self.step.align(target, state, valid=valid)
