"""Which class a text or an image is of."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from longspan.data.labelled.config import LabelledConfig
from longspan.data.labelled.contents import contents
from longspan.data.labelled.item import Item
from longspan.data.labelled.reading import Reading
from longspan.data.labelled.sequences import (
    SequenceBatch,
    Sequences,
    SequenceSplits,
    batches,
    gather,
    limited,
    prepare,
    read,
)
from longspan.data.plan import Plan
from longspan.data.tokenizer import Codec
from longspan.errors import ConfigError, Conflict, DivergedError
from longspan.models.classifier import CarriedConfig, Classifier, WholeConfig, config_of
from longspan.start import StartConfig
from longspan.state import State
from longspan.task import (
    Answering,
    Asked,
    Lesson,
    Lessons,
    Material,
    Reply,
    Scores,
    batched,
    device_of,
)
from longspan.training.config import TrainConfig
from longspan.verdicts import agreement

TOKENS = 16_384
"""Rows times length that are read at once where nothing is learnt."""

ClassesConfig = WholeConfig | CarriedConfig


@dataclass(frozen=True)
class Classification(Answering, name="classification"):
    """A content to its class, of those that training has seen.

    A reply is a class, its score the class's probability; all probabilities go with it.
    """

    unit: ClassVar[str] = "record"

    @property
    def data(self) -> type[Any]:
        return LabelledConfig

    def learnt(self, folder: str | os.PathLike[str]) -> Reading:
        return Reading.load(folder)

    def model(self, tree: Any) -> type[Any]:
        return config_of(tree)

    def batches(self, model: ClassesConfig, train: TrainConfig) -> str:
        return f"batches of {train.tokens} tokens"

    def sparing(self, model: ClassesConfig, train: TrainConfig) -> str:
        return (
            f"train.tokens (now {train.tokens}; train.accumulate makes up for it) or the model's "
            "width"
        )

    def conflicts(
        self, data: LabelledConfig, model: ClassesConfig, train: TrainConfig
    ) -> list[Conflict]:
        found = batched(self, train)
        if data.input.vectors and isinstance(model, CarriedConfig):
            found.append(
                Conflict(
                    "H2",
                    f"data.input='{data.input.name}' gives vectors, and a decoder reads tokens.",
                    "Use model.encoder.",
                )
            )
        return found

    def prepare(self, data: LabelledConfig, codec: Reading | Codec | None = None) -> SequenceSplits:
        return prepare(data, codec)

    def build(self, model: ClassesConfig, codec: Reading) -> Classifier:
        encoding = codec.encoding
        return Classifier(model, len(codec.classes), encoding.size, encoding.features)

    def started(self, tree: Any, start: StartConfig) -> Any:
        if not isinstance(tree, Mapping | None):
            return tree
        if "decoder" in (tree or {}):
            raise ConfigError(
                f"start.path={start.path} is an encoder; use model.encoder, or leave `start` out"
            )
        return {**(tree or {}), "encoder": start.encoder_tree((tree or {}).get("encoder"))}

    def furnished(self, tree: Any, start: StartConfig) -> Any:
        given = (tree or {}).get("input", "text") if isinstance(tree, Mapping | None) else None
        section = {"name": given} if isinstance(given, str) else given
        if not isinstance(section, Mapping) or section.get("name") != "text":
            raise ConfigError(
                f"start.path={start.path} reads texts; use data.input=text, or leave `start` out"
            )
        return {**(tree or {}), "input": start.tokenizer_tree(section, "data.input")}

    def differing(self, model: WholeConfig, start: StartConfig) -> list[str]:
        return start.encoder_problems(model.encoder, "model.encoder")

    def begin(self, model: Classifier, start: StartConfig) -> None:
        assert model.encoder is not None
        start.begin_encoder(model.encoder, "model.encoder")

    def lessons(
        self, material: Material, data: LabelledConfig, model: ClassesConfig, train: TrainConfig
    ) -> Lessons:
        assert train.tokens is not None
        position = model.stack.position
        limited(material.train, position.limit, position.name)
        plan = batches(material.train, train.tokens, train.seed)
        return _Batches(material.train, plan, train.smoothing)

    def score(self, model: Any, held_out: Sequences, codec: Reading, tokens: int) -> Scores:
        if not len(held_out):
            return {}
        count = len(held_out)
        if tokens:
            count = max(1, min(count, int(tokens / held_out.lengths.mean())))
        # from all over: records of a class may lie together
        chosen = np.arange(count) * len(held_out) // count
        return self.examine(model, held_out.select(chosen), codec)[0]

    def examine(
        self,
        model: Classifier,
        records: Sequences,
        codec: Reading,
        advance: Callable[[int], None] | None = None,
    ) -> tuple[Scores, list[list[Reply]]]:
        found = probabilities(model, records, advance)
        right = found[np.arange(len(records)), records.classes]
        nats = -np.log(np.maximum(right, np.finfo(np.float64).tiny))
        scores = {
            **agreement(found.argmax(1), records.classes),
            "cross_entropy": float(nats.mean()),
        }
        return scores, [_reply(each, codec) for each in found]

    def references(self, records: Sequences) -> Sequence[Sequence[str]]:
        return [(records.reading.classes[number],) for number in records.classes]

    def first(self, records: Sequences, count: int) -> Sequences:
        return records.select(np.arange(min(count, len(records))))

    def read(self, data: LabelledConfig, paths: Sequence[str], codec: Reading) -> Sequences:
        return gather(read(tuple(paths), data), codec, data.first)

    def fields(self, data: LabelledConfig) -> Sequence[str]:
        return [data.source]

    def asked(self, data: LabelledConfig, path: str) -> Iterator[Asked]:
        for item in contents(path, data.source, data.input.files):
            shown = item.content if isinstance(item.content, str) else item.place
            yield Asked(item.place, (shown,), item.content)

    def reply(
        self,
        model: Classifier,
        asked: Sequence[Asked],
        data: LabelledConfig,
        codec: Reading,
        *,
        alternatives: int = 0,
        advance: Callable[[int], None] | None = None,
    ) -> list[list[Reply]]:
        found = probabilities(model, gather(map(_item, asked), codec, data.first), advance)
        return [_reply(each, codec) for each in found]


@dataclass(frozen=True)
class _Batches(Lessons):
    sequences: Sequences
    plan: Plan
    smoothing: float

    def at(self, model: Any, call: int, state: State | None) -> Lesson:
        # of the call alone, so that a run that goes on reads what it would have read
        draw = np.random.default_rng((self.plan.seed, call))
        batch = self.sequences.rows(self.plan.chosen(call), draw)
        scores = scored(model, batch)
        losses = cross_entropy(
            scores,
            batch.classes.to(scores.device),
            reduction="none",
            label_smoothing=self.smoothing,
        )

        def where(bad: Sequence[int]) -> str:
            return self.sequences.places[int(batch.records[bad[0]])]

        return Lesson(losses, int(batch.valid.sum()), None, where)


def scored(model: Classifier, batch: SequenceBatch) -> torch.Tensor:
    """Scores (B, K) of the sequences of a batch."""
    device = device_of(model)
    valid = None if bool(batch.valid.all()) else batch.valid.to(device)
    return model(batch.x.to(device), valid=valid)


@torch.no_grad()
def probabilities(
    model: Classifier, records: Sequences, advance: Callable[[int], None] | None = None
) -> NDArray[np.float64]:
    """Of each record those of all classes, (N, K).

    Args:
        model: in evaluation mode.
        records: N.
        advance: told how many are done.

    Raises:
        DataError: one is longer than the model has places.
        DivergedError: one is no number.
    """
    position = model.config.stack.position
    limited(records, position.limit, position.name)
    found = np.zeros((len(records), model.head.out_features))
    for chosen in records.alike(TOKENS):
        scores = scored(model, records.rows(chosen)).double()
        if not bool(scores.isfinite().all()):
            bad = int((~scores.isfinite()).any(1).nonzero()[0])
            raise DivergedError(f"{records.places[chosen[bad]]}: the scores are no numbers")
        found[chosen] = scores.softmax(1).cpu().numpy()
        if advance is not None:
            advance(len(chosen))
    return found


def _item(asked: Asked) -> Item:
    return Item(asked.place, asked.texts[0] if asked.content is None else asked.content)


def _reply(found: NDArray[np.float64], reading: Reading) -> list[Reply]:
    best = int(found.argmax())
    each: Iterable[tuple[str, float]] = zip(reading.classes, found.tolist(), strict=True)
    return [Reply(reading.classes[best], float(found[best]), more={"probabilities": dict(each)})]
