"""Question answering by a span of the context, or by saying that it has no answer.

Judged as SQuAD's answers are (`answers.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from longspan.answers import agreement, f1
from longspan.data.spans.config import SpansConfig
from longspan.data.spans.question import Question
from longspan.data.spans.windows import (
    CONTEXT,
    QUESTION,
    SpanBatch,
    Spans,
    SpanSplits,
    WindowBatches,
    gather,
    prepare,
    questions,
)
from longspan.data.tokenizer import Codec
from longspan.errors import ConfigError, Conflict, DataError, DivergedError
from longspan.models.encoder import EncoderConfig
from longspan.models.spans import SpanFinder, best_span
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

TOKENS = 16_384
"""Rows times tokens that are read at once where nothing is learnt."""


@dataclass(frozen=True)
class SpanAnswering(Answering, name="span_answering"):
    """A question and its context to the span that answers it, or to nothing.

    In training, f1 and exact_match of held-out questions are those at the margin that suits them
    best, which is told beside.

    Attributes:
        longest: tokens of an answer at most.
        margin: by which the best span must beat "there is no answer"; None for what suits the
            validation data of the run best.
    """

    longest: int = 32
    margin: float | None = None

    def __post_init__(self) -> None:
        if type(self.longest) is not int or self.longest < 1:
            raise ConfigError(f"task.longest must be 1 or more, not {self.longest!r}")

    @property
    def data(self) -> type[Any]:
        return SpansConfig

    def model(self, tree: Any) -> type[Any]:
        return EncoderConfig

    def batches(self, model: EncoderConfig, train: TrainConfig) -> str:
        return f"batches of {train.tokens} tokens"

    def sparing(self, model: EncoderConfig, train: TrainConfig) -> str:
        return (
            f"train.tokens (now {train.tokens}; train.accumulate makes up for it), data.window or "
            "the model's width"
        )

    def conflicts(
        self, data: SpansConfig, model: EncoderConfig, train: TrainConfig
    ) -> list[Conflict]:
        found = batched(self, train)
        if train.smoothing:
            found.append(
                Conflict(
                    "T9",
                    f"train.smoothing={train.smoothing} would hold likely what no span may be.",
                    "Use train.smoothing=0.",
                )
            )
        limit = model.position.limit
        if limit is not None and (data.window is None or data.window >= limit):
            found.append(
                Conflict(
                    "T10",
                    f"position='{model.position.name}' has {limit} places, and contexts are read "
                    f"{'whole' if data.window is None else f'in windows of {data.window} tokens'}"
                    " after their question.",
                    "Set data.window well below it, or take a position without a limit.",
                )
            )
        return found

    def prepare(self, data: SpansConfig, codec: Codec | None = None) -> SpanSplits:
        return prepare(data, codec)

    def build(self, model: EncoderConfig, codec: Codec) -> SpanFinder:
        return SpanFinder(model, codec.size)

    def started(self, tree: Any, start: StartConfig) -> Any:
        return start.encoder_tree(tree)

    def differing(self, model: EncoderConfig, start: StartConfig) -> list[str]:
        return start.encoder_problems(model)

    def begin(self, model: SpanFinder, start: StartConfig) -> None:
        start.begin_encoder(model.encoder)
        # the question is the first text and the context the second; the first's vector has
        # become part of the positions
        first, second = start.bert.kinds
        with torch.no_grad():
            model.kinds.weight[QUESTION] = 0.0
            model.kinds.weight[CONTEXT:] = second - first

    def lessons(
        self, material: Material, data: SpansConfig, model: EncoderConfig, train: TrainConfig
    ) -> Lessons:
        assert train.tokens is not None
        return _Questions(WindowBatches(material.train, train.tokens, train.seed))

    def score(self, model: Any, held_out: Spans, codec: Codec, tokens: int) -> Scores:
        if not len(held_out):
            return {}
        part = held_out.first(tokens) if tokens else held_out
        found = find(model, part, self.longest)
        several = self.references(part)
        margin = tuned(found, several)
        return {**agreement(answered(found, margin), several), "margin": margin}

    @property
    def fits(self) -> bool:
        return self.margin is None

    def fitted(self, model: nn.Module, valid: Spans) -> SpanAnswering:
        found = find(model, valid, self.longest)  # type: ignore[arg-type]
        return replace(self, margin=tuned(found, self.references(valid)))

    def examine(
        self,
        model: SpanFinder,
        records: Spans,
        codec: Codec,
        advance: Callable[[int], None] | None = None,
    ) -> tuple[Scores, list[list[Reply]]]:
        replies = self._replies(find(model, records, self.longest, advance))
        texts = [best.text for best, *_ in replies]
        return {
            **agreement(texts, self.references(records)),
            "margin": self.margin or 0.0,
        }, replies

    def references(self, records: Spans) -> Sequence[Sequence[str]]:
        return [question.references for question in records.questions]

    def first(self, records: Spans, count: int) -> Spans:
        return records.part(count)

    def read(self, data: SpansConfig, paths: Sequence[str], codec: Codec) -> Spans:
        return gather(questions(tuple(paths), data.form), codec, data.window, data.stride)

    def fields(self, data: SpansConfig) -> Sequence[str]:
        return ["question", "context"]

    def reply(
        self,
        model: SpanFinder,
        asked: Sequence[Asked],
        data: SpansConfig,
        codec: Codec,
        *,
        alternatives: int = 0,
        advance: Callable[[int], None] | None = None,
    ) -> list[list[Reply]]:
        named = [
            Question(each.place, question, context, ())
            for each in asked
            for question, context in [each.texts]
        ]
        records = gather(named, codec, data.window, data.stride)
        return self._replies(find(model, records, self.longest, advance))

    def _replies(self, found: Sequence[Found]) -> list[list[Reply]]:
        texts = answered(found, self.margin or 0.0)
        return [[Reply(t, each.score)] for t, each in zip(texts, found, strict=True)]


@dataclass(frozen=True)
class _Questions(Lessons):
    batches: WindowBatches

    def at(self, model: Any, call: int, state: State | None) -> Lesson:
        chosen, spans = self.batches.chosen(call), self.batches.spans
        batch = spans.rows(chosen)
        scores = scored(model, batch)
        targets = batch.spans.to(scores.device)
        # (B, 2): of the first and of the last token
        losses = cross_entropy(scores.transpose(1, 2), targets, reduction="none")

        def where(bad: Sequence[int]) -> str:
            return spans.questions[spans.windows[int(chosen[bad[0]])].question].place

        return Lesson(losses.mean(1), int(batch.valid.sum()), None, where)


def scored(model: SpanFinder, batch: SpanBatch) -> torch.Tensor:
    """Scores (B, 2, T) of the rows of a batch."""
    device = device_of(model)
    valid = None if bool(batch.valid.all()) else batch.valid.to(device)
    tokens, kinds, legal = (x.to(device) for x in (batch.tokens, batch.kinds, batch.legal))
    return model(tokens, kinds, legal, valid=valid)


@dataclass(frozen=True)
class Found:
    """The best span of a question's context.

    Attributes:
        text: what stands there.
        score: that of the span less that of no answer; of several windows the best.
    """

    text: str
    score: float


@torch.no_grad()
def find(
    model: SpanFinder,
    spans: Spans,
    longest: int,
    advance: Callable[[int], None] | None = None,
) -> list[Found]:
    """The best span of every question, over all windows of its context.

    Args:
        model: in evaluation mode.
        spans: the questions.
        longest: tokens of an answer at most.
        advance: told how many questions are done.

    Raises:
        DivergedError: a score is no number.
    """
    best: list[Found | None] = [None] * len(spans)
    for chosen in spans.batches(TOKENS):
        batch = spans.rows(chosen)
        places, scores = best_span(scored(model, batch), longest)
        if not bool(scores.isfinite().all()):
            raise DivergedError("the scores of held-out questions are no numbers")
        rows = zip(chosen, batch.offsets, places.tolist(), scores.tolist(), strict=True)
        for number, offset, (first, last), score in rows:
            window = spans.windows[number]
            before = best[window.question]
            if before is None or score > before.score:
                shift = window.low - int(offset)
                context = spans.contexts[window.question]
                best[window.question] = Found(context.span(first + shift, last + shift), score)
            if before is None and advance is not None:
                advance(1)
    return [found for found in best if found is not None]


def answered(found: Sequence[Found], margin: float) -> list[str]:
    """The answers, "" where no span beats "there is none" by more than `margin`."""
    return [each.text if each.score > margin else "" for each in found]


def tuned(found: Sequence[Found], right: Sequence[Sequence[str]]) -> float:
    """The margin with the best F1 (1806.03822, section 5), for questions other than these.

    Args:
        found: as `find` gives it.
        right: of each question one reference or more.

    Raises:
        DataError: there are no questions to tell it by.
    """
    if not found:
        raise DataError("there are no questions to choose a margin by; name data.valid")
    gains = []
    for each, several in zip(found, right, strict=True):
        spoken, silent = (max(f1(text, one) for one in several) for text in (each.text, ""))
        gains.append((each.score, spoken - silent))
    # from saying nothing at all: each span that is told, the surest first
    gains.sort(key=lambda pair: -pair[0])
    best = total = 0.0
    margin = gains[0][0]
    for place, (score, gain) in enumerate(gains):
        total += gain
        after = gains[place + 1][0] if place + 1 < len(gains) else score - 1.0
        if total > best and after < score:
            best, margin = total, (score + after) / 2
    return margin
