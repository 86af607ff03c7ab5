"""Language modelling: the next token of an unbroken stream, with the memory of what came before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from longspan.data import Codec, DataConfig, Splits, prepare
from longspan.data.corpus import Corpus
from longspan.data.lanes import Lanes
from longspan.errors import Conflict
from longspan.measure.perplexity import evaluate
from longspan.models.decoder import Decoder, DecoderConfig
from longspan.state import State
from longspan.task import Lesson, Lessons, Material, Scores, Task, device_of, smoothed
from longspan.training.config import TrainConfig


@dataclass(frozen=True)
class LanguageModelling(Task, name="language_modelling"):
    """The next token of documents, read in lanes whose memory is carried from call to call."""

    rises: ClassVar[bool] = False
    carries: ClassVar[bool] = True

    @property
    def data(self) -> type[Any]:
        return DataConfig

    def model(self, tree: Any) -> type[Any]:
        return DecoderConfig

    def conflicts(
        self, data: DataConfig, model: DecoderConfig, train: TrainConfig
    ) -> list[Conflict]:
        return _conflicts(data, model, train)

    def batches(self, model: DecoderConfig, train: TrainConfig) -> str:
        return f"{train.batch} lanes of {train.segment or model.segment} tokens"

    def sparing(self, model: DecoderConfig, train: TrainConfig) -> str:
        return (
            f"train.batch (now {train.batch}; train.accumulate makes up for it), the segment "
            f"({train.segment or model.segment}), the memory or model.width"
        )

    def prepare(self, data: DataConfig, codec: Codec | None = None) -> Splits:
        return prepare(data, codec)

    def build(self, model: DecoderConfig, codec: Codec) -> Decoder:
        return Decoder(model, codec.size)

    def lessons(
        self, material: Material, data: DataConfig, model: DecoderConfig, train: TrainConfig
    ) -> Lessons:
        assert train.batch is not None
        lanes = Lanes(material.train, train.batch, train.segment or model.segment)
        return _Streams(lanes, data.documents, train.smoothing)

    def score(self, model: nn.Module, held_out: Corpus, codec: Codec, tokens: int) -> Scores:
        if len(held_out) < 2:
            return {}
        assert isinstance(model, Decoder)
        score = evaluate(model, held_out, codec, limit=tokens)
        scores = {"bits_per_byte": score.bits_per_byte}
        return scores if score.unit == "byte" else {**scores, "perplexity": score.perplexity}


@dataclass(frozen=True)
class _Streams(Lessons):
    lanes: Lanes
    documents: bool
    smoothing: float

    def at(self, model: nn.Module, call: int, state: State | None) -> Lesson:
        assert isinstance(model, Decoder)
        batch, device = self.lanes.at(call), device_of(model)
        inputs, targets = batch.inputs.to(device), batch.targets.to(device)
        begins = self.documents and bool(batch.starts.any())
        starts = batch.starts.to(device) if begins else None
        h, state = model.hidden(inputs, state, starts=starts)
        losses = model.head.nll(h.flatten(0, 1), targets.flatten(), self.smoothing)
        lanes = losses.view(targets.shape).mean(1)
        return Lesson(lanes, targets.numel(), state, _lanes)


def _lanes(bad: Sequence[int]) -> str:
    return f"lane {', '.join(map(str, bad))}"


def _conflicts(data: DataConfig, model: DecoderConfig, train: TrainConfig) -> list[Conflict]:
    found = []
    if train.batch is None:
        found.append(
            Conflict(
                "T6",
                "language_modelling reads in lanes, each an unbroken stream.",
                "Set train.batch, how many.",
            )
        )
    if train.tokens is not None:
        found.append(
            Conflict(
                "T7",
                f"train.tokens={train.tokens} is of tasks that read pairs.",
                "Leave it out; train.batch and train.segment say what a call reads.",
            )
        )
    if train.smoothing and model.vocabulary.cutoffs:
        found.append(smoothed(train.smoothing))
    own = model.segment
    if train.segment is None and own == 1:
        some = f"pattern='{model.pattern.name}'" if model.memories else "no layer"
        found.append(
            Conflict(
                "T1",
                f"{some} has {'no ' if model.memories else ''}segments of its own.",
                "Set train.segment, the tokens of each lane in a call.",
            )
        )
    elif own > 1 and train.segment not in (None, own):
        found.append(
            Conflict(
                "T2",
                f"train.segment={train.segment}, but the pattern's segment is {own}; in "
                "training one call is one segment.",
                f"Leave train.segment out, or set it to {own}.",
            )
        )
    if data.documents and model.restores:
        found.append(
            Conflict(
                "T3",
                "memory.init='zeros' cannot begin a document in the middle of a segment of "
                "training.",
                "Use memory.init=empty, or data.documents=false.",
            )
        )
    limit = model.position.limit
    endless = not data.documents and not model.wrapped
    if limit is not None and endless:
        found.append(
            Conflict(
                "T4",
                f"position='{model.position.name}' has {limit} places, and with "
                "data.documents=false positions count on for ever.",
                "Use data.documents=true, or a position without a limit.",
            )
        )
    if train.through == 1:
        found += [
            Conflict(
                "T5",
                f"memory='{memory.name}' learns what to write from the calls that read it, and "
                "train.through=1 cuts the gradient off before them.",
                "Set train.through to 2 or more, and train.accumulate to a multiple of it.",
            )
            for memory in model.memories
            if memory.learns
        ]
    return found
