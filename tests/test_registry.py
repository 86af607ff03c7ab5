"""Components are found by the names that they give themselves."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from longspan.errors import ConfigError
from longspan.registry import Component
from longspan.slots import Kernel, Memory, Pattern, Position

CHEESES = {
    "__init__.py": "",
    "kind.py": (
        "from longspan.registry import Component\n"
        "class Cheese(Component, kind='cheese', folder='cheeses.shelf'): ...\n"
    ),
    "shelf/__init__.py": "",
    "shelf/brie.py": ("from cheeses.kind import Cheese\nclass Brie(Cheese, name='brie'): ...\n"),
}


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package with a kind of its own, and one member in the kind's folder."""
    for name, text in CHEESES.items():
        file = tmp_path / "cheeses" / name
        file.parent.mkdir(exist_ok=True, parents=True)
        file.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "cheeses"
    for name in [n for n in sys.modules if n.partition(".")[0] == "cheeses"]:
        del sys.modules[name]


def test_a_member_is_found_by_adding_a_file(shop: Path) -> None:
    (shop / "shelf" / "gouda.py").write_text(
        "from cheeses.kind import Cheese\nclass Gouda(Cheese, name='gouda'): ...\n"
    )
    from cheeses.kind import Cheese

    assert Cheese.members == {}
    assert Cheese.find("gouda").__name__ == "Gouda"
    assert list(Cheese.all()) == ["brie", "gouda"]
    assert Cheese.find("brie").name == "brie"


def test_an_unknown_name_is_answered_with_the_nearest(shop: Path) -> None:
    from cheeses.kind import Cheese

    with pytest.raises(ConfigError, match=r"unknown cheese 'brei', did you mean 'brie'\? \(brie\)"):
        Cheese.find("brei")
    with pytest.raises(ConfigError, match=r"unknown cheese 'x'; choose one of: \(brie\)"):
        Cheese.find("x")


def test_two_members_of_one_name_are_a_mistake(shop: Path) -> None:
    from cheeses.kind import Cheese

    Cheese.all()
    with pytest.raises(TypeError, match="two members of cheese are named 'brie'"):
        type("Other", (Cheese,), {}, name="brie")


def test_what_is_no_kind_has_no_members() -> None:
    with pytest.raises(TypeError, match="Component is not a kind"):
        Component.find("xl")


def test_a_base_without_a_name_is_no_member() -> None:
    """`Buffer` is what three memories share, and nothing that a recipe can name."""
    before = set(Memory.all())

    @dataclass(frozen=True)
    class Shared(Memory):
        pass

    assert set(Memory.all()) == before


def test_kinds_do_not_mix() -> None:
    names = {kind: set(kind.all()) for kind in (Position, Pattern, Memory, Kernel)}
    assert {"xl", "rotary", "alibi", "sinusoidal", "none"} <= names[Position]
    assert {"full", "causal", "segments", "window"} <= names[Pattern]
    assert {"none", "cache", "recent"} <= names[Memory]
    assert {"reference", "sdpa", "auto"} <= names[Kernel]
    for kind in names:
        assert all(issubclass(member, kind) for member in kind.all().values())
        assert list(kind.all()) == sorted(kind.all())
    assert Position.find("none") is not Memory.find("none")
