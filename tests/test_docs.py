"""What the documentation shows must work: every fragment is trained, every example is run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import longspan
from longspan.cli.list_ import KINDS
from longspan.config import override, read_yaml, write_yaml
from longspan.training.recipe import recipe_text

DOCS = Path(longspan.__file__).parents[2] / "docs"
TEXT = (DOCS / "components.md").read_text(encoding="utf-8") if DOCS.is_dir() else ""
SECTION = re.compile(r"^## (\w+)$(.*?)(?=^## |\Z)", re.M | re.S)
MEMBER = re.compile(r"^### `([\w]+)`$(.*?)(?=^### |\Z)", re.M | re.S)
FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)

MEMBERS = {
    word: {name: FENCED.findall(body) for name, body in MEMBER.findall(text)}
    for word, text in SECTION.findall(TEXT)
}
FRAGMENTS = [
    pytest.param(language, code, id=f"{word}-{name}")
    for word, members in MEMBERS.items()
    for name, blocks in members.items()
    for language, code in blocks
]


PAGES = [path for path in sorted(DOCS.glob("*.md")) if path.name != "components.md"]
SHOWN = [
    pytest.param(code, id=f"{path.stem}-{number}")
    for path in PAGES
    for number, (language, code) in enumerate(FENCED.findall(path.read_text(encoding="utf-8")))
    if language == "python"
]


@pytest.mark.skipif(not TEXT, reason="the documentation is not beside the package")
@pytest.mark.parametrize("kind", [k for k in KINDS if k.kind in MEMBERS], ids=lambda k: k.kind)
def test_every_member_is_there_with_an_example(kind: type) -> None:
    assert set(MEMBERS[kind.kind]) == set(kind.all())
    assert all(MEMBERS[kind.kind].values())


def test_the_words_are_there() -> None:
    assert {"position", "pattern", "memory", "mixer", "score"} <= set(MEMBERS)


@pytest.mark.parametrize(("language", "code"), FRAGMENTS)
def test_an_example_works(language: str, code: str, tmp_path: Path) -> None:
    if language == "python":
        exec(compile(code, "docs/components.md", "exec"), {})
        return
    assert language == "yaml"
    data = tmp_path / "text"
    data.write_text("the cat sat on the mat, and the mat was flat.\n" * 60, encoding="utf-8")
    quick = {
        "data": {"path": str(data)},
        "train": {"steps": 2, "device": "cpu", "threads": 1},
        "evaluate": {"every": 0, "tokens": 200},
        "log": {"tensorboard": False},
        "run": str(tmp_path / "run"),
    }
    recipe = override(read_yaml(recipe_text("tiny"), "tiny"), quick)
    fragment = read_yaml(code, "docs/components.md")
    (tmp_path / "recipe.yaml").write_text(write_yaml(override(recipe, fragment)))
    longspan.train(str(tmp_path / "recipe.yaml"))
    lines = (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8")
    assert '"step": 2' in lines
    assert "NaN" not in lines


@pytest.mark.parametrize("code", SHOWN)
def test_a_page_shows_what_works(code: str) -> None:
    exec(compile(code, "docs", "exec"), {})
