"""Held-out loss against reading token by token, and against recomputing every window."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from longspan import (
    LSTM,
    XL,
    Alibi,
    Cache,
    Causal,
    ConfigError,
    Convolution,
    Decoder,
    DecoderConfig,
    NoMemory,
    Recent,
    Segments,
    Window,
    evaluate,
    sliding,
)
from longspan.data import Corpus
from longspan.data.tokenizers.bytes import ByteCodec
from longspan.data.tokenizers.ids import IdCodec
from longspan.errors import DataError, DivergedError
from longspan.measure.perplexity import Score
from longspan.models.stack import Different
from longspan.models.vocabulary import VocabularyConfig
from tests.dispatch import Made

XLS = DecoderConfig(
    width=8,
    layers=2,
    heads=2,
    feed_forward=12,
    position=XL(),
    pattern=Segments(8, 10),
    memory=Recent(10),
)
RECURRENT = DecoderConfig(width=8, layers=2, heads=2, feed_forward=12, mixer=LSTM())
MIXED = replace(
    XLS,
    layers=4,
    stack=(
        Different(mixer=LSTM(hidden=5)),
        Different(),
        Different(mixer=Convolution(width=3)),
        Different(pattern=Segments(8, 3), memory=Recent(4)),
    ),
)
MODELS = {
    "xl": XLS,
    "zero-filled": replace(XLS, memory=Recent(10, init="zeros")),
    "hidden": replace(XLS, memory=Recent(10, store="hidden")),
    "no memory": replace(XLS, pattern=Segments(8, 0), memory=NoMemory()),
    "window": replace(XLS, pattern=Window(7), memory=Recent(6), position=Alibi()),
    "cache": replace(XLS, pattern=Causal(), memory=Cache(), position=Alibi()),
    "recurrent": RECURRENT,
    "layers that differ": MIXED,
    "adaptive": replace(XLS, vocabulary=VocabularyConfig(cutoffs=(20, 60), div=2)),
}
CODEC = IdCodec(100, 99)
LENGTHS = [19, 3, 40, 8, 1, 16, 0, 27]


def model(config: DecoderConfig, size: int = CODEC.size) -> Decoder:
    torch.manual_seed(0)
    made = Decoder(config, size).double().eval()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.5)
    return made


def corpus(lengths: list[int] = LENGTHS) -> Corpus:
    """Documents of so many tokens, a start symbol before each."""
    rng = np.random.default_rng(0)
    texts = [" ".join(map(str, rng.integers(0, 99, length))).encode() for length in lengths]
    return Corpus.of(texts, CODEC)


def bits(nats: list[float]) -> float:
    return sum(nats) / math.log(2)


@torch.no_grad()
def token_by_token(model: Decoder, documents: list[list[int]]) -> list[float]:
    """Bits of each document, one token a call, from an empty memory each."""
    totals = []
    for document in documents:
        state, nats = None, []
        for token, following in pairwise(document):
            logits, state = model(torch.tensor([[token]]), state)
            nats.append(-float(logits[0, 0].log_softmax(0)[following]))
        totals.append(bits(nats))
    return totals


@pytest.mark.parametrize("config", MODELS.values(), ids=MODELS)
def test_it_is_what_reading_token_by_token_gives(config: DecoderConfig) -> None:
    data, made = corpus(), model(config)
    documents = [data.document(i).tolist() for i in range(len(LENGTHS))]
    expected = token_by_token(made, [d for d in documents if len(d) > 1])
    for batch in (1, 3, 16):
        score = evaluate(made, data, CODEC, batch=batch)
        np.testing.assert_allclose(score.bits, expected, atol=1e-9, rtol=0)
        assert score.tokens.tolist() == [length for length in LENGTHS if length]


@pytest.mark.parametrize("limit", [1, 19, 20, 50, 113, 114, 10**6])
def test_a_limit_takes_the_first_tokens(limit: int) -> None:
    data, made = corpus(), model(XLS)
    documents, left = [], limit
    for index, length in enumerate(LENGTHS):
        if (taken := min(left, length)) > 0:
            documents.append(data.document(index)[: taken + 1].tolist())
            left -= taken
    score = evaluate(made, data, CODEC, batch=3, limit=limit)
    np.testing.assert_allclose(score.bits, token_by_token(made, documents), atol=1e-9, rtol=0)
    assert score.tokens.sum() == min(limit, sum(LENGTHS))


@pytest.mark.parametrize("batch", [1, 4, 99])
@pytest.mark.parametrize("how", ["evaluate", "sliding"])
def test_every_token_is_scored_exactly_once(how: str, batch: int) -> None:
    lengths, codec = [21, 4, 33, 16], IdCodec(200, 199)
    numbers = iter(range(199))
    texts = [" ".join(str(next(numbers)) for _ in range(length)) for length in lengths]
    made = model(replace(XLS, pattern=Segments(8, 10)), codec.size)
    data = Corpus.of([text.encode() for text in texts], codec)
    told: list[int] = []
    if how == "evaluate":
        targets: list[int] = []
        nll = made.head.nll
        made.head.nll = lambda h, wanted: targets.extend(wanted.tolist()) or nll(h, wanted)
        score = evaluate(made, data, codec, batch=batch, advance=told.append)
        assert sorted(targets) == list(range(74))
    else:
        score = sliding(made, data, codec, batch=batch, stride=3, advance=told.append)
    assert score.tokens.tolist() == lengths
    assert sum(told) == 74


def test_bytes_are_those_of_the_text() -> None:
    texts = [b"naive", "naïve".encode(), b""]
    codec = ByteCodec()
    score = evaluate(model(XLS, codec.size), Corpus.of(texts, codec), codec)
    assert score.bytes.tolist() == score.tokens.tolist() == [5, 6]
    assert score.unit == "byte"
    ids = evaluate(model(XLS), corpus([4]), CODEC)
    assert ids.bytes.tolist() == [len(CODEC.decode(corpus([4]).tokens[1:]))]
    assert ids.unit == "token"


def test_an_adaptive_output_is_never_made_whole() -> None:
    made = model(replace(XLS, vocabulary=VocabularyConfig(cutoffs=(20, 60))))
    with Made() as watched:
        evaluate(made, corpus(), CODEC)
    assert not [shape for shape in watched.shapes if shape and shape[-1] == CODEC.size]


def test_nothing_is_drawn_or_changed() -> None:
    made, data = model(XLS), corpus()
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    torch.manual_seed(3)
    evaluate(made, data, CODEC)
    sliding(made, data, CODEC, stride=8)
    drawn = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(torch.rand(1), drawn)
    assert all(torch.equal(before[name], t) for name, t in made.state_dict().items())
    assert all(p.requires_grad for p in made.parameters())


# The sliding window.


@torch.no_grad()
def windows(
    made: Decoder, document: list[int], window: int, stride: int
) -> tuple[float, list[int]]:
    """Bits of a document, and how many tokens were read before each one scored.

    The first window scores all its tokens. Then it moves by `stride`, or to the end, and scores
    what is new in it.
    """
    nats, contexts = [], []
    last = len(document) - 1
    for target in range(1, len(document)):
        if target <= window:
            end = min(window, last)
        else:
            end = min(window + stride * math.ceil((target - window) / stride), last)
        read = document[max(0, end - window) : target]
        logits, _ = made(torch.tensor([read]))
        nats.append(-float(logits[0, -1].log_softmax(0)[document[target]]))
        contexts.append(len(read))
    return bits(nats), contexts


@pytest.mark.parametrize(("window", "stride"), [(8, 1), (8, 3), (8, 8), (5, 4), (50, 10)])
@pytest.mark.parametrize("name", ["xl", "window", "recurrent", "layers that differ"])
def test_every_window_starts_from_nothing(name: str, window: int, stride: int) -> None:
    data, made = corpus(), model(MODELS[name])
    bare = made.reshaped(pattern=Segments(window, 0), memory=NoMemory())
    documents = [data.document(i).tolist() for i in range(len(LENGTHS)) if LENGTHS[i]]
    expected = [windows(bare, document, window, stride) for document in documents]
    for batch in (1, 5):
        score = sliding(made, data, CODEC, stride=stride, window=window, batch=batch)
        np.testing.assert_allclose(score.bits, [b for b, _ in expected], atol=1e-9, rtol=0)
    for _, contexts in expected:
        assert contexts[:window] == list(range(1, len(contexts[:window]) + 1))
        assert all(window - stride + 1 <= context <= window for context in contexts[window:])


def test_a_stride_of_a_window_is_a_model_without_memory() -> None:
    data, made = corpus([24, 8, 32]), model(XLS)
    alone = made.reshaped(pattern=Segments(8, 0), memory=NoMemory())
    np.testing.assert_allclose(
        sliding(made, data, CODEC, stride=8).bits, evaluate(alone, data, CODEC).bits, atol=1e-9
    )


def test_a_sliding_limit() -> None:
    data, made = corpus(), model(XLS)
    score = sliding(made, data, CODEC, stride=2, limit=30)
    assert score.tokens.tolist() == [19, 3, 8]
    whole = sliding(made, data, CODEC, stride=2)
    np.testing.assert_allclose(score.bits[:2], whole.bits[:2], atol=1e-9)


# What cannot be scored.


@pytest.mark.parametrize(("stride", "window"), [(0, 8), (9, None), (-1, None), (6, 5)])
def test_a_stride_outside_its_window_is_refused(stride: int, window: int | None) -> None:
    with pytest.raises(ConfigError, match="--stride must be between 1 and the window"):
        sliding(model(XLS), corpus(), CODEC, stride=stride, window=window)


def test_a_window_has_context() -> None:
    """A model without segments of its own has no window of its own."""
    with pytest.raises(ConfigError, match="a window of 1 has no context; give it a length"):
        sliding(model(MODELS["window"]), corpus(), CODEC)


@pytest.mark.parametrize("score", [evaluate, sliding])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch": 0}, "batch must be 1 or more, not 0"),
        ({"limit": -1}, "limit must be 0 .* not -1"),
    ],
)
def test_settings_that_cannot_be_are_refused(score, settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        score(model(XLS), corpus(), CODEC, **settings)


@pytest.mark.parametrize("score", [evaluate, sliding])
def test_data_without_tokens_is_refused(score) -> None:
    whole = corpus([1, 1])
    starts = Corpus(whole.tokens[:1], whole.offsets[:1], ("0",), whole.document_bytes[:1], CODEC)
    with pytest.raises(DataError, match="there is nothing to score"):
        score(model(XLS), starts, CODEC)


@pytest.mark.parametrize("score", [evaluate, sliding])
def test_a_loss_that_is_no_number_is_said(score) -> None:
    made = model(XLS)
    with torch.no_grad():
        made.head.bias[7] = float("nan")
    with pytest.raises(DivergedError, match="the loss of document 0 is no number"):
        score(made, corpus(), CODEC)


# The numbers of a score.


def test_a_score_by_hand() -> None:
    score = Score(np.array([8.0, 4.0]), np.array([2, 2]), np.array([4, 1]), 2.0, "word")
    assert score.bits_per_byte == 3.0
    assert score.perplexity == pytest.approx(2 ** (12 / 5))
    assert score.tokens_per_second == 2.5


def test_the_interval_is_of_documents() -> None:
    """Equal documents leave no doubt; unequal ones do, between the least and the greatest."""
    equal = Score(np.array([6.0, 6.0, 6.0]), np.array([2, 2, 2]), np.array([1, 1, 1]), 1.0)
    assert equal.interval() == (3.0, 3.0)
    mixed = Score(np.arange(1.0, 51.0), np.full(50, 10), np.full(50, 10), 1.0)
    low, high = mixed.interval()
    assert 0.1 < low < mixed.bits_per_byte < high < 5.0
    # about two standard errors to either side
    spread = mixed.bits.std() / 10 / math.sqrt(50)
    assert (high - low) / spread == pytest.approx(2 * 1.96, rel=0.15)
    assert mixed.interval() == mixed.interval()
    assert mixed.interval(seed=1) != mixed.interval(seed=2)
