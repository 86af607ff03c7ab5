"""From which length on a layer is faster: what is made of the times, not the times themselves."""

from __future__ import annotations

import pytest

from longspan import XL, Cache, Causal, Recent, Segments, Window
from longspan.measure import crossover
from longspan.measure.crossover import Duel, duels
from longspan.mixing import Mixing
from longspan.models.stack import Different, StackConfig


def duel(*times: tuple[int, float, float]) -> Duel:
    return Duel((0,), "some", False, times)


def test_where_the_lines_cross() -> None:
    # the ratios are 4, 2, 1/2, 1/4: even in the middle of 200 and 800, on the logarithm's scale
    assert duel((100, 1, 4), (200, 1, 2), (800, 2, 1), (1600, 4, 1)).crossover == 400
    assert duel((100, 1, 4), (200, 1, 1), (400, 2, 1)).crossover == 200
    assert duel((100, 2, 1), (200, 4, 1)).crossover == 100
    assert duel((100, 1, 2), (200, 1, 2)).crossover is None
    # faster once is not faster from there on
    assert duel((100, 2, 1), (200, 1, 2), (800, 2, 1)).crossover == 400
    assert duel((100, 2, 1), (200, 1, 2)).crossover is None
    assert duel().crossover is None


def test_every_kind_of_layer_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside plain attention, length by length, until a call takes too long."""
    asked: list[tuple[str, int]] = []

    def timed(mixing: Mixing, length: int) -> float:
        asked.append((type(mixing.pattern).__name__, length))
        return length / 1000 * (2 if mixing.pattern == Causal() else 1)

    monkeypatch.setattr(crossover, "timed", timed)
    window = Different(pattern=Window(4), memory=Recent(3))
    plain = Different(pattern=Causal(), memory=Cache())
    config = StackConfig(
        width=8, layers=6, heads=2, feed_forward=8, stack=(window, plain, window), position=XL()
    )
    lengths = [100, 200, 400, 800]
    first, second = duels(config, lengths=lengths, seconds=0.7, rounds=2)
    assert first.layers == (0, 2, 3, 5)
    assert second.layers == (1, 4)
    assert second.plain
    assert not second.times
    assert first.mixer == "softmax (xl, window, recent)"
    assert first.times == ((100, 0.2, 0.1), (200, 0.4, 0.2), (400, 0.8, 0.4))
    assert first.crossover == 100
    turns = [("Causal", 100), ("Window", 100)] * 2 + [("Causal", 200), ("Window", 200)] * 2
    assert asked[:8] == turns


def test_a_layer_is_really_run() -> None:
    config = StackConfig(
        width=8, layers=1, heads=2, feed_forward=8, pattern=Segments(8, 4), memory=Recent(4)
    )
    (measured,) = duels(config, lengths=[8, 24], rounds=1)
    assert [length for length, _, _ in measured.times] == [8, 24]
    assert all(plain > 0 and own > 0 for _, plain, own in measured.times)
