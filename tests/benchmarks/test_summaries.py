"""What `benchmarks/summaries.py` takes of a text where nothing is learnt, and what it reads."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

import longspan

ROOT = Path(longspan.__file__).parents[2]
PATH = ROOT / "benchmarks" / "summaries.py"
SHARED = ROOT.parent / "shared" / "data"
pytestmark = pytest.mark.skipif(
    not PATH.is_file(), reason="the benchmarks are not beside the package"
)


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = spec_from_file_location("summaries", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        # dataclasses look their annotations up there
        patch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
    return module


def test_units_are_taken_until_there_are_words_enough(bench: ModuleType) -> None:
    units = ["one two", "three", "four five six"]
    taken = {words: bench.enough(units, words).split("\n") for words in (1, 2, 2.5, 3, 4, 99)}
    assert taken == {
        1: units[:1],
        2: units[:1],
        2.5: units[:2],
        3: units[:2],
        4: units,
        99: units,
    }


def test_what_is_nearest_to_a_question_comes_first(bench: ModuleType) -> None:
    units = ("A: the menu was long.", "B: Prices of the remote?", "C: remote prices.")
    piece = bench.Piece(units, ("It was cheap.",), "What were the prices of the remote control?")
    assert bench.by_query(piece) == [units[1], units[2], units[0]]
    assert bench.by_length(piece) == [units[0], units[1], units[2]]


def test_the_best_unit_may_agree_with_any_summary(bench: ModuleType) -> None:
    units = ("Nothing here.", "We sort fast.", "We sort numbers quickly.")
    assert bench.best_unit(bench.Piece(units, ("Cats sleep.", "we sort fast"))) == units[1]


@pytest.mark.parametrize(
    ("name", "folder", "texts", "several"),
    [("scitldr", "sum_scitldr", 618, True), ("qmsum", "sum_qmsum", 281, False)],
)
def test_the_sets_are_read_whole(
    bench: ModuleType, name: str, folder: str, texts: int, several: bool
) -> None:
    if not (SHARED / folder).is_dir():
        pytest.skip(f"{SHARED / folder} is not there")
    pieces = list(bench.SETS[name](SHARED, "test"))
    assert len(pieces) == texts
    assert any(len(piece.targets) > 1 for piece in pieces) == several
    assert all(piece.units and all(piece.units) and all(piece.targets) for piece in pieces)
    assert all(bool(piece.query) != several for piece in pieces)
    assert not any("{" in unit for piece in pieces for unit in piece.units if not several)
