"""What a task is: how data become sequences, what the loss is of, and what tells how good it is.

A recipe names one (`task: translation`); without a name it is language modelling. The task says
what the sections `data` and `model` are, so everything else (the loop, checkpoints, resuming, the
command line) knows nothing of it.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import starmap
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor, nn

from longspan.data.pairs.sources import sources
from longspan.data.tokenizer import Codec
from longspan.decoding.hypothesis import Hypothesis
from longspan.errors import ConfigError, Conflict
from longspan.registry import Component
from longspan.start import StartConfig
from longspan.state import State
from longspan.training.config import TrainConfig


class Learnt(Protocol):
    """What is learnt of training data before the model is: a tokenizer, say."""

    @property
    def fingerprint(self) -> str:
        """Equal for what reads alike."""
        ...

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes what `Task.learnt` reads."""
        ...


Scores = Mapping[str, float]
"""What held-out data say, by name; the first chooses the best checkpoint."""


class Material(Protocol):
    """What a task prepares: three parts of its data, and how they were read."""

    @property
    def train(self) -> Any:
        """What is learnt from."""

    @property
    def valid(self) -> Any:
        """What watches training; empty if there is none."""

    @property
    def test(self) -> Any:
        """What is left for the end; empty if there is none."""

    @property
    def codec(self) -> Any:
        """What was learnt of `train`: the tokenizer, of most tasks (`Learnt`)."""
        ...


@dataclass(frozen=True)
class Lesson:
    """What one call of training gives.

    Attributes:
        losses: (N,) nats, whose mean is to become smaller.
        tokens: how many were read.
        state: what the next call goes on from; None if it begins anew.
        where: what an error calls some of the N.
    """

    losses: Tensor
    tokens: int
    state: State | None
    where: Callable[[Sequence[int]], str]


class Lessons(ABC):
    """The calls of a training. What a call reads depends on its number alone."""

    @abstractmethod
    def at(self, model: nn.Module, call: int, state: State | None) -> Lesson:
        """A call, counted from 0 and without end.

        Args:
            model: in training mode.
            call: its number.
            state: what the call before gave, detached or not.
        """


@dataclass(frozen=True)
class Task(Component, kind="task", folder="longspan.tasks"):
    """What a model is for.

    Traits:
        rises: whether more of the first score is better.
        carries: a call of training goes on from the state of the call before.
        unit: what each loss of training is of.
        begins: what the model reads first of a text is the tokenizer's start symbol.
    """

    rises: ClassVar[bool] = True
    carries: ClassVar[bool] = False
    unit: ClassVar[str] = "token"
    begins: ClassVar[bool] = True

    def learnt(self, folder: str | os.PathLike[str]) -> Learnt:
        """What a run learnt of its data before the model, from its folder.

        Raises:
            CheckpointError: it is missing or damaged.
        """
        return Codec.load(folder)

    @property
    @abstractmethod
    def data(self) -> type[Any]:
        """What the section `data` is."""

    @abstractmethod
    def model(self, tree: Any) -> type[Any]:
        """What the section `model`, of which YAML gave `tree`, is."""

    @abstractmethod
    def batches(self, model: Any, train: TrainConfig) -> str:
        """What a call of training reads, in words."""

    @abstractmethod
    def sparing(self, model: Any, train: TrainConfig) -> str:
        """What to reduce where memory runs out, in words."""

    def conflicts(self, data: Any, model: Any, train: TrainConfig) -> list[Conflict]:
        """What the sections say against each other and against the task."""
        return []

    @abstractmethod
    def prepare(self, data: Any, codec: Any = None) -> Material:
        """Reads, splits and tokenises, or finds what was prepared before.

        Args:
            data: the section.
            codec: what a run learnt, or a tokenizer, to use instead of fitting one.

        Raises:
            DataError: they cannot be read, or there is nothing in them.
        """

    @abstractmethod
    def build(self, model: Any, codec: Any) -> nn.Module:
        """The model of a section, with fresh weights."""

    def started(self, tree: Any, start: StartConfig) -> Any:
        """The section `model`, of which YAML gave `tree`, with what a pretrained start says of it.

        Raises:
            ConfigError: the task's models do not begin so.
            CheckpointError: the start cannot be read.
        """
        raise ConfigError(
            f"start.path={start.path} is an encoder, and task '{self.name}' has none; leave "
            "`start` out"
        )

    def differing(self, model: Any, start: StartConfig) -> list[str]:
        """Why a section `model` cannot begin with a start, if `started` takes it."""
        return []

    def furnished(self, tree: Any, start: StartConfig) -> Any:
        """The section `data`, of which YAML gave `tree`, with a pretrained start's tokenizer.

        Raises:
            ConfigError: it names another one.
        """
        return start.tokenizer_tree(tree)

    def begin(self, model: Any, start: StartConfig) -> None:
        """Gives a fresh model the weights of a pretrained start.

        Raises:
            ConfigError: the model is another one.
            CheckpointError: the weights cannot be read, or do not fit.
        """
        self.started(None, start)

    @abstractmethod
    def lessons(self, material: Material, data: Any, model: Any, train: TrainConfig) -> Lessons:
        """What training reads.

        Raises:
            DataError: it is too short, or something in it is too long.
        """

    @abstractmethod
    def score(self, model: nn.Module, held_out: Any, codec: Any, tokens: int) -> Scores:
        """What held-out data say in training; empty if there are none.

        Args:
            model: in evaluation mode.
            held_out: the part `valid` of what `prepare` gave.
            codec: the tokenizer.
            tokens: about so many are scored at most; 0 for all.

        Raises:
            DivergedError: a loss is no number.
        """


@dataclass(frozen=True)
class Reply:
    """What a model makes of a record.

    Attributes:
        text: it.
        score: that by which replies to one record compare.
        hypothesis: how it was written; None where nothing is written token by token.
        more: what else is known, by name; JSON.
    """

    text: str
    score: float
    hypothesis: Hypothesis | None = None
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Asked:
    """A record without a reply.

    Attributes:
        place: what an error calls it.
        texts: of its fields.
        content: what is read, where that is no text.
    """

    place: str
    texts: tuple[str, ...]
    content: Any = None


@dataclass(frozen=True)
class Answering(Task):
    """A task whose runs reply to one record after another: `longspan evaluate` and `predict`."""

    @property
    def fits(self) -> bool:
        """Whether validation data choose something (`fitted`)."""
        return False

    @abstractmethod
    def read(self, data: Any, paths: Sequence[str], codec: Any) -> Any:
        """Records with what replies are compared with.

        Args:
            data: the section `data` that the run was trained on.
            paths: as the task takes them.
            codec: the tokenizer.

        Raises:
            ConfigError: more paths than the task takes.
            DataError: there is nothing to read, or it cannot be read.
        """

    @abstractmethod
    def first(self, records: Any, count: int) -> Any:
        """The first so many of what `read` or `prepare` gave."""

    def fitted(self, model: nn.Module, valid: Any) -> Self:
        """The task with what validation data choose; itself if they choose nothing.

        Raises:
            DataError: there are none, and they are needed.
        """
        return self

    @abstractmethod
    def examine(
        self, model: Any, records: Any, codec: Any, advance: Callable[[int], None] | None = None
    ) -> tuple[Scores, list[list[Reply]]]:
        """Replies to every record, and scores the best of each.

        Args:
            model: in evaluation mode.
            records: what `read` gave.
            codec: the tokenizer.
            advance: told how many are done.

        Returns:
            The scores, and of each record the replies, best first.
        """

    @abstractmethod
    def fields(self, data: Any) -> Sequence[str]:
        """Names of the fields of a record without its reply."""

    def asked(self, data: Any, path: str) -> Iterator[Asked]:
        """Records without replies.

        Args:
            data: the section `data` that the run was trained on.
            path: a table with the fields, a text file with a record a line, or "-" for such lines
                on standard input.

        Raises:
            DataError: there is none, one is empty, or it cannot be read.
        """
        return starmap(Asked, sources(path, self.fields(data)))

    @abstractmethod
    def reply(
        self,
        model: Any,
        asked: Sequence[Asked],
        data: Any,
        codec: Any,
        *,
        alternatives: int = 0,
        advance: Callable[[int], None] | None = None,
    ) -> list[list[Reply]]:
        """Replies to records, of each the best first.

        Args:
            model: in evaluation mode.
            asked: what `asked` gave.
            data: the section `data` that the run was trained on.
            codec: the tokenizer.
            alternatives: tell so many candidates of each step, where there are steps.
            advance: told how many are done.

        Raises:
            InputError: a record that the model cannot take.
        """

    @abstractmethod
    def references(self, records: Any) -> Sequence[Sequence[str]]:
        """Of each record what replies are compared with."""


def device_of(model: nn.Module) -> torch.device:
    """Where a model computes."""
    return next(model.parameters()).device


def batched(task: Task, train: TrainConfig) -> list[Conflict]:
    """What `train` says against a task that reads batches of records of like length."""
    found = []
    if train.tokens is None:
        found.append(
            Conflict(
                "T6",
                f"{task.name} reads batches of records of like length.",
                "Set train.tokens, rows times tokens of a batch: 4096, for instance.",
            )
        )
    for name, usual in (("batch", None), ("segment", None), ("through", 1)):
        if (value := getattr(train, name)) != usual:
            found.append(
                Conflict(
                    "T7",
                    f"train.{name}={value} is of tasks that read streams; {task.name} reads "
                    "records, each from its beginning to its end.",
                    "Leave it out; train.tokens says how much a call reads.",
                )
            )
    return found


def smoothed(smoothing: float) -> Conflict:
    """Of smoothed targets and a vocabulary in clusters."""
    return Conflict(
        "T8",
        f"train.smoothing={smoothing} needs scores of all tokens, and an adaptive output makes "
        "those of the clusters that occur.",
        "Use train.smoothing=0, or leave model.vocabulary.cutoffs out.",
    )
