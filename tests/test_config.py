"""From YAML to dataclasses and back, and what is said on the way."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import longspan
from longspan import Recent, Segments
from longspan.cli.settings import parse
from longspan.config import build, differences, override, plain, read_yaml, write_yaml
from longspan.data import DataConfig
from longspan.errors import ConfigError, IncompatibleConfig, did_you_mean
from longspan.models.decoder import DecoderConfig
from longspan.slots import Memory
from longspan.training.recipe import read_recipe, recipe_names, recipe_text, resolved
from tests.tiny import SETTINGS, images, written


@dataclass(frozen=True, kw_only=True)
class Inner:
    size: int = 3
    rate: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: str
    memory: Memory
    inner: Inner = field(default_factory=Inner)
    mode: Literal["fast", "slow"] = "fast"
    pair: tuple[float, float] = (0.0, 1.0)
    paths: str | tuple[str, ...] = ""
    limit: int | None = None
    loud: bool = False


SMALL: dict[str, Any] = {"name": "n", "memory": "cache"}


def problems(tree: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        build(Outer, tree)
    return caught.value.problems


# -- building -------------------------------------------------------------------------------------


def test_a_component_is_a_name_or_a_mapping_with_its_name() -> None:
    assert build(Outer, SMALL).memory == longspan.Cache()
    tree = {"name": "recent", "tokens": 5, "store": "hidden"}
    assert build(Outer, SMALL | {"memory": tree}).memory == Recent(5, store="hidden")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"nmae": 1}, "nmae is unknown, did you mean 'name'?"),
        ({"inner": {"sise": 1}}, "inner.sise is unknown, did you mean 'size'?"),
        ({"memory": "recnt"}, "memory: unknown memory 'recnt', did you mean 'recent'?"),
        (
            {"memory": {"name": "recent", "tokens": 1, "stor": "keys"}},
            "memory.stor is unknown, did you mean 'store'?",
        ),
        ({"memory": "recent"}, "memory.tokens is required"),
        ({"memory": {"tokens": 3}}, "memory must name a memory or be a mapping with its name"),
        ({"memory": 3}, "memory must name a memory or be a mapping with its name, not 3"),
        ({"memory": None}, "memory must name a memory or be a mapping with its name, not null"),
        ({"memory": {"name": "recent", "tokens": -1}}, "memory.tokens must be 0 or more, not -1"),
        (
            {"memory": {"name": "recent", "tokens": 1, "store": "keyz"}},
            "memory.store cannot be 'keyz', did you mean 'keys'?",
        ),
        ({"mode": "fats"}, "mode cannot be 'fats', did you mean 'fast'? (fast, slow)"),
        ({"mode": ["fast"]}, "mode cannot be ['fast']"),
        ({"inner": 3}, "inner must be a mapping, not 3"),
        ({"inner": {"size": "big"}}, "inner.size must be a whole number, not 'big'"),
        ({"inner": {"size": 1.5}}, "inner.size must be a whole number, not 1.5"),
        ({"inner": {"size": True}}, "inner.size must be a whole number, not True"),
        ({"inner": {"rate": "fast"}}, "inner.rate must be a number, not 'fast'"),
        ({"inner": {"rate": False}}, "inner.rate must be a number, not False"),
        ({"name": 7}, "name must be a word, not 7"),
        ({"loud": 1}, "loud must be true or false, not 1"),
        ({"pair": [1]}, "pair must have 2 values, not 1"),
        ({"pair": 1}, "pair must be a list, not 1"),
        ({"pair": [1, "x"]}, "pair[1] must be a number, not 'x'"),
        ({"paths": 7}, "paths must be a word or a list, not 7"),
        ({"limit": "all"}, "limit must be a whole number, not 'all'"),
    ],
)
def test_what_cannot_be_is_named_with_its_key(change: dict[str, Any], said: str) -> None:
    (problem,) = problems(SMALL | change)
    assert problem.startswith(said)


def test_what_is_required_is_named() -> None:
    assert problems({}) == ["name is required", "memory is required"]


@pytest.mark.parametrize("tree", [None, 3, "text", ["a"]])
def test_what_is_no_mapping_is_refused(tree: Any) -> None:
    assert problems(tree)[0].startswith("the recipe must be a mapping")


def test_every_problem_is_said_at_once() -> None:
    tree = {"nmae": 1, "memory": {"name": "recent", "tokens": -1}, "inner": {"size": "x"}}
    tree |= {"mode": "fats", "pair": [1]}
    assert [problem.split()[0] for problem in problems(tree)] == [
        "nmae",
        "memory.tokens",
        "inner.size",
        "mode",
        "pair",
        "name",
    ]


def test_numbers_are_read_as_they_are_meant() -> None:
    made = build(Outer, SMALL | {"inner": {"rate": 1}, "pair": [1, "1e-3"], "paths": ["a", "b"]})
    assert made.inner.rate == 1.0
    assert isinstance(made.inner.rate, float)
    assert made.pair == (1.0, 0.001)
    assert made.paths == ("a", "b")
    # YAML reads 1e-3 as a word
    assert yaml.safe_load("1e-3") == "1e-3"


decimals = st.floats(allow_nan=False, allow_infinity=False)
names = st.text("abc: -#'\"é\n", max_size=6)
outers = st.builds(
    Outer,
    name=names,
    memory=st.one_of(
        st.just(longspan.Cache()),
        st.just(longspan.NoMemory()),
        st.builds(Recent, st.integers(0, 9), store=st.sampled_from(["keys", "hidden"])),
    ),
    inner=st.builds(Inner, size=st.integers(), rate=decimals),
    mode=st.sampled_from(["fast", "slow"]),
    pair=st.tuples(decimals, decimals),
    paths=names | st.lists(names).map(tuple),
    limit=st.none() | st.integers(),
    loud=st.booleans(),
)


@given(outers)
def test_what_is_written_is_read_back(config: Outer) -> None:
    assert build(Outer, plain(config)) == config
    assert build(Outer, read_yaml(write_yaml(plain(config)), "test")) == config


# -- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1", "x.yaml: not YAML in line "),
        ("a: 1\nb: }", "x.yaml: not YAML in line 2"),
        ("- a\n- b", "x.yaml: a recipe is a mapping of sections"),
        ("", "x.yaml: a recipe is a mapping of sections"),
        ("!!python/object/apply:os.system ['true']", "x.yaml: not YAML in line 1"),
    ],
)
def test_what_is_no_recipe_is_refused_with_its_line(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_yaml(text, "x.yaml")
    assert str(caught.value).startswith(said)


# -- overrides ------------------------------------------------------------------------------------

TREE = {"model": {"memory": {"name": "recent", "tokens": 32}, "width": 8}, "run": "a"}


@pytest.mark.parametrize(
    ("changes", "want"),
    [
        ({"run": "b"}, TREE | {"run": "b"}),
        ({"model.width": 9}, {"model": {**TREE["model"], "width": 9}, "run": "a"}),
        ({"model": {"width": 9}}, {"model": {**TREE["model"], "width": 9}, "run": "a"}),
        (
            {"model.memory.tokens": 5},
            {"model": {"memory": {"name": "recent", "tokens": 5}, "width": 8}, "run": "a"},
        ),
        ({"log.every": 3}, TREE | {"log": {"every": 3}}),
    ],
)
def test_a_dotted_key_changes_one_value(changes: dict[str, Any], want: Any) -> None:
    before = yaml.safe_dump(TREE)
    assert override(TREE, changes) == want
    assert yaml.safe_dump(TREE) == before


@pytest.mark.parametrize(
    "changes",
    [
        {"model.memory": "tokens"},
        {"model.memory": {"name": "tokens"}},
        {"model": {"memory": {"name": "tokens"}}},
        {"model.memory.name": "tokens"},
    ],
)
def test_another_component_drops_the_settings_of_the_old_one(changes: dict[str, Any]) -> None:
    memory = override(TREE, changes)["model"]["memory"]
    assert memory in ("tokens", {"name": "tokens"})


@pytest.mark.parametrize("component", ["model.memory", "model.memory.name"])
def test_the_order_of_changes_does_not_matter(component: str) -> None:
    pairs = [(component, "tokens"), ("model.memory.count", 3)]
    for order in (pairs, pairs[::-1]):
        memory = override(TREE, dict(order))["model"]["memory"]
        assert memory == {"name": "tokens", "count": 3}


def test_naming_the_same_component_keeps_its_settings() -> None:
    assert override(TREE, {"model.memory.name": "recent"}) == TREE
    assert override(TREE, {"model": {"memory": {"name": "recent"}}}) == TREE


def test_differences_name_the_dotted_keys() -> None:
    new = {"model": {"memory": "cache", "width": 8, "heads": 2}}
    assert list(differences(TREE, new)) == [
        ("model.memory", {"name": "recent", "tokens": 32}, "cache"),
        ("model.heads", None, 2),
        ("run", "a", None),
    ]
    assert list(differences(TREE, TREE)) == []


@pytest.mark.parametrize(
    ("words", "value"),
    [
        (["--data.path", "stdlib:"], "stdlib:"),
        (["--data.path=hf:name"], "hf:name"),
        (["--data.path", "2024-05-01"], "2024-05-01"),
        (["--data.path", "a b"], "a b"),
        (["--data.path", "-"], "-"),
        (["--data.path", "[a, b]"], ["a", "b"]),
        (["--data.path", "[a"], "[a"),
        (["--data.path", "{name: recent}"], {"name": "recent"}),
        (["--data.path", "3"], 3),
        (["--data.path", "-3"], -3),
        (["--data.path", "1.5e-3"], 0.0015),
        (["--data.path", "true"], True),
        (["--data.path", "null"], None),
        (["--data.path="], None),
    ],
)
def test_a_setting_is_read_as_yaml_but_a_path_stays_one(words: list[str], value: Any) -> None:
    assert parse(words) == {"data.path": value}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["data.path", "x"], "'data.path' is no setting; settings are --section.key value"),
        (["--data.path"], "--data.path needs a value"),
        (["--data.path", "--train.steps", "3"], "--data.path needs a value"),
        (["--steps", "3"], "--steps is no option and no setting"),
    ],
)
def test_what_is_no_setting_is_refused(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse(words)


# -- recipes --------------------------------------------------------------------------------------

TOY = {"train.steps": 2, "evaluate.tokens": 300, **SETTINGS}
SIZES = {"width": 16, "layers": 2, "heads": 2, "feed_forward": 16}


def toy(name: str) -> dict[str, Any]:
    """Settings that make a recipe small, whatever its slots are."""
    tree = read_yaml(recipe_text(name), name)
    model, changes = tree["model"], dict(TOY)
    changes |= {"train.tokens": 400} if "tokens" in tree["train"] else {"train.batch": 2}
    for side in [side for side in ("encoder", "decoder") if side in model] or [""]:
        part, prefix = (model[side], f"model.{side}.") if side else (model, "model.")
        layers = {"layers": len(part.get("stack", "ab"))}
        changes |= {f"{prefix}{key}": value for key, value in (SIZES | layers).items()}
        for slot, lengths in {
            "pattern": ("length", "memory", "width"),
            "memory": ("tokens",),
        }.items():
            for key in lengths:
                if isinstance(part.get(slot), dict) and part[slot].get(key):
                    changes[f"{prefix}{slot}.{key}"] = 16
    return changes


def material(name: str, folder: Path, corpus: Path) -> dict[str, Any]:
    """Settings that name data such as the recipe is made for."""
    tree = read_yaml(recipe_text(name), name)
    task = tree.get("task", "language_modelling")
    kind = task if isinstance(task, str) else task["name"]
    if kind == "language_modelling":
        return {"data.path": str(corpus)}
    if "input" in tree["data"] and tree["data"]["input"]["name"] == "patches":
        return images(folder)
    tokenizer = "data.tokenizer" if "tokenizer" in tree["data"] else "data.input.tokenizer"
    return {f"{tokenizer}.vocab": 300, "data.valid": 0.1} | written(kind, tree["data"], folder)


def test_the_shipped_recipes_are_known() -> None:
    assert {"demo", "lstm", "mixed", "tiny", "xl-small"} <= set(recipe_names())


@pytest.mark.parametrize("name", recipe_names())
def test_a_shipped_recipe_is_sound_and_says_what_it_is(name: str, tmp_path: Path) -> None:
    recipe = read_recipe(name)
    assert recipe.run == f"runs/{name}"
    again = tmp_path / "again.yaml"
    again.write_text(write_yaml(resolved(recipe)), encoding="utf-8")
    assert read_recipe(str(again)) == recipe
    assert recipe_text(name).startswith("# ")


@pytest.mark.parametrize("name", recipe_names())
def test_a_shipped_recipe_trains_at_toy_size(name: str, tmp_path: Path, corpus: Path) -> None:
    data = material(name, tmp_path, corpus)
    changes = toy(name) | data | {"run": str(tmp_path / "run")}
    folder = longspan.train(name, **changes)
    run = longspan.load(folder, checkpoint="last")
    assert run.config["train"]["steps"] == 2
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tny", "unknown recipe 'tny', did you mean 'tiny'?"),
        ("nothing.yaml", "nothing.yaml: there is no such file"),
        ("no/such", "no/such: there is no such file"),
    ],
)
def test_a_recipe_that_is_not_there_is_told(name: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_recipe(name)
    assert str(caught.value).startswith(said)


def test_a_file_names_its_run(tmp_path: Path) -> None:
    file = tmp_path / "books.v2.yaml"
    file.write_text(recipe_text("tiny"))
    assert read_recipe(str(file)).run == "runs/books.v2"
    assert read_recipe(str(file), {"run": "elsewhere"}).run == "elsewhere"


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"x\.yaml cannot be read"):
        read_recipe(str(tmp_path / "x.yaml"))


def test_what_is_unsound_does_not_hide_the_rest_of_its_section() -> None:
    changes = {
        "model.position": {"name": "xl", "clamp": 0},
        "model.layers": 0,
        "model.dropout": 2,
        "train.learning_rat": 1,
        "train.seed": -1,
    }
    with pytest.raises(ConfigError) as caught:
        read_recipe("tiny", changes)
    assert [problem.split()[0] for problem in caught.value.problems] == [
        "position.clamp",
        "model.layers",
        "model.dropout",
        "train.learning_rat",
        "train.seed",
    ]


def test_problems_of_all_sections_and_conflicts_come_at_once() -> None:
    changes = {
        "data.pth": "x",
        "data.valid": 2,
        "model.memory.tokens": 8,
        "train.steps": 0,
        "train.clip": -1,
        "evaluate.every": -1,
        "log.every": 0,
    }
    with pytest.raises(ConfigError) as caught:
        read_recipe("tiny", changes)
    assert [problem.split()[0] for problem in caught.value.problems] == [
        "data.pth",
        "data.valid",
        "train.steps",
        "train.clip",
        "evaluate.every",
        "log.every",
        "[M2]",
    ]
    assert str(caught.value).startswith("tiny: 7 problems\n  data.pth is unknown, did you mean")


LEARNED = {"name": "learned", "length": 512}
UNTAUGHT = {"name": "compressive", "tokens": 32, "compressed": 8, "loss": "none"}


@pytest.mark.parametrize(
    ("changes", "rules"),
    [
        ({"model.memory.tokens": 8}, ["M2"]),
        ({"model.pattern": "full"}, ["M1", "D1", "T1"]),
        ({"model.pattern": "causal", "model.memory": "cache"}, ["T1"]),
        ({"train.segment": 16}, ["T2"]),
        ({"model.memory.init": "zeros"}, ["T3"]),
        ({"model.position": LEARNED, "data.documents": False}, ["T4"]),
        ({"model.pattern.memory": 0, "model.memory": {"name": "layer", "slots": 4}}, ["T5"]),
        ({"model.memory": UNTAUGHT}, ["T5"]),
        ({"model.memory.init": "zeros", "model.memory.tokens": 8, "train.segment": 9}, None),
    ],
)
def test_choices_that_exclude_each_other(changes: dict[str, Any], rules: list[str] | None) -> None:
    with pytest.raises(IncompatibleConfig) as caught:
        read_recipe("tiny", changes)
    assert [c.rule for c in caught.value.conflicts] == (rules or ["M2", "T2", "T3"])
    for conflict in caught.value.conflicts:
        assert conflict.repair
        assert conflict.repair in str(caught.value)


def test_the_repairs_work() -> None:
    read_recipe("tiny", {"model.memory.tokens": 8, "model.pattern.memory": 8})
    read_recipe("tiny", {"model.memory.tokens": 8, "model.exact": False})
    read_recipe("tiny", {"model.memory.init": "zeros", "data.documents": False})
    read_recipe("tiny", {"model.position": LEARNED})
    segment = read_recipe(
        "tiny", {"model.pattern": "causal", "model.memory": "cache", "train.segment": 9}
    )
    assert segment.train.segment == 9


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.width", 0),
        ("model.heads", 3),
        ("model.dropout", 1.0),
        ("train.final", 1.5),
        ("train.betas", [0.9, 1.0]),
        ("train.weight_decay", -1),
        ("train.segment", 0),
        ("train.learning_rate", 0),
        ("evaluate.tokens", -1),
        ("data.test", 0.95),
    ],
)
def test_values_out_of_range_are_refused_with_their_key(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=key.replace(".", r"\.")):
        read_recipe("tiny", {key: value})


def test_python_makes_the_same_configs_without_strings() -> None:
    recipe = read_recipe("tiny")
    model = DecoderConfig(
        width=32,
        layers=2,
        heads=2,
        feed_forward=64,
        position=longspan.XL(),
        pattern=Segments(32, 32),
        memory=Recent(32),
    )
    assert recipe.model == model
    assert recipe.data == DataConfig(path="data", valid=0.1, test=0.1)


def test_the_nearest_name_is_suggested_and_all_are_listed() -> None:
    assert did_you_mean("recnt", ["recent", "cache"]) == ", did you mean 'recent'? (cache, recent)"
    assert did_you_mean("xyz", ["recent", "cache"]) == "; choose one of: (cache, recent)"
