"""The encoder: a stack whose layers look both ways, over a sequence that is there as a whole.

    h = model(tokens, valid=valid)

With the positions `sinusoidal` and norms after the residuals it is that of 1706.03762, section 3.1.
It carries nothing from one call to the next.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from torch import Tensor

from longspan.compat import refuse
from longspan.errors import ConfigError, Conflict, InputError
from longspan.mixing import Layer
from longspan.models.stack import Stack, StackConfig
from longspan.models.vocabulary import Embedding, VocabularyConfig, check_tokens
from longspan.patterns.full import Full
from longspan.slots import Pattern, Places


@dataclass(frozen=True, kw_only=True)
class EncoderConfig(StackConfig):
    """What an encoder is made of: a stack that looks both ways, and

    Attributes:
        vocabulary: the embedding; tying is for whoever puts a `Head` on it.
    """

    pattern: Pattern = field(default_factory=Full)
    vocabulary: VocabularyConfig = field(default_factory=VocabularyConfig)

    def conflicts(self) -> list[Conflict]:
        causal = {
            layer.pattern.name: None for _, layer, _ in self.each_layer() if layer.pattern.causal
        }
        found = [
            Conflict(
                "E1",
                f"pattern='{name}' hides what comes after a token; an encoder reads both ways.",
                "Use pattern 'full' or one with causal=false, or a Decoder.",
            )
            for name in causal
        ]
        return super().conflicts() + found

    def layer(self, index: int) -> Layer:
        # what a memory covers is no matter where nothing is streamed
        return replace(super().layer(index), exact=False)


class Encoder(Stack):
    """Tokens, or vectors, to hidden states that know of the whole sequence.

    Args:
        config: what it is made of.
        size: V, tokens in the vocabulary; None for an encoder of vectors, which has no embedding.

    Raises:
        IncompatibleConfig: choices that exclude each other, all of them at once.
    """

    def __init__(self, config: EncoderConfig, size: int | None = None) -> None:
        refuse(config.conflicts(), f"layers 0-{config.layers - 1}")
        if size is not None and size < 1:
            raise ConfigError(f"size must be 1 or more, or None for vectors, not {size}")
        super().__init__(config)
        self.config, self.size = config, size
        self.embedding = None if size is None else Embedding(config.vocabulary, size, config.width)
        self.entry = config.entry()
        self.initialise()

    def forward(
        self,
        tokens: Tensor,
        *,
        valid: Tensor | None = None,
        starts: Tensor | None = None,
        marked: Tensor | None = None,
        added: Tensor | None = None,
    ) -> Tensor:
        """Hidden states of whole sequences of tokens.

        Args:
            tokens: (B, T) int64.
            valid: (B, T) bool, marks real tokens (right padding is False).
            starts: (B, T) bool, marks where a document begins; documents in one row do not see
                each other, and each counts its positions from 0.
            marked: (B, T) bool, tokens that see all and that all see beside those that the pattern
                names itself; for a pattern that marks tokens.
            added: (B, T, C), what is added to the embeddings: of each token's kind, say.

        Returns:
            (B, T, C). What stands at padding is finite and means nothing.

        Raises:
            InputError: tokens of another shape, dtype or vocabulary, or an encoder of vectors.
        """
        if self.embedding is None or self.size is None:
            raise InputError(
                "this encoder was made for vectors and has no embedding; call encode(x), or make "
                "it with the vocabulary's size"
            )
        check_tokens(tokens, self.size)
        x = self.embedding(tokens)
        return self._encode(x if added is None else x + added, tokens, valid, starts, marked)

    def encode(
        self,
        x: Tensor,
        *,
        valid: Tensor | None = None,
        starts: Tensor | None = None,
        marked: Tensor | None = None,
    ) -> Tensor:
        """As `forward`, but of vectors: frames, patches, or tokens that were embedded elsewhere.

        Args:
            x: (B, T, C), before positions are added.
            valid, starts, marked: as in `forward`.

        Raises:
            InputError: `x` of another shape, or numbers that are no floats.
        """
        width = self.config.width
        if x.dim() != 3 or x.shape[1] == 0 or x.shape[2] != width:
            raise InputError(f"x must be (B, T, {width}) with T ≥ 1, not {tuple(x.shape)}")
        if not x.is_floating_point():
            raise InputError(f"x must be floats, not {x.dtype}; tokens go to the encoder itself")
        return self._encode(x, None, valid, starts, marked)

    def _encode(
        self,
        x: Tensor,
        tokens: Tensor | None,
        valid: Tensor | None,
        starts: Tensor | None,
        marked: Tensor | None,
    ) -> Tensor:
        state = self.begin(x.shape[0], x)
        # also in training: it has no segments, so nothing is opened
        places, clock = Places.of(state.next, x.shape[1], valid, starts)
        places = places.marking(marked, [layer.pattern for _, layer, _ in self.config.each_layer()])
        if tokens is not None and self.reads is not None:
            places, _ = places.reading(tokens, state.last, clock)
        return self.through(self.placed(x, places), state.layers, places)[0]
