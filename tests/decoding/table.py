"""A model that looks its logits up: in a table, by the last two tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Last:
    """The state: (N,) int64, each row's last token but one of those to come; V for none yet."""

    token: Tensor

    def select(self, rows: Tensor) -> Last:
        return Last(self.token[rows])


@dataclass(frozen=True)
class Table:
    """A step over (V + 1, V, V) logits: by the token before, the token, and the next one."""

    logits: Tensor

    @staticmethod
    def drawn(size: int, seed: int, *, levels: int = 0, scale: float = 3.0) -> Table:
        """Random logits in float32; whole numbers from 0 to `levels`, full of ties, if given."""
        generator = torch.Generator().manual_seed(seed)
        shape = (size + 1, size, size)
        if levels:
            return Table(torch.randint(0, levels + 1, shape, generator=generator).float())
        return Table(torch.randn(shape, generator=generator) * scale)

    @property
    def size(self) -> int:
        return self.logits.shape[1]

    def __call__(
        self, tokens: Tensor, state: Last | None, /, *, valid: Tensor | None = None
    ) -> tuple[Tensor, Last]:
        if state is None:
            state = Last(torch.full((len(tokens),), self.size))
        before = torch.cat([state.token[:, None], tokens[:, :-1]], 1)
        both = torch.cat([state.token[:, None], tokens], 1)
        counts = torch.full((len(tokens),), tokens.shape[1]) if valid is None else valid.sum(1)
        last = both.gather(1, counts[:, None])[:, 0]
        return self.logits[before, tokens], Last(last)

    def after(self, text: list[int]) -> Tensor:
        """(V,) logits after a whole text."""
        before = text[-2] if len(text) > 1 else self.size
        return self.logits[before, text[-1]]


def ragged(rows: int, longest: int, size: int, seed: int) -> list[list[int]]:
    """Prompts of 1 to `longest` tokens, none of them token 0."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest + 1, (rows,), generator=generator).tolist()
    return [torch.randint(1, size, (n,), generator=generator).tolist() for n in lengths]
