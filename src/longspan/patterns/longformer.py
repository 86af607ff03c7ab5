"""Longformer: a window, and a few tokens that see all and that all see (2004.05150, section 3.1).

What the marked tokens see they see through queries, keys and values of their own maps, which start
out as copies of the others. All other tokens meet them, and each other in the window, through the
common maps. An encoder marks what the task asks with: the first token of a text to be classified,
the tokens of a question (`Encoder.forward` takes marks of its own for what differs from text to
text).

Causal, which the paper's model is not (its decoder has no global tokens): a marked token sees all
before it, and all after it see the marked token, however far back. So the start of every paragraph
can sum up what came before. A stream needs a memory that keeps everything.

The windows of the paper differ from layer to layer: `model.stack` gives each layer its own. They
are not dilated here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from longspan.errors import ConfigError, InputError
from longspan.slots import Maps, Near, Pattern, Places
from longspan.state import EMPTY


@dataclass(frozen=True)
class Longformer(Pattern, name="longformer"):
    """Keys of a window, and tokens that are named by place, by what they are, or by what precedes.

    Attributes:
        width: W, keys of the window, the query's own among them: W - 1 back, and as many ahead if
            it is not causal. Hugging Face's attention_window is 2 (W - 1).
        positions: of tokens that are marked, in every document; the first one by default.
        tokens: ids of tokens that are marked wherever they stand.
        after: sequences of ids; what directly follows one is marked. In bytes [[10, 10]], an empty
            line, marks the starts of paragraphs but the first, which position 0 marks.
        causal: false for an encoder.
    """

    marks: ClassVar[bool] = True

    width: int
    positions: tuple[int, ...] = (0,)
    tokens: tuple[int, ...] = ()
    after: tuple[tuple[int, ...], ...] = ()
    causal: bool = True

    def __post_init__(self) -> None:
        problems = []
        if self.width < 1:
            problems.append(f"pattern.width must be 1 or more, not {self.width}")
        if not all(self.after):
            problems.append("pattern.after must not have an empty sequence in it")
        each = {
            "positions": self.positions,
            "tokens": self.tokens,
            "after": [token for sequence in self.after for token in sequence],
        }
        problems += [
            f"pattern.{name} must be 0 or more each, not {min(values)}"
            for name, values in each.items()
            if values and min(values) < 0
        ]
        if problems:
            raise ConfigError(problems)

    @property
    def reads(self) -> int | None:
        return max(map(len, self.after), default=0) if self.tokens or self.after else None

    def build(self, dim: int, heads: int, kv_heads: int, head_dim: int, bias: bool = False) -> Maps:
        return Maps(dim, heads, kv_heads, head_dim, bias)

    def first(self, pos: Tensor, opened: Tensor | None) -> Tensor:
        return torch.full_like(pos, EMPTY + 1)

    def near(self, opened: Tensor | None = None) -> tuple[Near, ...]:
        return (Near(self.width - 1, 0 if self.causal else self.width - 1),)

    def mask(self, q_pos: Tensor, k_pos: Tensor, opened: Tensor | None = None) -> Tensor:
        back = q_pos[:, :, None] - k_pos[:, None, :]
        return (back < self.width) & (back > (-1 if self.causal else -self.width))

    def marked(self, places: Places) -> Tensor:
        marks = torch.isin(places.pos, _ids(self.positions, places.pos))
        if places.marked is not None:
            marks = marks | places.marked
        if places.tokens is not None:
            marks = marks | self._named(places.pos, places.tokens)
        elif self.reads is not None and places.marked is None:
            raise InputError(
                "pattern 'longformer' names tokens by what they are (tokens, after), which is not "
                "known here; give marked=…, or use a Decoder or an Encoder of tokens"
            )
        return marks if places.valid is None else marks & places.valid

    def _named(self, pos: Tensor, tokens: Tensor) -> Tensor:
        """(B, T) bool, what is marked among `tokens` (B, N + T) for what it is or follows."""
        length = pos.shape[1]
        before = tokens.shape[1] - length
        marks = torch.isin(tokens[:, before:], _ids(self.tokens, pos))
        for sequence in self.after:
            size = len(sequence)
            preceding = tokens.unfold(1, size, 1)[:, before - size :][:, :length]
            same = (preceding == _ids(sequence, pos)).all(2)
            # what another document ended with is followed by nothing
            marks = marks | same & (pos >= size)
        return marks


def _ids(ids: tuple[int, ...], like: Tensor) -> Tensor:
    return torch.tensor(ids, dtype=like.dtype, device=like.device)
