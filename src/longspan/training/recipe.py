"""A recipe: all that a training run is, in one YAML file.

Sections: `data` (what is read), `model` (what learns), `train` (how), `evaluate` and `log` (how it
is watched). A recipe that ships in the package is called by its name. Every run keeps its own,
resolved, in `run.yaml`, which is a recipe too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from longspan.compat import refuse
from longspan.config import Tree, attempt, override, plain, read_yaml
from longspan.data import DataConfig
from longspan.errors import ConfigError, Conflict, did_you_mean
from longspan.models.decoder import DecoderConfig

DTypeName = Literal["auto", "float32", "bfloat16", "float64"]
OptimizerName = Literal["adamw", "muon"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a model learns. Budgets are steps.

    Attributes:
        steps: updates of the weights.
        batch: lanes, each an unbroken stream.
        segment: tokens of each lane in a call; None for the pattern's own segment.
        accumulate: calls of every lane whose gradients make one update.
        through: calls that the gradient flows back through before the memory is cut off from it; 1
            is Transformer-XL's own. More is for memories that learn what to write, and takes as
            many times the room for activations.
        learning_rate: the highest, reached after `warmup` steps.
        warmup: steps of linear rise.
        final: learning rate at the end of the cosine, as a share of the highest.
        optimizer: "adamw" (1711.05101), or "muon" (2502.16982) for the matrices of linear maps and
            AdamW for all else, at the same rate and decay.
        weight_decay: on matrices only.
        betas: of AdamW.
        clip: greatest norm of the gradient.
        seed: of everything random.
        device, dtype, threads: where and in what it computes; "auto" and 0 choose, and `run.yaml`
            keeps the choice. In bfloat16 the weights themselves stay float32.
    """

    steps: int
    batch: int
    segment: int | None = None
    accumulate: int = 1
    through: int = 1
    learning_rate: float = 1e-3
    warmup: int = 100
    final: float = 0.1
    optimizer: OptimizerName = "adamw"
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = 1.0
    seed: int = 1
    device: str = "auto"
    dtype: DTypeName = "auto"
    threads: int = 0

    def __post_init__(self) -> None:
        whole = {
            "steps": 1,
            "batch": 1,
            "accumulate": 1,
            "through": 1,
            "warmup": 0,
            "seed": 0,
            "threads": 0,
        }
        problems = [
            f"train.{name} must be {least} or more, not {getattr(self, name)}"
            for name, least in whole.items()
            if getattr(self, name) < least
        ]
        if self.through > 0 and self.accumulate % self.through:
            problems.append(
                f"train.through={self.through} must divide train.accumulate={self.accumulate}: "
                "the gradient flows within one update"
            )
        if self.segment is not None and self.segment < 1:
            problems.append(f"train.segment must be 1 or more, not {self.segment}")
        for name in ("learning_rate", "clip"):
            if not getattr(self, name) > 0:
                problems.append(f"train.{name} must be above 0, not {getattr(self, name)}")
        if not 0 <= self.final <= 1:
            problems.append(f"train.final must be between 0 and 1, not {self.final}")
        if self.weight_decay < 0:
            problems.append(f"train.weight_decay must be 0 or more, not {self.weight_decay}")
        if not all(0 <= beta < 1 for beta in self.betas):
            problems.append(f"train.betas must be at least 0 and below 1, not {list(self.betas)}")
        if problems:
            raise ConfigError(problems)


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
        run: the run's folder; "" for runs/NAME.
    """

    data: DataConfig
    model: DecoderConfig
    train: TrainConfig
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    log: LogConfig = field(default_factory=LogConfig)
    run: str = ""

    @property
    def segment(self) -> int:
        """Tokens of each lane in a call of training."""
        return self.train.segment or self.model.segment

    def conflicts(self) -> list[Conflict]:
        """What the sections say against each other."""
        found = self.model.conflicts()
        own = self.model.segment
        if self.train.segment is None and own == 1:
            some = f"pattern='{self.model.pattern.name}'" if self.model.memories else "no layer"
            found.append(
                Conflict(
                    "T1",
                    f"{some} has {'no ' if self.model.memories else ''}segments of its own.",
                    "Set train.segment, the tokens of each lane in a call.",
                )
            )
        elif own > 1 and self.train.segment not in (None, own):
            found.append(
                Conflict(
                    "T2",
                    f"train.segment={self.train.segment}, but the pattern's segment is {own}; in "
                    "training one call is one segment.",
                    f"Leave train.segment out, or set it to {own}.",
                )
            )
        if self.data.documents and self.model.restores:
            found.append(
                Conflict(
                    "T3",
                    "memory.init='zeros' cannot begin a document in the middle of a segment of "
                    "training.",
                    "Use memory.init=empty, or data.documents=false.",
                )
            )
        limit = self.model.position.limit
        endless = not self.data.documents and not self.model.wrapped
        if limit is not None and endless:
            found.append(
                Conflict(
                    "T4",
                    f"position='{self.model.position.name}' has {limit} places, and with "
                    "data.documents=false positions count on for ever.",
                    "Use data.documents=true, or a position without a limit.",
                )
            )
        if self.train.through == 1:
            found += [
                Conflict(
                    "T5",
                    f"memory='{memory.name}' learns what to write from the calls that read it, and "
                    "train.through=1 cuts the gradient off before them.",
                    "Set train.through to 2 or more, and train.accumulate to a multiple of it.",
                )
                for memory in self.model.memories
                if memory.learns
            ]
        return found


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
    recipe, problems = attempt(Recipe, tree)
    if recipe is not None:
        conflicts = recipe.conflicts()
    else:
        # the model may be sound where other sections are not
        model, _ = attempt(DecoderConfig, tree.get("model"))
        conflicts = model.conflicts() if model is not None else []
    if recipe is None or problems:
        raise ConfigError([*problems, *map(str, conflicts)], name)
    refuse(conflicts, name)
    if not recipe.run:
        path = Path(name)
        stem = path.stem if path.suffix else path.name
        recipe = replace(recipe, run=str(Path("runs") / stem))
    return recipe


def read_model(name: str, changes: Mapping[str, Any] | None = None) -> DecoderConfig:
    """The model alone, of a recipe or of any run; makes no tensor.

    Raises:
        ConfigError: every problem of the model at once.
    """
    tree = override(read_yaml(recipe_text(name), name), changes or {})
    model, problems = attempt(DecoderConfig, tree.get("model"), "model")
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
