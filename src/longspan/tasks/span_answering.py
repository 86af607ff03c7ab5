"""Question answering by a span of the context, or by saying that it has no answer.

Judged as SQuAD's answers are (`answers.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from longspan.answers import agreement, f1
from longspan.data.spans.config import SpansConfig
from longspan.data.spans.windows import (
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
from longspan.state import State
from longspan.task import Lesson, Lessons, Material, Scores, Task, device_of
from longspan.training.config import TrainConfig

TOKENS = 16_384
"""Rows times tokens that are read at once where nothing is learnt."""


@dataclass(frozen=True)
class SpanAnswering(Task, name="span_answering"):
    """A question and its context to the span that answers it, or to nothing.

    In training, f1 and exact_match of held-out questions are those at the margin that suits them
    best, which is told beside; `tuned` gives it for questions that were not used to choose it.

    Attributes:
        longest: tokens of an answer at most.
    """

    longest: int = 32

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
        found = []
        if train.tokens is None:
            found.append(
                Conflict(
                    "T6",
                    f"{self.name} reads batches of questions of like length.",
                    "Set train.tokens, rows times tokens of a batch: 4096, for instance.",
                )
            )
        for name, usual in (("batch", None), ("segment", None), ("through", 1)):
            if (value := getattr(train, name)) != usual:
                found.append(
                    Conflict(
                        "T7",
                        f"train.{name}={value} is of tasks that read streams.",
                        "Leave it out; train.tokens says how much a call reads.",
                    )
                )
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
        margin = tuned(found, references(part))
        return {**agreement(answered(found, margin), references(part)), "margin": margin}

    def examine(self, model: SpanFinder, asked: Spans, valid: Spans) -> tuple[Scores, list[str]]:
        """Answers questions and scores the answers.

        Args:
            model: in evaluation mode.
            asked: the questions.
            valid: others, which choose the margin below which there is no answer.

        Returns:
            The scores, the margin beside them; and the answers, "" where there is none.

        Raises:
            DataError: there are no others.
            DivergedError: a score is no number.
        """
        margin = tuned(find(model, valid, self.longest), references(valid))
        texts = answered(find(model, asked, self.longest), margin)
        return {**agreement(texts, references(asked)), "margin": margin}, texts

    def read(self, data: SpansConfig, paths: Sequence[str], codec: Codec) -> Spans:
        """Questions for evaluation.

        Args:
            data: the section `data` that the run was trained on.
            paths: files of its form.
            codec: the tokenizer.

        Raises:
            DataError: there are none, they cannot be read or are unsound.
        """
        return gather(questions(tuple(paths), data.form), codec, data.window, data.stride)


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


def references(spans: Spans) -> list[tuple[str, ...]]:
    """Of each question what is right."""
    return [question.references for question in spans.questions]


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
def find(model: SpanFinder, spans: Spans, longest: int) -> list[Found]:
    """The best span of every question, over all windows of its context.

    Args:
        model: in evaluation mode.
        spans: the questions.
        longest: tokens of an answer at most.

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
