"""What was considered at each step, and why the winner won, as tables for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import exp, inf

from rich.box import ASCII, SIMPLE
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from longspan.decoding.decode import Decoding
from longspan.decoding.hypothesis import Candidate, Considered, Hypothesis

SHOWN = 28
"""Characters of a beam's text that are shown, the newest."""

NUMBERS = {"step", "beam", "model", "after filters", "total", "penalty", "score", "tokens"}
"""Columns that are aligned to the right."""

LISTED = 10
"""Complete texts that are listed."""


@dataclass(frozen=True)
class Explanation:
    """Prints why these texts were written.

    Args:
        found: hypotheses of one row, best first, with what was considered.
        decoding: how they were found.
        piece: the bytes of a token (`Codec.piece`).
        end: the token that ends a text; None for none.
    """

    found: Sequence[Hypothesis]
    decoding: Decoding
    piece: Callable[[int], bytes]
    end: int | None = None

    def print(self, console: Console) -> None:
        """Prints the tables; signs that the terminal cannot show are written out."""
        for each in self._committed(console) if self._commits else self._beams(console):
            console.print(each)

    @property
    def _commits(self) -> bool:
        return self.decoding.strategy.commits

    def _committed(self, console: Console) -> Iterator[RenderableType]:
        (text,) = self.found
        filters = ", ".join(each.name for each in self.decoding.filters)
        scored = any(c.score is not None for considered in text.considered for c in considered)
        names = ["step", "token", "model", *self._after]
        table = _table(console, *names, *(["penalty", "score"] if scored else []), "")
        for number, considered in enumerate(text.considered, 1):
            for place, candidate in enumerate(considered):
                chosen = candidate.fate == "chosen"
                table.add_row(
                    str(number) if not place else "",
                    self._token(candidate.token, console),
                    *self._chances(candidate),
                    *([f"{candidate.penalty:.3f}", _number(candidate.score)] if scored else []),
                    "taken" if chosen else "banned" if candidate.filtered == -inf else "",
                    style="bold" if chosen else None,
                    end_section=place + 1 == len(considered),
                )
        yield table
        strategy = self.decoding.strategy
        how = "taken by its score" if scored else "the likeliest that the filters left"
        how = "drawn by what the filters left" if strategy.draws else how
        yield Text(
            f"Each token was {how} ({filters or 'no filters'}); "
            f"{strategy.name} keeps what it has written. The text: log-probability "
            f"{sum(text.log_probs):.3f} nats in {len(text.log_probs)} tokens, "
            f"ended by {_ended(text)}."
        )

    def _beams(self, console: Console) -> Iterator[RenderableType]:
        best = self.found[0]
        texts: dict[int, tuple[int, ...]] = {0: ()}
        aside: list[tuple[float, float, tuple[int, ...]]] = []
        first = best.considered[0] if best.considered else ()
        # groups begin with beams of their own, and all of them with nothing
        texts |= {candidate.beam: () for candidate in first}
        for number, considered in enumerate(best.considered, 1):
            yield self._step(console, number, considered, texts)
            aside += [
                (c.score, c.total, (*texts[c.beam], c.token))
                for c in considered
                if c.fate == "ended" and c.score is not None and c.total is not None
            ]
            texts = {
                c.becomes: (*texts[c.beam], c.token) for c in considered if c.becomes is not None
            }
        # groups may have found the same
        aside = sorted({text: (score, total, text) for score, total, text in aside}.values())[::-1]
        yield self._complete(console, aside)
        yield Text(self._verdict(aside))

    def _step(
        self,
        console: Console,
        number: int,
        considered: Considered,
        texts: dict[int, tuple[int, ...]],
    ) -> RenderableType:
        penalised = any(candidate.penalty for candidate in considered)
        names = ["beam", "text so far", "token", "model", *self._after, "total", "score"]
        table = _table(console, *names, *(["penalty"] if penalised else []), "")
        for candidate in considered:
            table.add_row(
                str(candidate.beam),
                self._text(texts[candidate.beam], console),
                self._token(candidate.token, console),
                *self._chances(candidate),
                _number(candidate.total),
                _number(candidate.score),
                *([f"{candidate.penalty:.2f}"] if penalised else []),
                _fate(candidate),
                style={"kept": "bold", "ended": "bold"}.get(candidate.fate),
            )
        return Group(Text(f"Step {number}", style="bold"), table)

    def _complete(
        self, console: Console, aside: Sequence[tuple[float, float, tuple[int, ...]]]
    ) -> RenderableType:
        table = _table(console, "", "complete text", "tokens", "total", "score")
        for place, (score, total, text) in enumerate(aside[:LISTED], 1):
            table.add_row(
                str(place),
                self._text(text, console),
                str(len(text)),
                f"{total:.3f}",
                f"{score:.3f}",
                style="bold" if place == 1 else None,
            )
        if len(aside) > LISTED:
            table.add_row("", f"and {len(aside) - LISTED} more", "", "", "")
        return table

    def _verdict(self, aside: Sequence[tuple[float, float, tuple[int, ...]]]) -> str:
        best = self.found[0]
        length = len(best.log_probs)
        (score, total, _), *others = aside
        power = getattr(self.decoding.strategy, "length_penalty", 1.0)
        lacking = total / length**power - score
        uncovered = f" - {lacking:.3f} for what it left out of the source" if lacking > 1e-6 else ""
        said = (
            f"The first won with {total:.3f} / {length}^{power:g}{uncovered} = {score:.3f}, "
            f"ended by {_ended(best)}"
        )
        if not others:
            return f"{said}; no other text was complete."
        return f"{said}; the next of {len(aside)} complete texts is worth {others[0][0]:.3f}."

    @property
    def _after(self) -> list[str]:
        decoding = self.decoding
        return ["after filters"] if decoding.filters or decoding.min_tokens else []

    def _chances(self, candidate: Candidate) -> list[str]:
        both = [_chance(candidate.log_prob), _chance(candidate.filtered)]
        return both[: 1 + len(self._after)]

    def _text(self, tokens: Sequence[int], console: Console) -> Text:
        real = [token for token in tokens if token != self.end]
        shown = _readable(b"".join(map(self.piece, real)), console)
        if len(shown) > SHOWN:
            shown = "..." + shown[3 - SHOWN :]
        return Text(f"'{shown}'" + (" <end>" if len(real) < len(tokens) else ""))

    def _token(self, token: int, console: Console) -> Text:
        return Text("<end>" if token == self.end else f"'{_readable(self.piece(token), console)}'")


def _readable(content: bytes, console: Console) -> str:
    """On one line, and nothing that the terminal cannot show."""
    # repr would choose its quotes by what stands between them
    shown = repr(content.decode("utf-8", "backslashreplace") + "'\"")[1:-4]
    return shown.encode("ascii", "backslashreplace").decode() if _plain(console) else shown


def _plain(console: Console) -> bool:
    return console.options.ascii_only or not console.is_terminal


def _table(console: Console, *columns: str) -> Table:
    table = Table(box=ASCII if _plain(console) else SIMPLE, show_edge=False)
    for name in columns:
        right = name in NUMBERS
        table.add_column(name, justify="right" if right else "left", no_wrap=True)
    return table


def _chance(log_prob: float) -> str:
    return "-" if log_prob == -inf else f"{exp(log_prob):.4f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _fate(candidate: Candidate) -> str:
    return f"beam {candidate.becomes}" if candidate.fate == "kept" else candidate.fate


def _ended(text: Hypothesis) -> str:
    return {"end": "the end token", "stop": "a stop string", "length": "its length"}[text.finish]
