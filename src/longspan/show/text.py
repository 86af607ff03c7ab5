"""Text shaded by surprisal: the darker a character, the less the model expected it.

Surprisal is the number of bits that the model needs for a token, given everything before it. The
scale has one hue and rises in lightness only (in dark mode it falls), so that it reads the same
with every kind of colour vision and in grey print, and the ink turns over where the ground gets too
dark for it.

Tokens come as bytes, and a character of UTF-8 may be spread over several of them. They are joined
again, and the character gets the sum of their bits. What is no character (half of one, a control
code, a mark that would turn the direction of the text around) is written out as `\\x00`, never
passed on to the page.
"""

from __future__ import annotations

import math
import unicodedata
from bisect import bisect_right
from codecs import getincrementaldecoder
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from markupsafe import Markup, escape

from longspan.errors import DataError

EDGES = (0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0)
"""Bits at which the next shade begins; the first shade is the page itself."""

LIGHT = (
    ("#fdf3d8", "#1d1c1a"),
    ("#fbe3a9", "#1d1c1a"),
    ("#f6c974", "#1d1c1a"),
    ("#eba748", "#1d1c1a"),
    ("#b85c14", "#ffffff"),
    ("#8a3a0a", "#ffffff"),
    ("#571f06", "#ffffff"),
)
"""Ground and ink of every shade but the first, on light paper."""

DARK = (
    ("#2c2416", "#ece8e1"),
    ("#423214", "#ece8e1"),
    ("#5e4310", "#f4f0ea"),
    ("#7d560c", "#ffffff"),
    ("#c48a1c", "#15120b"),
    ("#ebb448", "#15120b"),
    ("#ffdf8f", "#15120b"),
)
"""The same in the dark."""

_SPOKEN = {"\n": "newline", "\t": "tab", " ": "space"}
_SIGNS = {"\n": "\\n", "\t": "\\t"}
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


@dataclass(frozen=True)
class Piece:
    """As little text as can be shown at once: whole tokens that are whole characters.

    Attributes:
        raw: its bytes.
        bits: the sum over its tokens; None if the model did not score one of them.
        prompt: whether all of it was given to the model rather than drawn from it.
    """

    raw: bytes
    bits: float | None
    prompt: bool

    @property
    def text(self) -> str:
        """What the bytes say; a byte that is no UTF-8 becomes a lone surrogate (PEP 383)."""
        return self.raw.decode("utf-8", "surrogateescape")

    @staticmethod
    def of(parts: Sequence[Piece]) -> Piece:
        """All `parts` in one."""
        bits = [part.bits for part in parts if part.bits is not None]
        return Piece(
            b"".join(part.raw for part in parts),
            sum(bits) if len(bits) == len(parts) else None,
            all(part.prompt for part in parts),
        )


def pieces(tokens: Iterable[Mapping[str, Any]]) -> Iterator[Piece]:
    """Tokens joined into whole characters; a token without bytes shows nothing and is left out.

    Args:
        tokens: `{"bytes": "64", "bits": 1.2, "prompt": True}`, bytes in hexadecimal.

    Raises:
        DataError: bytes that are no hexadecimal.
    """
    decoder = getincrementaldecoder("utf-8")("surrogateescape")
    waiting: list[Piece] = []  # tokens that have begun a character and not finished it
    for place, token in enumerate(tokens):
        one = _piece(token, place)
        if not one.raw:
            continue
        said = decoder.decode(one.raw)
        if waiting and _is_byte(said[:1]):  # what was begun never became a character
            yield from waiting
            waiting = []
        waiting.append(one)
        if not decoder.getstate()[0]:
            yield Piece.of(waiting)
            waiting = []
    yield from waiting


def shaded(tokens: Iterable[Mapping[str, Any]]) -> Markup:
    """The text as spans of the classes `s0` to `s7`, to stand in a `<pre class="shaded">`.

    Args:
        tokens: as for `pieces`.
    """
    groups = []
    for prompt, members in groupby(pieces(tokens), key=lambda piece: piece.prompt):
        spans = Markup("").join(_span(piece) for piece in members)
        groups.append(Markup('<span class="prompt">{}</span>').format(spans) if prompt else spans)
    return Markup("").join(groups)


def legend() -> Markup:
    """The scale, from the least to the most surprising, with its bits."""
    low = ("0", *(f"{edge:g}" for edge in EDGES))
    high = (*low[1:], None)
    labels = [f"{a}–{b}" if b else f"{a} and more" for a, b in zip(low, high, strict=True)]
    spans = (
        Markup('<span class="s{}">{}</span>').format(level, label)
        for level, label in enumerate(labels)
    )
    return Markup('<span class="scale">{}</span>').format(Markup("").join(spans))


def style() -> Markup:
    """The shades as CSS custom properties, light and dark, and the classes that use them."""

    def properties(shades: tuple[tuple[str, str], ...]) -> str:
        return " ".join(
            f"--s{level}: {ground}; --s{level}-ink: {ink};"
            for level, (ground, ink) in enumerate(shades, 1)
        )

    classes = "\n".join(
        f".s{level} {{ background: var(--s{level}); color: var(--s{level}-ink); }}"
        for level in range(1, len(EDGES) + 1)
    )
    dark = f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {properties(DARK)} }} }}"
    return Markup(f":root {{ {properties(LIGHT)} }}\n{dark}\n{classes}")


def level(bits: float | None) -> int | None:
    """Which shade; None where there is no number."""
    return None if bits is None or math.isnan(bits) else bisect_right(EDGES, bits)


def visible(text: str) -> Markup:
    """Text with every character that could not be seen written out, such as `\\x00`.

    A line ends where the text says. The sign before it is drawn by CSS, so that it is not copied
    along with the text.
    """

    def show(char: str) -> Markup:
        if char == "\n":
            return Markup('<span class="nl"></span>\n')
        if _hidden(char):
            return Markup('<span class="esc">{}</span>').format(_code(char))
        return escape(char)

    return Markup("").join(show(char) for char in text)


def _span(piece: Piece) -> Markup:
    text = piece.text
    name = _SPOKEN.get(text) or "".join(_code(c) if _hidden(c) else _SIGNS.get(c, c) for c in text)
    if any(ord(char) > 0x7F and not _is_byte(char) for char in text):
        name += f" ({piece.raw.hex(' ')})"
    shade = level(piece.bits)
    bits = "not scored" if shade is None else f"{piece.bits:.2f} bits"
    return Markup('<span class="{}" title="{} · {}">{}</span>').format(
        "unscored" if shade is None else f"s{shade}", name, bits, visible(text)
    )


def _piece(token: Mapping[str, Any], place: int) -> Piece:
    try:
        raw = bytes.fromhex(token["bytes"])
    except (ValueError, TypeError):
        raise DataError(
            f"sample.tokens[{place}].bytes must be hexadecimal such as '6d', not {token['bytes']!r}"
        ) from None
    return Piece(raw, token.get("bits"), bool(token.get("prompt")))


def _is_byte(char: str) -> bool:
    """Whether `char` stands for a byte that is no UTF-8."""
    return "\udc80" <= char <= "\udcff"


def _hidden(char: str) -> bool:
    return char not in _SPOKEN and unicodedata.category(char) in _HIDDEN


def _code(char: str) -> str:
    """How a hidden character is written: `\\x00`, `\\r`, `\\u202e`."""
    if char == "\r":
        return "\\r"
    number = ord(char) - 0xDC00 if _is_byte(char) else ord(char)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
