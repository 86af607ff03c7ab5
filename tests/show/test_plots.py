"""The drawings: labelled, honest about what is left out, the page's colours, the same each time."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from itertools import pairwise

import matplotlib
import pytest

from longspan.show.drawing import ROLES, Plot
from longspan.show.plots import Reference, memory_curve, training_curve


def texts(plot: Plot) -> list[str]:
    return [element.text or "" for element in ET.fromstring(plot.svg).iter("text")]


def points(*pairs: tuple[int, float]) -> list[dict[str, float]]:
    return [{"memory": memory, "bits_per_byte": bits} for memory, bits in pairs]


def test_axes_have_names_and_units(results):
    memory = texts(memory_curve(results["curve"], 256))
    training = texts(training_curve(results["training"], results["validation"]))
    assert any("tokens" in text for text in memory)
    assert "training, steps of 4,096 tokens" in training
    assert "bits per byte" in memory
    assert "bits per byte" in training


def test_every_memory_length_has_its_tick_and_the_trained_one_its_mark(results):
    shown = texts(memory_curve(results["curve"], 256))
    assert {"0", "128", "256", "1,024", "trained with 256"} <= set(shown)


def test_crowded_ticks_give_way_to_zero_the_trained_length_and_the_last():
    crowd = points(*((n, 2.0 + n / 1e4) for n in (0, *range(200, 260, 2))))
    shown = texts(memory_curve(crowd, 228))
    assert {"0", "228", "258"} <= set(shown)
    assert "230" not in shown


def test_a_near_line_is_drawn_and_a_far_one_said(results):
    lines = [Reference("sliding", 2.031), Reference("xz -9", 4.01, model=False)]
    plot = memory_curve(results["curve"], 256, lines)
    assert "sliding, 2.03" in texts(plot)
    assert not any("xz" in text for text in texts(plot))
    assert "Too far away to be drawn: xz -9 (4.01)" in plot.reading


def test_names_beside_lines_do_not_cover_each_other(results):
    lines = [Reference(name, 2.05 + place / 1e4) for place, name in enumerate("abcd")]
    svg = ET.fromstring(memory_curve(results["curve"], 256, lines).svg)
    heights = [float(e.attrib["y"]) for e in svg.iter("text") if re.match(r"[a-d],", e.text or "")]
    assert len(heights) == 4
    gaps = [a - b for a, b in pairwise(heights)]
    assert all(abs(gap) > 8.5 for gap in gaps)


def test_colours_and_font_are_those_of_the_page(results):
    for plot in (memory_curve(results["curve"], 256), training_curve(results["training"])):
        assert "var(--ink" in plot.svg
        assert not any(placeholder in plot.svg for placeholder in ROLES)
        assert "font-family" not in plot.svg
        assert "<style" not in plot.svg
        literal = re.sub(r"var\([^)]*\)", "", plot.svg)
        assert not re.findall(r"(?:fill|stroke): #[0-9a-f]{6}", literal)


def test_the_users_own_settings_change_nothing_and_are_not_changed(results):
    before = memory_curve(results["curve"], 256).svg
    with matplotlib.rc_context({"font.size": 30, "svg.fonttype": "path", "axes.grid": True}):
        assert memory_curve(results["curve"], 256).svg == before
        assert matplotlib.rcParams["font.size"] == 30


def test_the_band_is_drawn_where_there_is_one(results):
    bare = [{k: p[k] for k in ("memory", "bits_per_byte")} for p in results["curve"]]
    banded, plain = memory_curve(results["curve"]), memory_curve(bare)
    assert "opacity: 0.16" in banded.svg
    assert "opacity: 0.16" not in plain.svg
    assert "The band is" in banded.reading
    assert "The band is" not in plain.reading


@pytest.mark.parametrize("found", [[], points((0, 2.0)), points((64, 2.0)), points((0, 2), (8, 2))])
def test_few_points_are_no_trouble(found):
    assert ET.fromstring(memory_curve(found, 256, [Reference("xz", 2.0)]).svg) is not None
    assert ET.fromstring(memory_curve(found).svg) is not None


def test_training_alone_validation_alone_and_one_point():
    one = [{"tokens": 4096, "bits_per_byte": 3.0}]
    assert "training, tokens read" in texts(training_curve(one))
    assert "held-out, 3.00" in texts(training_curve([], one))
    assert training_curve([]).reading == "no point was measured."


def test_smoothing_ends_where_the_run_ends_not_at_its_last_step():
    steps = [{"step": s, "bits_per_byte": 2.0} for s in range(1, 201)]
    steps[-1]["bits_per_byte"] = 3.0
    assert "training, 2.17" in texts(training_curve(steps))


def test_steep_first_steps_are_cut_and_said():
    steps = [{"step": s, "bits_per_byte": 2 + 6 * 0.8**s} for s in range(200)]
    assert "The first steps, from 8.00, lie above the picture." in training_curve(steps).reading


def test_names_are_text_not_formulas_or_markup(results):
    shown = texts(memory_curve(results["curve"], 256, [Reference("$x$ <b>", 2.05)]))
    assert "$x$ <b>, 2.05" in shown
