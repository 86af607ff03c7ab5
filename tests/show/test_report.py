"""The page: safe, self-contained, the same each time, and true to the numbers given."""

from __future__ import annotations

import copy
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from longspan.errors import DataError, LongspanError
from longspan.show.report import render, write_report

EVIL = "<script>alert('x')</script>"


class Page(HTMLParser):
    """Every tag with its attributes, and the text of every table cell."""

    VOID = ("meta", "link", "br")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.words = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words += data
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data

    def of(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_every_element_is_closed_and_the_parts_come_in_order(results):
    page = Page(render(results))
    assert page.open == []
    order = ["results", "memory", "training", "sample", "facts", "recipe"]
    assert [heading["id"] for heading in page.of("h2")] == order


def test_nothing_that_was_given_becomes_markup(results):
    """Each string of the results is replaced by a script, one after another."""
    plain = len(Page(render(results)).tags)
    for part, key in [
        (results, "title"),
        (results, "created"),
        (results, "longspan"),
        (results, "band"),
        (results["run"], "hardware"),
        (results["run"], "recipe"),
        (results["data"], "path"),
        (results["sample"], "settings"),
        (results["rows"][0], "name"),
        (results["rows"][2], "name"),  # stands in the plot too
        (results["rows"][0], "note"),
        (results["rows"][0], "command"),
    ]:
        part[key] = EVIL
    page = Page(render(results))
    assert not page.of("script")
    assert page.words.count("alert('x')") >= 12
    assert len(page.tags) - plain < 20  # a longer name may take one more line in the plot


def test_a_sampled_script_is_shown_not_run(results):
    results["sample"]["tokens"] = [{"bytes": EVIL.encode().hex(), "bits": 1.0}]
    page = Page(render(results))
    assert not page.of("script")
    assert EVIL in page.words


def test_the_page_loads_nothing(results):
    html = render(results)
    assert "http://" not in html
    assert "https://" not in html
    assert "@import" not in html
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", html))
    page = Page(html)
    loads = ("src", "href", "xlink:href", "srcset", "data", "action", "poster", "background")
    for tag, attributes in page.tags:
        assert tag not in ("script", "iframe", "object", "embed", "img", "base", "form")
        for name in loads:
            assert attributes.get(name, "#").startswith(("#", "data:,")), (tag, attributes)


def test_the_table_shows_the_numbers_given(results):
    page = Page(render(results))
    shown = {cells[0].split("\n")[0].strip(): cells[1:] for cells in page.rows if len(cells) == 5}
    for row in results["rows"]:
        name = row["name"] + (" yardstick, untrained" if row["kind"] == "archive" else "")
        memory, bits, against, speed = shown[name]
        assert float(bits) == pytest.approx(row["bits_per_byte"], abs=5e-4)
        assert memory == ("–" if row["memory"] is None else str(row["memory"]))
        assert against == (
            "–" if row["against_none"] is None else f"−{-100 * row['against_none']:.1f}%"
        )
        assert speed == (
            f"{row['tokens_per_second']:,.0f}" if row["tokens_per_second"] is not None else "–"
        )
    exact = [float(data["value"]) for data in page.of("data")]
    assert exact == [row["bits_per_byte"] for row in results["rows"]]


def test_commands_stand_under_their_rows(results):
    cells = [cells for cells in Page(render(results)).rows if cells]
    at = next(i for i, row in enumerate(cells) if row[0].startswith("no memory"))
    assert cells[at + 1] == ["longspan measure --memory 0"]


def test_the_page_can_be_read_without_seeing_it(results):
    page = Page(render(results))
    plots = page.of("svg")
    assert len(plots) == 2
    assert all(plot["role"] == "img" and len(plot["aria-label"]) > 60 for plot in plots)
    assert {header["scope"] for header in page.of("th")} == {"row", "col"}
    assert page.of("html")[0]["lang"] == "en"
    named = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert all(part["aria-labelledby"] in named for part in page.of("section"))


def test_ids_are_used_once(results):
    ids = re.findall(r'\bid="([^"]*)"', render(results))
    assert len(ids) == len(set(ids))


def test_equal_results_give_equal_bytes(results, tmp_path):
    write_report(results, tmp_path / "a.html")
    write_report(copy.deepcopy(results), tmp_path / "b.html")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


KEYS = ["title", "longspan", "created", "run", "data", "rows", "curve", "training"]
KEYS += ["validation", "sample"]


@pytest.mark.parametrize("key", KEYS)
def test_any_key_may_be_missing(results, key):
    del results[key]
    page = Page(render(results))
    assert page.open == []
    part = {"rows": "results", "curve": "memory", "sample": "sample"}.get(key)
    assert part not in [heading["id"] for heading in page.of("h2")]
    assert "None" not in page.words


def test_inner_keys_may_be_missing_too(results):
    results["run"] = {"steps": 5}
    results["data"] = {"train_files": 1}
    results["sample"] = {"tokens": [{"bytes": "61"}]}
    results["rows"] = [{"name": "no memory", "kind": "none"}]
    results["curve"] = [{"memory": 0, "bits_per_byte": 2.0}]
    page = Page(render(results))
    assert "in 1 file" in page.words
    assert "None" not in page.words


def test_nothing_at_all_is_still_a_page():
    page = Page(render({}))
    assert page.open == []
    assert page.of("h2") == []


def test_an_empty_sample_is_said(results):
    results["sample"]["tokens"] = []
    page = Page(render(results))
    assert "The model wrote nothing after def main(" in page.words
    assert not [pre for pre in page.of("pre") if "sample" in pre.get("class", "")]


def test_a_number_that_was_not_measured_is_a_dash(results):
    results["rows"][1]["bits_per_byte"] = float("nan")
    results["rows"][3]["bits_per_byte"] = None
    words = Page(render(results)).words
    assert "nan" not in words
    assert "None" not in words


def test_what_is_missing_is_named(results):
    del results["rows"][1]["name"]
    results["rows"][2]["kind"] = "slidding"
    del results["curve"][0]["memory"]
    with pytest.raises(DataError) as error:
        render(results)
    for words in ("rows[1] lacks 'name'", "did you mean 'sliding'", "curve[0] lacks 'memory'"):
        assert words in str(error.value)


def test_a_failed_page_leaves_the_old_one(results, tmp_path, monkeypatch):
    page = tmp_path / "report.html"
    page.write_text("old")
    write = Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        write(self, data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(LongspanError, match="No space left"):
        write_report(results, page)
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
    assert page.read_text() == "old"


def test_the_folder_is_made_and_only_the_page_left(results, tmp_path):
    write_report(results, tmp_path / "runs" / "demo" / "report.html")
    files = [file.name for file in (tmp_path / "runs" / "demo").iterdir()]
    assert files == ["report.html"]


def test_bytes_that_no_file_can_hold_do_not_break_the_page(results, tmp_path):
    """A path may hold lone surrogates, which UTF-8 cannot write."""
    data: dict[str, Any] = results["data"]
    data["path"] = "caf\udce9"
    write_report(results, tmp_path / "report.html")
    assert "caf\\udce9" in (tmp_path / "report.html").read_text("utf-8")
