"""Held-out loss: every token scored exactly once, with memory carried across segments."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from longspan.data import Codec, Corpus
from longspan.errors import ConfigError, DataError, DivergedError
from longspan.memories.none import NoMemory
from longspan.models.decoder import PIECE, Decoder, DecoderConfig
from longspan.patterns.segments import Segments
from longspan.state import State

Advance = Callable[[int], None]
"""Told how many more tokens were scored, for a progress bar."""


@dataclass(frozen=True)
class Score:
    """What scoring a corpus gave.

    Attributes:
        bits: total, of each document.
        bytes: that the scored tokens stand for, of each document.
        tokens: scored, of each document.
        seconds: it took.
        unit: what a token is: "byte", "token" or "word".
    """

    bits: np.ndarray
    bytes: np.ndarray
    tokens: np.ndarray
    seconds: float = field(compare=False)
    unit: str = "byte"

    @property
    def bits_per_byte(self) -> float:
        """Over all bytes."""
        return float(self.bits.sum() / self.bytes.sum())

    @property
    def perplexity(self) -> float:
        """Per token: 2 to the bits of a token."""
        return float(2.0 ** (self.bits.sum() / self.tokens.sum()))

    @property
    def tokens_per_second(self) -> float:
        """Tokens scored in a second."""
        return float(self.tokens.sum() / max(self.seconds, 1e-9))

    def interval(self, draws: int = 1000, seed: int = 0) -> tuple[float, float]:
        """95 % bootstrap interval of the bits per byte over documents."""
        rng = np.random.default_rng(seed)
        rows = rng.integers(0, len(self.bits), (draws, len(self.bits)))
        means = self.bits[rows].sum(1) / self.bytes[rows].sum(1)
        low, high = np.quantile(means, [0.025, 0.975])
        return float(low), float(high)


@dataclass
class _Row:
    document: int
    cursor: int
    end: int


def remembered(config: DecoderConfig) -> tuple[int | None, str]:
    """How many tokens a model remembers, None if no one number says it, and that in words."""
    kept: dict[str, int | None] = {}
    for memory in config.memories:
        if memory.length is None:
            kept["all of it"] = None
        elif memory.counted:
            kept[str(memory.length)] = memory.length
        else:
            # a length that is not all of it still tells one evaluation from another
            kept[f"{memory.name} {memory.length}" if memory.length else memory.name] = None
    if not kept:
        return None, "a state of its own"
    length = next(iter(kept.values())) if len(kept) == 1 else None
    return length, f"memory{',' if [*kept] == ['all of it'] else ''} {' and '.join(kept)}"


def evaluate(
    model: Decoder,
    corpus: Corpus,
    codec: Codec,
    *,
    batch: int = 16,
    limit: int = 0,
    advance: Advance | None = None,
) -> Score:
    """Scores a corpus, memory carried from segment to segment within each document.

    Rows of the batch are documents; a row whose document ends takes the next one.

    Args:
        model: in evaluation mode.
        corpus: each document begins with the start symbol, which is read but not scored.
        codec: its tokenizer.
        batch: documents at a time.
        limit: scores the first so many tokens only; 0 for all.
        advance: told of progress.

    Raises:
        DataError: there is nothing to score.
        DivergedError: a loss is no number.
    """
    spans = _spans(corpus, limit)
    _check_batch(batch)
    segment = model.config.segment
    segment = segment if segment > 1 else min(PIECE, 512)
    device = model.head.bias.device
    nats = np.zeros(len(spans))
    waiting = iter(sorted(range(len(spans)), key=lambda i: spans[i][0] - spans[i][1]))
    rows: list[_Row] = []
    state: State | None = None
    begun = time.perf_counter()
    while True:
        fresh = torch.zeros(len(rows), dtype=torch.bool)
        for index, row in enumerate(rows):
            if row.cursor >= row.end and (following := next(waiting, None)) is not None:
                rows[index] = _Row(following, *spans[following])
                fresh[index] = True
        alive = [i for i, row in enumerate(rows) if row.cursor < row.end]
        if state is not None and len(alive) < len(rows):
            state, fresh = state.select(torch.tensor(alive, dtype=torch.long)), fresh[alive]
            rows = [rows[i] for i in alive]
        if state is None:
            first = [next(waiting, None) for _ in range(batch)]
            rows = [_Row(i, *spans[i]) for i in first if i is not None]
            fresh = torch.ones(len(rows), dtype=torch.bool)
        elif fresh.any():
            state = state.reset(fresh.to(device))
        if not rows:
            break
        loss, valid, state = _segment(model, corpus, rows, segment, state)
        for row, values, real in zip(rows, loss, valid, strict=True):
            nats[row.document] += float(values[real].double().sum())
            row.cursor += int(real.sum())
        if advance is not None:
            advance(int(valid.sum()))
    seconds = time.perf_counter() - begun
    return _score(nats, spans, corpus, codec, seconds)


@torch.no_grad()
def _segment(
    model: Decoder, corpus: Corpus, rows: list[_Row], segment: int, state: State | None
) -> tuple[Tensor, Tensor, State]:
    """Losses (B, T) in nats, which of them are real, and the state after the segment."""
    length = min(segment, max(row.end - row.cursor for row in rows))
    tokens = torch.zeros(len(rows), length + 1, dtype=torch.long)
    valid = torch.zeros(len(rows), length, dtype=torch.bool)
    for index, row in enumerate(rows):
        piece = corpus.tokens[row.cursor : min(row.end, row.cursor + length) + 1]
        tokens[index, : len(piece)] = torch.from_numpy(piece.astype(np.int64))
        valid[index, : len(piece) - 1] = True
    device = model.head.bias.device
    inputs, targets, mask = tokens[:, :-1].to(device), tokens[:, 1:].to(device), valid.to(device)
    h, state = model.hidden(inputs, state, valid=None if bool(valid.all()) else mask)
    nll = model.head.nll(h[mask], targets[mask])
    loss = nll.new_zeros(mask.shape)
    loss[mask] = nll
    return loss.cpu(), valid, state


def sliding(
    model: Decoder,
    corpus: Corpus,
    codec: Codec,
    *,
    stride: int = 1,
    window: int | None = None,
    batch: int = 16,
    limit: int = 0,
    advance: Advance | None = None,
) -> Score:
    """Scores a corpus without memory: a window moves over it and each time starts from nothing.

    What one would do without memory (1901.02860, section 1): every token is scored with between
    `window - stride + 1` and `window` tokens before it, fewer only where its document begins, and
    all of them are computed again.

    Args:
        stride: tokens scored a window; 1 gives every token the longest context.
        window: tokens that a window holds; None for the model's segment.
        limit: scores the first so many tokens only; 0 for all.
    """
    window = model.config.segment if window is None else window
    _check_batch(batch)
    if window < 2:
        raise ConfigError(f"a window of {window} has no context; give it a length with --segment")
    check_stride(stride, window)
    bare = model.reshaped(pattern=Segments(window, 0), memory=NoMemory())
    spans = _spans(corpus, limit)
    nats = np.zeros(len(spans))
    begun = time.perf_counter()
    pieces = _windows(spans, window, stride)
    while chunk := [piece for _, piece in zip(range(batch), pieces, strict=False)]:
        rows = [_Row(document, start, end) for document, start, end, _ in chunk]
        loss, valid, _ = _segment(bare, corpus, rows, window, None)
        for (document, _, _, scored), values, real in zip(chunk, loss, valid, strict=True):
            nats[document] += float(values[real][-scored:].double().sum())
        if advance is not None:
            advance(sum(piece[3] for piece in chunk))
    return _score(nats, spans, corpus, codec, time.perf_counter() - begun)


def _check_batch(batch: int) -> None:
    if batch < 1:
        raise ConfigError(f"batch must be 1 or more, not {batch}")


def check_stride(stride: int, window: int) -> None:
    """Refuses a stride that would leave tokens out.

    Raises:
        ConfigError: it is not between 1 and `window`.
    """
    if not 1 <= stride <= window:
        raise ConfigError(f"--stride must be between 1 and the window of {window}, not {stride}")


def _windows(
    spans: list[tuple[int, int]], window: int, stride: int
) -> Iterator[tuple[int, int, int, int]]:
    """(document, first input, one past the last, tokens scored at its end), all tokens once."""
    for document, (low, high) in enumerate(spans):
        done = low
        while done < high:
            end = min(high, low + window if done == low else done + stride)
            yield document, max(low, end - window), end, end - done
            done = end


def _spans(corpus: Corpus, limit: int) -> list[tuple[int, int]]:
    """(first input, one past the last) of each document: the tokens before the scored ones."""
    if limit < 0:
        raise ConfigError(f"limit must be 0 (all) or more, not {limit}")
    edges = [*corpus.offsets.tolist(), len(corpus)]
    spans = []
    left = limit or len(corpus)
    for low, high in pairwise(edges):
        scored = min(high - low - 1, left)
        if scored > 0:
            spans.append((low, low + scored))
            left -= scored
    if not spans:
        raise DataError("there is nothing to score: the data holds no token")
    return spans


def _score(
    nats: np.ndarray, spans: list[tuple[int, int]], corpus: Corpus, codec: Codec, seconds: float
) -> Score:
    if not np.isfinite(nats).all():
        bad = int(np.flatnonzero(~np.isfinite(nats))[0])
        raise DivergedError(
            f"the loss of document {bad} is no number; the weights may have diverged, or "
            "--dtype float32 is needed"
        )
    tokens = np.array([high - low for low, high in spans])
    sizes = [len(codec.decode(corpus.tokens[low + 1 : high + 1])) for low, high in spans]
    return Score(nats / math.log(2), np.array(sizes), tokens, seconds, codec.unit)
