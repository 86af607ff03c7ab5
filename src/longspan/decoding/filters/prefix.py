"""The text begins with given words, and goes on freely.

Any tokens may spell them, also one that says more than their end, so that a text goes on as the
model would have it. One beginning for all rows; what rows begin with each by itself is a prompt.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from longspan.decoding.search import Acting, Filter, Pieces
from longspan.errors import ConfigError, DecodingError, InputError


@dataclass(frozen=True)
class Prefix(Filter, name="prefix"):
    """Bans what does not go on with `text`, until it is written.

    Attributes:
        text: what the text begins with.
    """

    alone: ClassVar[bool] = True

    text: str

    def __post_init__(self) -> None:
        if not self.text:
            raise ConfigError("prefix must not be empty: every text begins with it; leave it out")

    def begin(self, pieces: Pieces | None, end: int | None) -> Acting:
        if pieces is None:
            raise InputError("a prefix needs the bytes of a token: piece=codec.piece")
        return _Following(self.text.encode("utf-8", "surrogateescape"), pieces)

    def __call__(self, logits: Tensor, tokens: Tensor) -> Tensor:
        raise NotImplementedError("it acts on bytes: `begin` gives what acts")


@dataclass
class _Following:
    """What follows the rows of one search.

    Attributes:
        lengths: (V,) int64, bytes of each token.
        allowed: by bytes that are written, (V,) bool, what may come next; made at the first call.
    """

    text: bytes
    piece: Callable[[int], bytes]
    lengths: Tensor | None = None
    allowed: list[Tensor] = field(default_factory=list)

    def __call__(self, logits: Tensor, tokens: Tensor) -> Tensor:
        if self.lengths is None:
            self._spell(logits.shape[-1], logits.device)
        assert self.lengths is not None
        done = self.lengths[tokens.clamp(min=0)].masked_fill(tokens < 0, 0).sum(1)
        if bool((done >= len(self.text)).all()):
            return logits
        free = torch.ones_like(self.allowed[0])
        rows = [free if n >= len(self.text) else self.allowed[n] for n in done.tolist()]
        return logits.masked_fill(~torch.stack(rows), -torch.inf)

    def _spell(self, size: int, device: torch.device) -> None:
        """Which tokens may come where, from the end: what cannot be spelled out is no way."""
        text = self.text
        pieces = [self.piece(token) for token in range(size)]
        self.lengths = torch.tensor([len(piece) for piece in pieces], device=device)
        known: defaultdict[bytes, list[int]] = defaultdict(list)
        for token, piece in enumerate(pieces):
            if piece:
                known[piece].append(token)
        longest = max(map(len, known), default=0)
        found: list[list[int]] = [[] for _ in text]
        for place in reversed(range(len(text))):
            rest = text[place:]
            for length in range(1, min(longest, len(rest) - 1) + 1):
                if found[place + length]:
                    found[place] += known.get(rest[:length], [])
            if len(rest) <= longest:
                found[place] += [t for p, each in known.items() if p.startswith(rest) for t in each]
        if not found[0]:
            shown = text.decode(errors="replace")
            raise DecodingError(f"no tokens of the vocabulary spell the prefix {shown!r}")
        for tokens in found:
            mask = torch.zeros(size, dtype=torch.bool)
            mask[tokens] = True
            self.allowed.append(mask.to(device))
