"""What decoding gives: hypotheses, and on request what was considered on the way to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Fate = Literal["chosen", "kept", "ended", "dropped"]
Finish = Literal["end", "stop", "length"]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A token that was considered as the next one.

    Attributes:
        token: its id.
        log_prob: its log-probability under the model, in nats.
        filtered: the same after the filters; -inf if they ban it.
        fate: what became of it: "chosen"; of beams "kept" (written on), "ended" (its text is
            complete) or "dropped"; "dropped" also of what was not chosen.
        beam: the beam that it continues, counted from 0.
        becomes: the beam that it is at the next step, if it is kept.
        total: of beams, the log-probability of the whole text with it.
        score: of beams, that by which complete texts are compared, as if this one ended here; of
            contrastive search, that by which candidates are.
        penalty: what counts against it in this choice alone.
    """

    token: int
    log_prob: float
    filtered: float
    fate: Fate
    beam: int = 0
    becomes: int | None = None
    total: float | None = None
    score: float | None = None
    penalty: float = 0.0


Considered = tuple[Candidate, ...]
"""The candidates of one step, best first."""


@dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """A text that was written.

    Attributes:
        tokens: its ids, without the token that ended it.
        score: that by which its strategy compares: the sum of `log_probs`, divided for beams by a
            power of their number.
        log_probs: of each token under the model (before filters), in nats; if the text ended by the
            end token, that of the end token is the last.
        finish: what ended it: the "end" token, a "stop" string or the "length".
        cut: bytes at its end that belong to a stop string.
        considered: what was considered at each step, if asked for. Beams of one row share it.
        drafted, accepted: of speculative decoding, tokens that the draft proposed, and how many of
            them were written.
    """

    tokens: tuple[int, ...]
    score: float
    log_probs: tuple[float, ...]
    finish: Finish
    cut: int = 0
    considered: tuple[Considered, ...] = ()
    drafted: int = 0
    accepted: int = 0

    def text(self, piece: Callable[[int], bytes]) -> bytes:
        """The bytes of its tokens, without a stop string.

        Args:
            piece: the bytes of a token (`Codec.piece`).
        """
        content = b"".join(map(piece, self.tokens))
        return content[: len(content) - self.cut]


@dataclass(frozen=True, kw_only=True)
class Written:
    """A token that was written and stays.

    Attributes:
        row: of which row.
        token: its id; that of the end token if that is what ended the text.
        log_prob: under the model, in nats.
        hypothesis: the row's text, if it is complete with this token.
        considered: what was considered, if asked for.
    """

    row: int
    token: int
    log_prob: float
    hypothesis: Hypothesis | None = None
    considered: Considered = ()
