"""A recipe: all that a training run is, in one YAML file.

Sections: `task` (what for), `data` (what is read), `model` (what learns), `start` (with what
weights, unless fresh ones), `train` (how), `evaluate` and `log` (how it is watched).
The task says what `data` and `model` are. A recipe that ships in the package is called by its name.
Every run keeps its own, resolved, in `run.yaml`, which is a recipe too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

from longspan.compat import refuse
from longspan.config import Tree, attempt, override, plain, read_yaml
from longspan.errors import ConfigError, Conflict, did_you_mean
from longspan.start import StartConfig
from longspan.task import Task
from longspan.training.config import TrainConfig

USUAL = "language_modelling"
"""The task of a recipe that names none."""


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """How training is watched on held-out data.

    Attributes:
        every: steps between evaluations; 0 for none but the last.
        tokens: at most so many held-out tokens are scored; 0 for all.
    """

    every: int = 500
    tokens: int = 100_000

    def __post_init__(self) -> None:
        _natural("evaluate", self, ("every", "tokens"))


@dataclass(frozen=True, kw_only=True)
class LogConfig:
    """What a run writes down.

    Attributes:
        every: steps between lines of `metrics.jsonl`.
        checkpoint: steps between checkpoints; 0 for none but the last.
        tensorboard: also write TensorBoard events.
    """

    every: int = 10
    checkpoint: int = 500
    tensorboard: bool = True

    def __post_init__(self) -> None:
        _natural("log", self, ("every", "checkpoint"))
        if self.every < 1:
            raise ConfigError("log.every must be 1 or more, not 0")


def _natural(section: str, config: Any, names: Sequence[str]) -> None:
    problems = [
        f"{section}.{name} must be 0 or more, not {getattr(config, name)}"
        for name in names
        if getattr(config, name) < 0
    ]
    if problems:
        raise ConfigError(problems)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that a run is.

    Attributes:
        data, model: what the task says they are.
        start: with what weights the model begins; None for fresh ones.
        run: the run's folder; "" for runs/NAME.
    """

    data: Any
    model: Any
    train: TrainConfig
    task: Task = field(default_factory=lambda: Task.find(USUAL)())
    start: StartConfig | None = None
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    log: LogConfig = field(default_factory=LogConfig)
    run: str = ""

    def conflicts(self) -> list[Conflict]:
        """What the sections say against each other."""
        task = self.task.conflicts(self.data, self.model, self.train)
        return [*self.model.conflicts(), *task]


def recipe_names() -> list[str]:
    """The recipes that ship in the package."""
    folder = resources.files("longspan.recipes")
    return sorted(p.name.removesuffix(".yaml") for p in folder.iterdir() if _is_yaml(p.name))


def _is_run(path: Path) -> bool:
    return (path / "run.yaml").is_file()


def _is_yaml(name: str) -> bool:
    return name.endswith(".yaml")


def recipe_text(name: str) -> str:
    """The text of a recipe: a file, or the name of one that ships.

    Raises:
        ConfigError: there is no such file or name.
    """
    path = Path(name)
    if _is_run(path):
        path = path / "run.yaml"
    if path.is_file():
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} cannot be read: {error}") from error
    if name in recipe_names():
        text = resources.files("longspan.recipes").joinpath(f"{name}.yaml")
        return text.read_text(encoding="utf-8")
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        raise ConfigError(f"{name}: there is no such file; `longspan new NAME` writes a recipe")
    raise ConfigError(f"unknown recipe {name!r}{did_you_mean(name, recipe_names())}")


def read_recipe(name: str, changes: Mapping[str, Any] | None = None) -> Recipe:
    """Reads, changes and validates a recipe; makes no tensor.

    Args:
        name: a YAML file, a run's folder, or the name of a recipe that ships.
        changes: values by dotted key, {"model.width": 256}.

    Raises:
        ConfigError: every problem of the recipe at once.
    """
    tree = read_yaml(recipe_text(name), name)
    if _is_run(Path(name)):
        # the folder as it is called now: it may have been moved, or be named from elsewhere
        tree["run"] = name
    tree = override(tree, changes or {})
    task = read_task(tree, name)
    # a run holds all that its start said
    begins = tree.get("start") is not None and not _is_run(Path(name))
    if begins:
        tree = _started(tree, task, name)
    kinds = {"data": task.data, "model": task.model(tree.get("model"))}
    recipe, problems = attempt(Recipe, tree, kinds=kinds)
    if recipe is not None:
        conflicts = recipe.conflicts()
        if begins and recipe.start is not None:
            problems += task.differing(recipe.model, recipe.start)
    else:
        # the model may be sound where other sections are not
        model, _ = attempt(kinds["model"], tree.get("model"))
        conflicts = model.conflicts() if model is not None else []
    if recipe is None or problems:
        raise ConfigError([*problems, *map(str, conflicts)], name)
    refuse(conflicts, name)
    if not recipe.run:
        path = Path(name)
        stem = path.stem if path.suffix else path.name
        recipe = replace(recipe, run=str(Path("runs") / stem))
    return recipe


def _started(tree: Tree, task: Task, name: str) -> Tree:
    """A recipe's tree with what its pretrained start says of model and tokenizer."""
    start, problems = attempt(StartConfig, tree["start"], "start")
    if start is None or problems:
        raise ConfigError(problems, name)
    model = task.started(tree.get("model"), start)
    data = task.furnished(tree.get("data"), start)
    return {**tree, "model": model, "data": data}


def read_task(tree: Tree, name: str) -> Task:
    """The task of a recipe's tree.

    Raises:
        ConfigError: there is no such task, or it has no such settings.
    """
    task, problems = attempt(Task, tree.get("task", USUAL), "task")
    if task is None or problems:
        raise ConfigError(problems, name)
    return task


def read_model(name: str, changes: Mapping[str, Any] | None = None) -> Any:
    """The model alone, of a recipe or of any run; makes no tensor.

    Raises:
        ConfigError: every problem of the model at once.
    """
    tree = override(read_yaml(recipe_text(name), name), changes or {})
    kind = read_task(tree, name).model(tree.get("model"))
    model, problems = attempt(kind, tree.get("model"), "model")
    conflicts = model.conflicts() if model is not None else []
    if model is None or problems:
        raise ConfigError([*problems, *map(str, conflicts)], name)
    refuse(conflicts, name)
    return model


def is_imported(name: str) -> bool:
    """Whether `name` is a run that was imported: a model, and neither data nor training."""
    return _is_run(Path(name)) and "train" not in read_yaml(recipe_text(name), name)


def resolved(recipe: Recipe) -> Tree:
    """Every setting with its default written out, as `run.yaml` keeps it."""
    return plain(recipe)
