"""The page and the table of reach, from measures of small models."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from io import StringIO
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from longspan import LSTM, XL, Decoder, DecoderConfig, NoMemory, Recent, Segments
from longspan.data.tokenizers.ids import IdCodec
from longspan.errors import ConfigError, DataError
from longspan.measure.reach.runs import RunPredictor
from longspan.measure.reach.summary import Plan, distance, summarise
from longspan.measure.reach.text import RUN, Text
from longspan.show.reach import reach_table, render_reach, write_reach
from longspan.show.reach_plots import unbeaten

V, T = 40, 16
PLAIN = DecoderConfig(width=8, layers=2, heads=2, feed_forward=12)
XLS = replace(PLAIN, position=XL(), pattern=Segments(T, 24), memory=Recent(24))
CONFIGS = {
    "xl <b>": XLS,
    "lstm": replace(PLAIN, mixer=LSTM()),
    "bare": replace(XLS, pattern=Segments(T, 0), memory=NoMemory()),
}
PLAN = Plan(longest=48, targets=64, pieces=2, samples=1)


def predictor(name: str, size: int = V) -> RunPredictor:
    torch.manual_seed(0)
    model = Decoder(CONFIGS[name], size).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return RunPredictor(name, model.requires_grad_(False), IdCodec(size, size - 1), T)


def text(length: int = 300) -> Text:
    rng = np.random.default_rng(0)
    rows = [np.append(V - 1, rng.integers(0, V - 1, length)) for _ in range(2)]
    return Text(tuple(rows), 2.5)


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    """Of three models, as JSON would bring them back."""
    told: list[str] = []
    found = summarise([predictor(n) for n in CONFIGS], text(), PLAN, "a <text>", say=told.append)
    assert any("48 tokens of context" in line for line in told)
    return json.loads(json.dumps(found))


class Tags(HTMLParser):
    """Which elements open and close, and their ids."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.seen: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in ("meta", "link", "br", "path", "use"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("path", "use"):
            assert self.open.pop() == tag


def test_the_page_is_whole_and_loads_nothing(results: dict[str, Any]) -> None:
    page = render_reach(results)
    tags = Tags(page)
    assert not tags.open
    assert len(set(tags.ids)) == len(tags.ids), "two figures share an id"
    assert "http:" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", page)
    assert "default-src 'none'" in page
    assert "xl &lt;b&gt;" in page
    assert "<b>" not in page
    assert "a &lt;text&gt;" in page
    assert page == render_reach(results), "equal results give equal bytes"


def test_every_figure_has_axes_and_a_sentence(results: dict[str, Any]) -> None:
    page = render_reach(results)
    figures = re.findall(r"<figure>.*?</figure>", page, re.S)
    assert len(figures) > 15
    for figure in figures:
        caption = re.search(r"How to read this:</strong> (.*?)</figcaption>", figure, re.S)
        assert caption, figure[:300]
        assert caption[1].strip().endswith("."), caption[1]
        assert not re.search(r"nan|None|\{|\}", caption[1]), caption[1]
        words = re.findall(r"<text[^>]*>([^<]*)", figure)
        units = ("token", "byte", "bits", "share", "head", "layer", "FLOPs")
        assert any(unit in word for word in words for unit in units), words
        assert "nan" not in words


def test_every_measure_stands_on_the_page(results: dict[str, Any]) -> None:
    page = render_reach(results)
    for heading in (
        "How much context it uses",
        "What more memory brings",
        "How it warms up",
        "Where it looks",
        "What its memory is worth",
        "What it can recall",
        "What reach costs",
    ):
        assert heading in page, heading
    alone = results | {"models": [model | {"recl": []} for model in results["models"][2:]]}
    page = render_reach(alone)
    assert "It carries no memory from one window to the next." in page
    assert "What more memory brings" not in page
    assert "What reach costs" not in page, "one point is no frontier"


def test_numbers_are_those_of_the_measures(results: dict[str, Any]) -> None:
    xl, lstm, bare = results["models"]
    assert results["plan"]["longest"] == 48
    assert [point["context"] for point in xl["contexts"]][-1] == 48
    assert xl["effective"]["bytes"] == 2.5 * xl["effective"]["tokens"]
    assert [one["r"] for one in xl["recl"]] == [0.1, 0.5, 1.0]
    assert xl["recl"][0]["bytes"] == 2.5 * xl["recl"][0]["tokens"]
    assert {one["at"] for one in xl["memories"]} == {0, 6, 12, 24, 48, 96, 192}
    assert (lstm["memories"], lstm["looking"]) == ([], None)
    assert lstm["memory"] is None
    assert {one["change"] for one in lstm["worth"]} == {"emptied", "swapped", "frozen"}
    assert (bare["memory"], bare["worth"], bare["memories"]) == (0, [], [])
    assert np.array(bare["looking"]["memory"]).max() == 0
    assert np.array(xl["looking"]["memory"]).min() > 0
    assert {cell["length"] for cell in xl["needle"]} == {48}
    assert all(model["price"]["after"] == 48 for model in results["models"])


def test_the_table_fits_a_terminal(results: dict[str, Any]) -> None:
    console = Console(width=80, record=True, file=StringIO())
    console.print(reach_table(results))
    out = console.export_text()
    assert "xl <b>" in out
    assert "lstm" in out
    assert out.count("a token") == 1, "nothing is cut at the right"
    assert max(map(len, out.splitlines())) <= 80
    single = results | {"models": [results["models"][1] | {"recl": []}]}
    console.print(reach_table(single))
    assert console.export_text().count("–") >= 3, "RECL is of a group"


def test_it_is_written_whole(results: dict[str, Any], tmp_path: Any) -> None:
    write_reach(results, tmp_path / "a" / "reach.html")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["reach.html"]


def test_a_frontier_is_what_nothing_beats() -> None:
    points = [("a", 1.0, 10.0), ("b", 2.0, 8.0), ("c", 2.0, 30.0), ("d", 5.0, 30.0), ("e", 9.0, 40)]
    assert [name for name, *_ in unbeaten(points)] == ["a", "c", "e"]


# Bad input.


def test_the_longest_distance_is_that_of_data_and_model() -> None:
    made = predictor("xl <b>")
    assert distance([made], text(), 0) == 8 * 24
    assert distance([made], text(200), 0) == 200 - RUN
    assert distance([predictor("bare")], text(), 0) == 8 * T
    with pytest.raises(DataError, match=r"distance of 300 .* ask for --longest 236 or less"):
        distance([made], text(), 300)
    made.longest = 128
    assert distance([made], text(), 0) == 64
    with pytest.raises(ConfigError, match=r"spans 128 tokens, .* --longest 64 or less"):
        distance([made], text(), 65)
    other = predictor("xl <b>")
    other.longest = 256
    assert distance([made, other], text(), 0) == 64, "the limits of two of one name"
    with pytest.raises(ConfigError, match=r"--longest 64 or less"):
        distance([made, other], text(), 65)


def test_a_group_of_two_vocabularies_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"xl <b> and lstm have other vocabularies \(40 and 41"):
        summarise([predictor("xl <b>"), predictor("lstm", 41)], text(), PLAN)
    with pytest.raises(ConfigError, match="name at least one run"):
        summarise([], text(), PLAN)


@pytest.mark.parametrize(
    ("field", "value"), [("longest", -1), ("targets", 0), ("pieces", 0), ("samples", 0)]
)
def test_a_plan_that_cannot_be_is_refused(field: str, value: int) -> None:
    with pytest.raises(ConfigError, match=f"--{field} must be"):
        Plan(**{field: value})
