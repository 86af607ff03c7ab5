"""How a model learns: the `train` section of a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from longspan.errors import ConfigError, unlisted

DTypeName = Literal["auto", "float32", "bfloat16", "float64"]
OptimizerName = Literal["adamw", "muon"]
ScheduleName = Literal["cosine", "inverse_sqrt"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a model learns. Budgets are steps.

    Attributes:
        steps: updates of the weights.
        batch: lanes, each an unbroken stream; of tasks that read streams.
        tokens: rows times tokens of a batch of pairs, padding among them, for sources and for
            targets; of tasks that read one sequence and write another.
        segment: tokens of each lane in a call; None for the pattern's own segment.
        accumulate: calls whose gradients make one update.
        through: calls that the gradient flows back through before the memory is cut off from it; 1
            is Transformer-XL's own. More is for memories that learn what to write, and takes as
            many times the room for activations.
        learning_rate: the highest, reached after `warmup` steps.
        warmup: steps of linear rise.
        schedule: what follows: "cosine" (1608.03983), or "inverse_sqrt" of the steps (1706.03762,
            equation 3).
        final: learning rate at the end of the cosine, as a share of the highest.
        smoothing: share of the targets' probability that all tokens have alike (1706.03762, section
            5.4).
        average: the weights that are evaluated and kept as the model are a moving average, which
            keeps this share of itself at each step; 0 for those of the last step.
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
    batch: int | None = None
    tokens: int | None = None
    segment: int | None = None
    accumulate: int = 1
    through: int = 1
    learning_rate: float = 1e-3
    warmup: int = 100
    schedule: ScheduleName = "cosine"
    final: float = 0.1
    smoothing: float = 0.0
    average: float = 0.0
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
        problems += [
            f"train.{name} must be 1 or more, not {value}"
            for name in ("batch", "tokens", "segment")
            if (value := getattr(self, name)) is not None and value < 1
        ]
        for name in ("learning_rate", "clip"):
            if not getattr(self, name) > 0:
                problems.append(f"train.{name} must be above 0, not {getattr(self, name)}")
        if not 0 <= self.final <= 1:
            problems.append(f"train.final must be between 0 and 1, not {self.final}")
        problems += [
            f"train.{name} must be at least 0 and below 1, not {getattr(self, name)}"
            for name in ("smoothing", "average")
            if not 0 <= getattr(self, name) < 1
        ]
        if self.weight_decay < 0:
            problems.append(f"train.weight_decay must be 0 or more, not {self.weight_decay}")
        if not all(0 <= beta < 1 for beta in self.betas):
            problems.append(f"train.betas must be at least 0 and below 1, not {list(self.betas)}")
        problems += unlisted("train", self)
        if problems:
            raise ConfigError(problems)
