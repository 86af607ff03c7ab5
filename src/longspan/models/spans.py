"""Where in a text an answer stands: scores of its first and of its last token.

An encoder reads question and context as one sequence (1810.04805, section 4.2). Each token's score
as the first and as the last one are linear in its hidden state; that there is no answer is the span
of the symbol before all others (there for SQuAD 2.0, section 4.3). A pattern that marks tokens
marks the question (2004.05150, section 5), so that a long context may be read whole.

Differs from there: to the embeddings is added what kind of token it is, of which a token of the
context that the question has too is one by itself (1704.00051, section 3.2, "exact match"), without
which little is learnt where nothing was before.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from longspan.models.encoder import Encoder, EncoderConfig

KINDS = 3
"""Question, context, and context that the question has too."""


class SpanFinder(nn.Module):
    """An encoder and two scores a token.

    Args:
        config: what the encoder is made of.
        size: V, tokens in the vocabulary.

    Raises:
        IncompatibleConfig: choices that exclude each other, all of them at once.
    """

    def __init__(self, config: EncoderConfig, size: int) -> None:
        super().__init__()
        self.encoder = Encoder(config, size)
        self.kinds = nn.Embedding(KINDS, config.width)
        self.ends = nn.Linear(config.width, 2)
        nn.init.normal_(self.ends.weight, std=config.width**-0.5)
        nn.init.zeros_(self.ends.bias)
        self.marks = any(layer.pattern.marks for _, layer, _ in config.each_layer())

    @property
    def config(self) -> EncoderConfig:
        """What the encoder is made of."""
        return self.encoder.config

    def forward(
        self, tokens: Tensor, kinds: Tensor, legal: Tensor, *, valid: Tensor | None = None
    ) -> Tensor:
        """Scores of each token as the first and as the last one of the answer.

        Args:
            tokens: (B, T) int64.
            kinds: (B, T) int64, 0 of the question, 1 of the context, 2 of the context and in the
                question too.
            legal: (B, T) bool, where an answer may begin and end.
            valid: (B, T) bool, marks real tokens (right padding is False).

        Returns:
            (B, 2, T), at least float32; minus infinity where no answer may stand.

        Raises:
            InputError: tokens of another shape, dtype or vocabulary.
        """
        asked = (kinds == 0) if valid is None else (kinds == 0) & valid
        h = self.encoder(
            tokens, valid=valid, marked=asked if self.marks else None, added=self.kinds(kinds)
        )
        scores = self.ends(h).transpose(1, 2)
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        return scores.masked_fill(~legal[:, None], -torch.inf)


def best_span(scores: Tensor, longest: int) -> tuple[Tensor, Tensor]:
    """The span with the highest sum of its two scores, other than that of no answer.

    Args:
        scores: (B, 2, T), as `SpanFinder` gives them.
        longest: tokens of a span at most.

    Returns:
        (B, 2) int64, first and last token; and (B,) its score less that of no answer.
    """
    none = scores[:, :, 0].sum(1)
    first, last = scores[:, 0, 1:], scores[:, 1, 1:]
    # (B, T, N): spans from each token to itself, to the next, …
    sums = first[:, :, None] + pad(last, (0, longest - 1), value=-torch.inf).unfold(1, longest, 1)
    best, place = sums.flatten(1).max(1)
    begin, more = place // longest, place % longest
    return torch.stack([begin, begin + more], 1) + 1, best - none
