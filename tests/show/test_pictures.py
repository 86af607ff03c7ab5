"""What the pictures of components say is what the components do."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from longspan import (
    XL,
    Alibi,
    Cache,
    Compressive,
    Full,
    Infini,
    Learned,
    Longformer,
    MemoryLayer,
    Nearest,
    Recent,
    Segments,
    Sinks,
    SinkWindow,
    Sinusoidal,
    Tokens,
)
from longspan.positions.alibi import slopes
from longspan.show.pictures import PALER, Picture, of_memory, of_pattern, of_position
from longspan.slots import Memory, Pattern, Position
from tests.contracts.samples import MEMORIES, PATTERNS, POSITIONS
from tests.tiny import Result, refused


def grid(picture: Picture) -> np.ndarray:
    (axes,) = picture.figure.axes
    return np.asarray(axes.images[0].get_array())


def curves(picture: Picture) -> list[np.ndarray]:
    (axes,) = picture.figure.axes
    return [np.asarray(line.get_ydata()) for line in axes.lines]


@pytest.mark.parametrize("pattern", PATTERNS, ids=repr)
def test_a_pattern_is_its_mask(pattern: Pattern) -> None:
    marks = grid(of_pattern(pattern, 20))
    assert marks.shape == (20, 20)
    assert marks.diagonal().all()
    assert np.triu(marks, 1).any() != pattern.causal


def test_the_cost_of_a_pattern() -> None:
    reading = of_pattern(Segments(4, 4), 12).reading
    # 10 pairs within each of three segments, and 16 with the segment before it of two
    assert reading == (
        "pattern segments: 62 of 78 pairs meet (79%), a query sees at most 8 of 12 keys\n"
        "in a call of 4,096 tokens a query sees 6 keys on average; tiles compute 68"
    )
    assert of_pattern(Full(), 20).reading.endswith("on average; computed whole, it meets 4,096")
    assert "400 of 400 pairs" in of_pattern(Full(), 20).reading


def test_the_marks_of_longformer() -> None:
    """By position they are drawn; what depends on the tokens cannot be, and is said."""
    marks = grid(of_pattern(Longformer(3, (0, 7), causal=False), 12))
    q, k = np.indices((12, 12))
    assert np.array_equal(marks > 0, (abs(q - k) < 3) | np.isin(q, (0, 7)) | np.isin(k, (0, 7)))
    said = "tokens marked for what they are, or for what precedes them, come on top"
    assert said not in of_pattern(Longformer(3), 12).reading
    assert said in of_pattern(Longformer(3, tokens=(5,)), 12).reading


@pytest.mark.parametrize("memory", MEMORIES, ids=repr)
def test_a_memory_holds_nothing_of_the_future(memory: Memory) -> None:
    assert not np.triu(grid(of_memory(memory, 24)), 1).any()


def test_what_memories_keep() -> None:
    held = grid(of_memory(Recent(5), 12))
    assert held[11].nonzero()[0].tolist() == [7, 8, 9, 10, 11]
    held = grid(of_memory(Sinks(3, 2), 12))
    assert held[11].nonzero()[0].tolist() == [0, 1, 9, 10, 11]
    assert grid(of_memory(Nearest(5, local=3), 12))[11].nonzero()[0].tolist() == list(range(4, 12))
    assert "it holds 12, and grows with the stream" in of_memory(Cache(), 12).reading
    assert "it holds 5, and no longer grows" in of_memory(Recent(5), 12).reading


def test_compressed_slots_are_drawn_over_what_they_stand_for() -> None:
    picture = of_memory(Compressive(4, 3, 2, "mean", "none"), 24)
    held = grid(picture)
    # whole: the newest four, and what came since the segment began at 16
    assert (held[20] == 1).nonzero()[0].tolist() == list(range(12, 21))
    assert (held[20] == PALER).nonzero()[0].tolist() == list(range(6, 12))
    assert "it holds 4, 6 more in 3 slots, and no longer grows" in picture.reading
    picked = grid(of_memory(Compressive(4, 4, 2, "most-used", "none"), 24))
    assert set(np.unique(picked)) == {0, 1}
    assert len(picked[23].nonzero()[0]) == 8


def test_how_strongly_tokens_show_in_what_they_are_folded_into() -> None:
    shown = grid(of_memory(Infini("linear"), 32))
    # within a segment as keys and values, of which each that comes makes it a smaller share
    assert shown[8, 8] >= shown[9, 8] > shown[10, 8]
    # at its end in the sum of all, where it stays as it is for a whole segment
    assert (shown[11:15, :12] == shown[11, :12]).all()
    assert (shown[31] > 0).all()
    assert shown[31, :16].mean() < shown[15, :16].mean()
    picture = of_memory(Infini(), 32)
    assert re.fullmatch(
        r"memory infini, segments of 4: after 32 tokens another first token would change \d+% of "
        r"what it holds, another last token \d+%; it no longer grows",
        picture.reading,
    )


def test_slots_are_first_in_first_out() -> None:
    shown = grid(of_memory(MemoryLayer(3), 40)) > 0
    for step in (19, 31, 39):
        # segments of 5, the newest three of them
        first = max(0, (step + 1) // 5 - 3) * 5
        assert shown[step].tolist() == [first <= token <= step for token in range(40)]


def test_memory_tokens_show_what_was_written_at_the_end_of_a_segment() -> None:
    shown = grid(of_memory(Tokens(2), 40)) > 0
    for step in (3, 4, 22, 39):
        # segments of 5, of which the unfinished one has left nothing yet
        assert shown[step].tolist() == [token < (step + 1) // 5 * 5 for token in range(40)]


@pytest.mark.parametrize("position", POSITIONS, ids=repr)
def test_every_position_can_be_drawn(position: Position) -> None:
    drawn = curves(of_position(position, 30))
    assert len(drawn) == (1 if position.enters == "input" else 4)
    assert all(len(curve) == 30 and np.isfinite(curve).all() for curve in drawn)


def test_alibi_falls_by_its_slopes() -> None:
    for curve, slope in zip(curves(of_position(Alibi(), 10)), slopes(4), strict=True):
        np.testing.assert_allclose(np.diff(curve), -slope, atol=1e-5)


def test_heads_that_begin_near_peak_there() -> None:
    peaks = [int(curve.argmax()) for curve in curves(of_position(XL(near=2.0), 40))]
    assert all(abs(peak - head) <= 2 for head, peak in enumerate(peaks, 1))


def test_sinusoids_of_near_places_are_more_alike() -> None:
    (curve,) = curves(of_position(Sinusoidal(), 40))
    assert curve[0] == pytest.approx(1, abs=1e-5)
    assert curve[0] > curve[1] > curve[2] > curve[10]
    assert len(curves(of_position(Learned(40), 40))) == 1


@pytest.mark.parametrize(
    ("asked", "reading"),
    [
        (("--pattern", "sinks", "--pattern.width", 8), "of 2,080 pairs meet"),
        (("--memory", "recent", "--memory.tokens", 8), "after 64 tokens it holds 8"),
        (("--position", "xl", "--position.near", 1), "position xl: mean score"),
    ],
)
def test_the_verb(
    cli: Callable[..., Result], tmp_path: Path, asked: tuple[object, ...], reading: str
) -> None:
    for name in ("it.png", "it.svg"):
        result = cli("show", *asked, "--to", tmp_path / name)
        assert (result.status, result.err) == (0, "")
        assert reading in result.out
    assert (tmp_path / "it.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "it.svg").read_text("utf-8")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ((), "name one component: --position, --pattern or --memory NAME"),
        (("--pattern", "full", "--memory", "cache"), "name one component"),
        (("--pattern", "full", "--memory.name", "cache"), "name one component"),
        (("--pattern", "windw"), "unknown pattern 'windw', did you mean 'window'?"),
        (("--pattern", "window"), "pattern.width is required"),
        (("--pattern", "full", "--tokens", 1), "--tokens must be 2 or more, not 1"),
        (("--pattern", "full", "--to", "no/where.png"), "no/where.png cannot be written"),
        (("--pattern", "full", "--to", "it.foo"), "it.foo cannot be written"),
        (("--position", "learned", "--position.length", 9), "beyond position.length=9"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(
    cli: Callable[..., Result],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    asked: tuple[object, ...],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in refused(cli("show", *asked))
    assert not list(tmp_path.iterdir())


def test_a_window_with_sinks_is_drawn_with_them() -> None:
    marks = grid(of_pattern(SinkWindow(3, 2), 12))
    assert marks[11].nonzero()[0].tolist() == [0, 1, 9, 10, 11]
