"""Text shaded by surprisal: no byte lost, no byte hidden, and readable in every shade."""

from __future__ import annotations

import html
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longspan.errors import DataError
from longspan.show.text import DARK, EDGES, LIGHT, legend, level, pieces, shaded, style


def tokens(*parts: bytes, bits: float = 1.0, prompt: bool = False) -> list[dict[str, object]]:
    return [{"bytes": part.hex(), "bits": bits, "prompt": prompt} for part in parts]


def single(raw: bytes) -> list[bytes]:
    return [bytes([byte]) for byte in raw]


def words(markup: str) -> str:
    return html.unescape(re.sub(r"<[^>]*>", "", markup))


def test_bytes_of_one_character_are_joined_and_their_bits_added():
    found = list(pieces(tokens(*single("aé☕🜚b".encode()), bits=0.5)))
    assert [piece.text for piece in found] == ["a", "é", "☕", "🜚", "b"]
    assert [piece.bits for piece in found] == [0.5, 1.0, 1.5, 2.0, 0.5]


def test_a_character_begun_in_one_token_and_ended_in_the_next():
    raw = "xéy".encode()
    assert [p.text for p in pieces(tokens(raw[:2], raw[2:]))] == ["xéy"]


def test_a_character_that_is_never_finished_keeps_its_bits():
    found = list(pieces(tokens(b"\xe2", b"\x98", b"a", b"\xc3", bits=2.0)))
    assert [piece.raw for piece in found] == [b"\xe2", b"\x98", b"a", b"\xc3"]
    assert {piece.bits for piece in found} == {2.0}
    assert words(shaded(tokens(b"\xe2", b"\x98", b"a", b"\xc3"))) == r"\xe2\x98a\xc3"


def test_a_bad_byte_does_not_spoil_its_token():
    assert words(shaded(tokens(b"ab\xffcd"))) == r"ab\xffcd"


@given(st.lists(st.binary(max_size=5), max_size=12))
def test_no_byte_and_no_bit_is_lost(parts):
    found = list(pieces(tokens(*parts)))
    assert b"".join(piece.raw for piece in found) == b"".join(parts)
    assert sum(piece.bits or 0 for piece in found) == sum(1 for part in parts if part)


@given(st.text(alphabet=st.characters(exclude_categories=["C", "Zl", "Zp"]), max_size=20))
def test_visible_text_is_shown_as_it_is(text):
    assert words(shaded(tokens(*single(text.encode())))) == text


def test_white_space_is_kept_and_only_code_would_be_lost_is_written_out():
    text = "def f():\n\treturn  1 \n"
    assert words(shaded(tokens(*single(text.encode())))) == text
    assert words(shaded(tokens(*single(b"\x00\x1b\r\x7f")))) == r"\x00\x1b\r\x7f"


def test_no_mark_turns_the_page_around():
    shown = shaded(tokens(*single("a\u202eb\u200b\ufeff".encode())))
    assert words(shown) == r"a\u202eb\u200b\ufeff"


def test_markup_is_escaped_also_in_the_title():
    shown = shaded(tokens(b"<script>", b'"', b"&lt;"))
    assert "<script" not in shown
    assert 'title="""' not in shown
    assert words(shown) == '<script>"&lt;'


def test_the_title_gives_token_and_bits():
    shown = shaded([*tokens(b"d", bits=1.234), *tokens(b"\n"), *tokens(*single("é".encode()))])
    assert 'title="d · 1.23 bits"' in shown
    assert 'title="newline · 1.00 bits"' in shown
    assert 'title="é (c3 a9) · 2.00 bits"' in shown


def test_the_prompt_is_marked():
    shown = shaded([*tokens(b"def", b" ", prompt=True), *tokens(b"main")])
    prompt, rest = re.fullmatch(r'<span class="prompt">(.*)</span>(<span.*)', shown).groups()
    assert words(prompt) == "def "
    assert words(rest) == "main"


def test_a_token_that_was_not_scored_is_not_shaded():
    shown = shaded([{"bytes": "61", "bits": None}, {"bytes": "62", "bits": float("nan")}])
    assert shown.count('class="unscored"') == 2
    assert shown.count("not scored") == 2


def test_shades_rise_with_the_bits():
    assert [level(bits) for bits in (0.0, 0.49, *EDGES, 30.0)] == [0, 0, *range(1, 8), 7]


def test_bytes_must_be_hexadecimal():
    with pytest.raises(DataError, match=r"tokens\[1\].bytes must be hexadecimal"):
        shaded([*tokens(b"a"), {"bytes": "xy", "bits": 1.0}])


def luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.2."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("shades", [LIGHT, DARK])
def test_ink_has_contrast_on_every_shade(shades):
    assert len(shades) == len(EDGES)
    for ground, ink in shades:
        light, dark = sorted((luminance(ground), luminance(ink)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (ground, ink)


@pytest.mark.parametrize(("shades", "paper"), [(LIGHT, "#fdfcfa"), (DARK, "#16181b")])
def test_the_scale_moves_one_way_from_the_paper(shades, paper):
    """In lightness, so that it reads in grey and with every kind of colour vision."""
    values = [luminance(paper), *(luminance(ground) for ground, _ in shades)]
    assert values == sorted(values, reverse=shades is LIGHT)


def test_the_legend_names_every_shade():
    assert legend().count('class="s') - 1 == len(EDGES) + 1
    assert words(legend()).startswith("0–0.5")
    assert all(f".s{n} " in style() for n in range(1, len(EDGES) + 1))
