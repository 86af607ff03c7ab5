"""Questions and their contexts as token ids, whole or in windows that overlap."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from longspan.data.spans.config import Paths, SpansConfig
from longspan.data.spans.form import Form
from longspan.data.spans.question import Question
from longspan.data.split import SPLITS, assign
from longspan.data.tokenizer import Codec
from longspan.errors import DataError

QUESTION, CONTEXT, SHARED = range(3)
"""Kinds of tokens: of the question and symbols, of the context, of the context and in the question
too (1704.00051, section 3.2, "exact match")."""


@dataclass(frozen=True)
class Text:
    """A text as ids.

    Attributes:
        ids: (T,) int64.
        ends: (T,) int64, the byte after each token.
        bytes: all of them.
    """

    ids: NDArray[np.int64]
    ends: NDArray[np.int64]
    bytes: bytes

    def span(self, first: int, last: int) -> str:
        """What the tokens from `first` to `last` stand for, without white space around it."""
        begin = int(self.ends[first - 1]) if first else 0
        # a token may end within a character
        return self.bytes[begin : int(self.ends[last])].decode("utf-8", errors="ignore").strip()

    def tokens(self, begin: int, end: int) -> tuple[int, int]:
        """The first and the last token that hold some of the bytes from `begin` to `end`."""
        first = np.searchsorted(self.ends, begin, "right")
        return int(first), int(np.searchsorted(self.ends, end, "left"))


class Window(NamedTuple):
    """A stretch of a question's context.

    Attributes:
        question: which.
        low, high: its tokens in the context.
        span: first and last token of an answer that lies in it, counted in the context; None if
            none does.
    """

    question: int
    low: int
    high: int
    span: tuple[int, int] | None


class SpanBatch(NamedTuple):
    """Rows [start, question, closing, context], right-padded with 0; B rows, T tokens.

    Attributes:
        tokens: (B, T) int64.
        kinds: (B, T) int64, `QUESTION`, `CONTEXT` or `SHARED`.
        valid: (B, T) bool, what is no padding.
        legal: (B, T) bool, where an answer may begin and end: the context, and the first symbol,
            which stands for no answer.
        spans: (B, 2) int64, first and last token of the answer; 0 and 0 if there is none.
        offsets: (B,) int64, place of the window's first token.
    """

    tokens: Tensor
    kinds: Tensor
    valid: Tensor
    legal: Tensor
    spans: Tensor
    offsets: Tensor


@dataclass(frozen=True, eq=False)
class Spans:
    """Questions, and the windows in which they are answered.

    Attributes:
        questions: all of them.
        asked: of each question its ids.
        contexts: of each question its context; questions about one context share it.
        windows: of all questions, in their order.
        codec: what the ids mean.
    """

    questions: tuple[Question, ...]
    asked: tuple[NDArray[np.int64], ...]
    contexts: tuple[Text, ...]
    windows: tuple[Window, ...]
    codec: Codec

    def __len__(self) -> int:
        """How many questions."""
        return len(self.questions)

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """(N,) int64, tokens of each window's row."""
        rows = (2 + len(self.asked[w.question]) + w.high - w.low for w in self.windows)
        return np.fromiter(rows, np.int64, len(self.windows))

    @cached_property
    def tokens(self) -> NDArray[np.int64]:
        """All that is learnt from, one after the other: what tells whether it is the same."""
        rows = [self.rows([number]) for number in range(len(self.windows))]
        parts = [part.flatten() for row in rows for part in (row.tokens, row.spans)]
        return torch.cat(parts).numpy() if parts else np.empty(0, np.int64)

    def rows(self, windows: Sequence[int] | NDArray[np.int64]) -> SpanBatch:
        """A batch of the windows given, in that order."""
        start, closing = self.codec.start, self.codec.closing
        lengths = self.lengths[windows]
        shape = (len(lengths), int(lengths.max()))
        tokens, kinds = np.zeros(shape, np.int64), np.full(shape, QUESTION, np.int64)
        spans, offsets = np.zeros((len(lengths), 2), np.int64), np.zeros(len(lengths), np.int64)
        for row, number in enumerate(windows):
            window = self.windows[number]
            asked = self.asked[window.question]
            about = self.contexts[window.question].ids[window.low : window.high]
            offset, end = 2 + len(asked), lengths[row]
            tokens[row, :end] = np.concatenate([[start], asked, [closing], about])
            kinds[row, offset:end] = np.where(np.isin(about, asked), SHARED, CONTEXT)
            offsets[row] = offset
            if window.span is not None:
                spans[row] = np.array(window.span) - window.low + offset
        places = np.arange(shape[1])
        valid = places < lengths[:, None]
        legal = (valid & (places >= offsets[:, None])) | (places == 0)
        arrays = (tokens, kinds, valid, legal, spans, offsets)
        return SpanBatch(*map(torch.from_numpy, arrays))

    def first(self, tokens: int) -> Spans:
        """The first questions, at least one, whose windows have about `tokens` tokens."""
        fits = int(np.searchsorted(self.lengths.cumsum(), tokens, "right"))
        last = self.windows[min(fits, len(self.windows) - 1)].question
        return self.part(last + 1 if fits == len(self.windows) else max(1, last))

    def part(self, count: int) -> Spans:
        """The first `count` questions."""
        return Spans(
            self.questions[:count],
            self.asked[:count],
            self.contexts[:count],
            tuple(window for window in self.windows if window.question < count),
            self.codec,
        )

    def batches(self, tokens: int) -> Iterator[NDArray[np.int64]]:
        """Every window once, those of like length together, within a budget of tokens."""
        return _cut(np.argsort(self.lengths, kind="stable"), self.lengths, tokens)


@dataclass(frozen=True)
class SpanSplits:
    """What `prepare` gives: three parts, and the tokenizer, fitted to `train`."""

    train: Spans
    valid: Spans
    test: Spans
    codec: Codec


class WindowBatches:
    """Batches of windows of like length for training, each a function of the step.

    Args:
        spans: what to read.
        tokens: rows times tokens of a batch, padding among them.
        seed: of all shuffles.

    Raises:
        DataError: there is nothing, or a window is longer than `tokens`.
    """

    def __init__(self, spans: Spans, tokens: int, seed: int) -> None:
        if not len(spans.windows):
            raise DataError("there are no questions to learn from")
        longest = int(spans.lengths.argmax())
        if spans.lengths[longest] > tokens:
            place = spans.questions[spans.windows[longest].question].place
            raise DataError(
                f"{place}: with its context it has {spans.lengths[longest]} tokens, more than "
                f"train.tokens={tokens}; use more, or data.window to read contexts in windows"
            )
        self.spans, self.tokens, self.seed = spans, tokens, seed
        self._epoch, self._plan = 0, self._made(0)
        self._ends = [len(self._plan)]

    def chosen(self, step: int) -> NDArray[np.int64]:
        """Which windows are in the batch of a step, counted from 0 and without end."""
        while step >= self._ends[-1]:
            self._turn(len(self._ends))
            self._ends.append(self._ends[-1] + len(self._plan))
        epoch = int(np.searchsorted(self._ends, step, "right"))
        self._turn(epoch)
        return self._plan[step - (self._ends[epoch - 1] if epoch else 0)]

    def _turn(self, epoch: int) -> None:
        if epoch != self._epoch:
            self._epoch, self._plan = epoch, self._made(epoch)

    def _made(self, epoch: int) -> list[NDArray[np.int64]]:
        draw = np.random.default_rng((self.seed, epoch))
        lengths = self.spans.lengths
        order = draw.permutation(len(lengths))
        batches = list(_cut(order[np.argsort(lengths[order], kind="stable")], lengths, self.tokens))
        return [batches[place] for place in draw.permutation(len(batches))]


def _cut(
    order: NDArray[np.int64], lengths: NDArray[np.int64], tokens: int
) -> Iterator[NDArray[np.int64]]:
    """Stretches of `order`, whose lengths rise, each as long as fits; at least one a batch."""
    low = 0
    for high in range(1, len(order) + 1):
        if high == len(order) or (high + 1 - low) * lengths[order[high]] > tokens:
            yield order[low:high]
            low = high


def gather(
    asked: Iterable[Question], codec: Codec, window: int | None, stride: int | None
) -> Spans:
    """Questions as ids.

    Args:
        asked: in memory from now on.
        codec: encodes them.
        window, stride: as in `SpansConfig`.

    Raises:
        DataError: the codec cannot encode them, or not so that the text comes back.
    """
    kept = tuple(asked)
    texts: dict[str, Text] = {}
    texted, contexts, windows = [], [], []
    for number, question in enumerate(kept):
        if question.context not in texts:
            texts[question.context] = _encoded(question.context, question.place, codec)
        context = texts[question.context]
        texted.append(_encoded(question.text, question.place, codec).ids)
        contexts.append(context)
        spans = [_tokens(question.context, context, a.start, a.text) for a in question.answers]
        for low, high in stretches(len(context.ids), window, stride):
            inside = (span for span in spans if low <= span[0] and span[1] < high)
            windows.append(Window(number, low, high, next(inside, None)))
    return Spans(kept, tuple(texted), tuple(contexts), tuple(windows), codec)


def stretches(length: int, window: int | None, stride: int | None) -> list[tuple[int, int]]:
    """Begin and end of the windows that cover `length` tokens."""
    if window is None or length <= window:
        return [(0, length)]
    step = stride or max(1, window // 2)
    # the last one ends with the context and is as long as the others
    lows = [*range(0, length - window, step), length - window]
    return [(low, low + window) for low in lows]


def prepare(config: SpansConfig, codec: Codec | None = None) -> SpanSplits:
    """Reads, splits and tokenises; everything stays in memory.

    Args:
        config: what to prepare.
        codec: a tokenizer to use instead of fitting one.

    Raises:
        DataError: there is nothing to read, or it cannot be read or encoded.
    """
    found = questions(config.path, config.form)
    contexts = sorted({question.context for question in found})
    split = assign(contexts, config.fraction("valid"), config.fraction("test"))
    where = dict(zip(contexts, split, strict=True))
    parts = {part: [q for q in found if where[q.context] == part] for part in SPLITS}
    for part in ("valid", "test"):
        paths = getattr(config, part)
        if isinstance(paths, str | tuple) and paths:
            parts[part] = questions(paths, config.form)
    if codec is None:
        codec = config.tokenizer.fit(_texts(parts["train"]))
    made = {part: gather(parts[part], codec, config.window, config.stride) for part in SPLITS}
    return SpanSplits(**made, codec=codec)


def questions(paths: Paths, form: Form) -> list[Question]:
    """The questions of a file, or of several one after the other.

    Raises:
        DataError: there are none, they cannot be read or are unsound.
    """
    several = (paths,) if isinstance(paths, str) else paths
    found = [question for path in several for question in form.questions(path)]
    if not found:
        raise DataError(f"{' and '.join(several)}: there are no questions")
    return found


def _texts(asked: Iterable[Question]) -> Iterator[bytes]:
    seen = set()
    for question in asked:
        if question.context not in seen:
            seen.add(question.context)
            yield question.context.encode()
        yield question.text.encode()


def _encoded(text: str, place: str, codec: Codec) -> Text:
    content = text.encode()
    try:
        return Text(*codec.located(content), content)
    except DataError as error:
        raise DataError(f"{place}: {error}") from error


def _tokens(context: str, text: Text, start: int, answer: str) -> tuple[int, int]:
    begin = len(context[:start].encode())
    return text.tokens(begin, begin + len(answer.encode()))
