"""What the source keeps to: which way imports point, what is never used, what is written down."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import longspan
from longspan.cli.list_ import KINDS, list_
from longspan.comparing import Score
from longspan.decoding.search import Filter, Strategy
from longspan.mixing import Mixer
from longspan.slots import Kernel, Memory, Pattern, Position
from longspan.training.recipe import recipe_names

ROOT = Path(longspan.__file__).parent
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}
"""Files by the module's name after `longspan.`; the package itself is `__init__`."""

DECODING = [
    "decoding",
    "decoding.hypothesis",
    "decoding.step",
    "decoding.search",
    "decoding.drawing",
    "decoding.ranking",
    "decoding.writing",
    "decoding.coverage",
    "decoding.beams",
    "decoding.decode",
    "decoding.explain",
    "decoding.filters*",
    "decoding.strategies*",
]
"""What decodes ids; `decoding.generate` makes text of a run."""

LAYERS = [
    ["errors"],
    ["registry"],
    ["state"],
    ["slots"],
    ["alignment", "buffer", "comparing", "dropping", "lookup", "rotation", "tiles", "mixing"],
    # the four words, and how a query and a key are compared: one idea, one file
    ["positions*", "patterns*", "memories*", "kernels*", "scores*"],
    ["compat", "features", "lowrank", "recurrence"],
    ["mixers*"],
    ["config", "machine"],
    ["models*"],
    ["answers", "data*", "verdicts", *DECODING],
    # what training watches itself with
    ["measure", "measure.perplexity", "measure.cost", "measure.crossover"],
    ["training.config", "training.checkpoint"],
    # what others have trained, from which training may begin
    ["interop.copying", "interop.folder", "interop.bert"],
    ["start"],
    ["task"],
    ["transduction"],
    ["tasks*"],
    [
        "recipes",
        "training",
        "training.loop",
        "training.optimizer",
        "training.recipe",
        "training.run",
    ],
    # what is done with a run
    ["decoding.generate", "measure.compare", "measure.embedding", "measure.stream"],
    ["measure.summary", "measure.reach*"],
    ["show*", "interop", "interop.transfo_xl", "interop.causal"],
    ["cli*"],
]
"""Imports point from a later row to an earlier one, or stay within a package."""

SHARED = {"alignment", "buffer", "comparing", "dropping", "lookup", "rotation"}
"""What members of a slot have in common."""

SLOTS = {
    "positions": Position,
    "patterns": Pattern,
    "memories": Memory,
    "kernels": Kernel,
    "scores": Score,
}

MIXED = {"mixing", "compat", "features", "lowrank", "recurrence"}
"""What mixers have in common."""


def layer(module: str) -> int:
    """Row of a module; the package's own names (`__init__`) are the face of all."""
    rows = [row for row, names in enumerate(LAYERS) if any(fnmatch(module, name) for name in names)]
    assert len(rows) == 1, f"{module} stands in {len(rows)} layers; name it in LAYERS once"
    return rows[0]


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(FILES[module].read_text(encoding="utf-8"))


def imported(module: str) -> Iterator[str]:
    """What a module imports, wherever it does, by full names."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            for alias in node.names:
                # `from longspan.data import lanes` imports the module, not the package alone
                full = f"{node.module}.{alias.name}"
                yield full if full.removeprefix("longspan.") in FILES else str(node.module)


def ours(module: str) -> set[str]:
    """The modules of longspan that a module imports, by their names after `longspan.`."""
    own = {name for name in imported(module) if name.partition(".")[0] == "longspan"}
    assert "longspan" not in own, f"{module} imports the package's face"
    return {name.removeprefix("longspan.") for name in own}


MODULES = [module for module in FILES if module != "__init__"]


def below(other: str, module: str) -> bool:
    """Whether `module` may import `other`."""
    within = other.partition(".")[0] == module.partition(".")[0]
    return layer(other) < layer(module) or (within and layer(other) == layer(module))


def test_imports_point_one_way() -> None:
    wrong = [
        f"{module} imports {other}"
        for module in MODULES
        for other in sorted(ours(module))
        if not below(other, module)
    ]
    assert not wrong
    assert below("slots", "positions.xl")
    assert not below("positions.xl", "slots")
    assert not below("cli.train", "training.loop")


def test_no_module_needs_itself() -> None:
    """Also within a package there is an order (`prepare` raises CycleError if not)."""
    # a package's __init__ lists its members, which may use each other but never the list
    graph = {module: ours(module) for module in MODULES if FILES[module].name != "__init__.py"}
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("folder", SLOTS)
def test_members_of_the_slots_do_not_know_each_other(folder: str) -> None:
    for module in MODULES:
        if module.startswith(f"{folder}."):
            packages = {other.partition(".")[0] for other in ours(module)}
            assert packages <= {"errors", "registry", "state", "slots", *SHARED}, module


def test_mixers_do_not_know_each_other() -> None:
    for module in MODULES:
        # attention has members of the slots as its defaults
        if module.startswith("mixers.") and module != "mixers.softmax":
            known = {"errors", "registry", "state", "slots", *SHARED, *MIXED}
            assert ours(module) <= known, module


def test_strategies_and_filters_do_not_know_each_other() -> None:
    for module in MODULES:
        if module.startswith(("decoding.filters.", "decoding.strategies.")):
            members = {"decoding.filters", "decoding.strategies", "decoding.decode"}
            assert not [other for other in ours(module) if other.startswith(tuple(members))], module


FOLDERS = SLOTS | {
    "mixers": Mixer,
    "decoding.filters": Filter,
    "decoding.strategies": Strategy,
}


@pytest.mark.parametrize(("folder", "kind"), FOLDERS.items(), ids=FOLDERS)
def test_a_file_is_a_member(folder: str, kind: type) -> None:
    """One idea, one file, and the file is called as the recipe calls it."""
    files = {
        module.removeprefix(f"{folder}.") for module in MODULES if module.startswith(f"{folder}.")
    }
    assert set(kind.all()) == files
    for name, member in kind.all().items():
        assert member.__module__ == f"longspan.{folder}.{name}"


def test_longspan_list_names_every_member(capsys: pytest.CaptureFixture[str]) -> None:
    list_()
    out = capsys.readouterr().out
    assert "W [q; k]" in out, "brackets are no markup"
    tables = [table.splitlines() for table in out.split("\n\n")]
    words = {table[0].strip(): {line.split(" ")[0] for line in table[2:]} for table in tables}
    assert {*SLOTS.values(), Mixer} <= set(KINDS)
    for kind in KINDS:
        assert set(kind.all()) <= words[kind.kind]
    assert set(recipe_names()) <= words["recipe"]


def test_help_does_not_wait_for_torch() -> None:
    script = (
        "import sys\n"
        "sys.argv = ['longspan', '--help']\n"
        "from longspan.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'numpy', 'matplotlib', 'tokenizers'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "stream" in run.stdout


def test_importing_the_package_does_not_import_torch() -> None:
    script = "import sys, longspan; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


@pytest.mark.parametrize("name", longspan.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(longspan, name).__name__ == name


def test_type_checkers_and_python_find_the_same_names() -> None:
    (block,) = (
        node
        for node in ast.parse(Path(longspan.__file__).read_text()).body
        if isinstance(node, ast.If)
    )
    named = {
        alias.asname: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert named == longspan._HOME


def test_an_unknown_name_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="module 'longspan' has no attribute 'Attenti0n'"):
        longspan.Attenti0n  # noqa: B018
    assert set(longspan.__all__) < set(dir(longspan))


# What is never used.

UNPICKLERS = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def unpickles(module: str) -> bool:
    """By a package for it, or by the readers of torch and numpy that can."""
    if {name.partition(".")[0] for name in imported(module)} & UNPICKLERS:
        return True
    for node in ast.walk(tree(module)):
        match node:
            case ast.Attribute(value=ast.Name("torch"), attr="load" | "save"):
                return True
            case ast.keyword("allow_pickle") | ast.Name("eval" | "exec"):
                return True
    return False


def test_nothing_is_unpickled() -> None:
    assert not [module for module in FILES if unpickles(module)]


def test_modules_are_called_after_what_they_do() -> None:
    words = {"util", "utils", "helper", "helpers", "common", "misc", "base", "core", "lib"}
    assert not [module for module in FILES if words & set(module.split("."))]


# What is written down.


def test_every_module_says_what_it_is() -> None:
    assert not [module for module in FILES if not ast.get_docstring(tree(module))]


def public(module: ModuleType) -> Iterator[tuple[str, object]]:
    """Public classes and functions made in a module, and the public members of the classes."""
    for name, thing in vars(module).items():
        own = getattr(thing, "__module__", None) == module.__name__
        made = inspect.isclass(thing) or inspect.isroutine(thing)
        if name.startswith("_") or not own or not made:
            continue
        yield name, thing
        if inspect.isclass(thing):
            for member, value in vars(thing).items():
                value = getattr(value, "__func__", value)
                if not member.startswith("_") and isinstance(value, property | type(public)):
                    yield f"{name}.{member}", getattr(thing, member)


def described(name: str, thing: object) -> bool:
    """A method that carries out what its base describes need not repeat it; a class must."""
    if inspect.isclass(thing):
        # what a dataclass writes of itself is no description
        return bool(thing.__doc__) and not thing.__doc__.startswith(f"{name}(")
    return bool((inspect.getdoc(thing) or "").strip())


def test_what_is_public_says_what_it_does() -> None:
    things = [
        (module, name, thing)
        for module in MODULES
        for name, thing in public(import_module(f"longspan.{module}"))
    ]
    assert len(things) > 300
    assert not [f"{module}: {name}" for module, name, thing in things if not described(name, thing)]
