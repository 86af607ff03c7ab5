"""Loss against memory and position, tokens that come again, attention and influence: by loops."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from math import log
from typing import Any

import numpy as np
import pytest
import torch

from longspan import (
    GRU,
    LSTM,
    XL,
    Alibi,
    Cache,
    Causal,
    Decoder,
    DecoderConfig,
    LinearAttention,
    NoMemory,
    Recent,
    Segments,
    evaluate,
)
from longspan.data import Corpus
from longspan.data.tokenizers.ids import IdCodec
from longspan.errors import DataError, DivergedError
from longspan.measure.reach.bands import band
from longspan.measure.reach.contexts import losses, neighbours
from longspan.measure.reach.influence import gradients, influence
from longspan.measure.reach.looking import looking
from longspan.measure.reach.reading import by_memory, by_position, read
from longspan.measure.reach.recurring import recurring
from longspan.measure.reach.runs import RunPredictor
from longspan.measure.reach.text import RUN, Text
from longspan.models.stack import Different

V, T = 30, 8
CODEC = IdCodec(V, V - 1)
PLAIN = DecoderConfig(width=8, layers=2, heads=2, feed_forward=12)
XLS = replace(PLAIN, position=XL(), pattern=Segments(T, 12), memory=Recent(12))
MODELS = {
    "xl": XLS,
    "cache": replace(PLAIN, position=Alibi(), pattern=Causal(), memory=Cache()),
    "lstm": replace(PLAIN, mixer=LSTM()),
    "linear": replace(PLAIN, mixer=LinearAttention()),
    "layers that differ": replace(
        XLS, layers=3, stack=(Different(), Different(mixer=GRU()), Different(memory=Recent(20)))
    ),
}


def predictor(config: DecoderConfig) -> RunPredictor:
    torch.manual_seed(0)
    model = Decoder(config, V).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return RunPredictor("tiny", model.requires_grad_(False), CODEC, T)


def corpus(*lengths: int) -> Corpus:
    rng = np.random.default_rng(0)
    texts = [" ".join(map(str, rng.integers(0, V - 1, length))).encode() for length in lengths]
    return Corpus.of(texts, CODEC)


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_a_context_is_what_a_model_is_told_at_all(name: str) -> None:
    made, text = predictor(MODELS[name]), Text.of(corpus(200, 150))
    targets = text.targets(40, 2 * RUN)
    for context in (1, 7, 40):
        found = losses(made, targets, context, budget=300)
        for run, (document, first) in list(enumerate(targets.places))[:2]:
            for offset in range(0, RUN, 9):
                end = first + offset
                told = text.documents[document][end - context : end]
                logits, _ = made.model(torch.from_numpy(told)[None])
                nats = -logits[0, -1].log_softmax(0)[text.documents[document][end]]
                assert found[run, offset] == pytest.approx(float(nats), abs=1e-9)


def test_neighbours_share_a_window_where_it_is_long() -> None:
    assert [neighbours(c, 64) for c in (1, 63, 64, 200, 5000)] == [1, 1, 2, 4, 64]


def test_targets_have_as_much_before_them_as_was_asked_for() -> None:
    text = Text.of(corpus(300, 90, 500))
    targets = text.targets(100, 5 * RUN)
    assert targets.tokens == 5 * RUN
    assert {document for document, _ in targets.places} == {0, 2}
    for document, first in targets.places:
        assert first - 100 >= 1, "the start symbol is no context"
        assert first + RUN <= len(text.documents[document])
    assert text.longest == 500 - RUN
    (place,) = text.targets(500 - RUN, RUN).places
    assert place == (2, 501 - RUN)


def test_every_place_with_enough_before_it_can_be_scored() -> None:
    text = Text.of(corpus(RUN + 5, RUN + 6))
    assert text.targets(5, 1).places == ((1, 6),)
    assert text.targets(5, 2 * RUN).places == ((0, 6), (1, 7))
    assert len(text.documents[0]) == 6 + RUN, "the last token is scored"


def test_data_that_are_too_short_name_the_longest_distance() -> None:
    with pytest.raises(DataError, match=r"distance of 437 .* has 500, which allows 436; .* 436 "):
        Text.of(corpus(500)).targets(437, RUN)
    with pytest.raises(DataError, match="takes at least 65"):
        Text.of(corpus(20)).targets(1, RUN)
    with pytest.raises(DataError, match=r"no document has 300 tokens .* has 100"):
        Text.of(corpus(100)).stretches(300, 2)


def test_stretches_are_beginnings_first() -> None:
    text = Text.of(corpus(40, 9, 25))
    rows, owners = text.stretches(10, 4)
    assert owners.tolist() == [0, 2, 0, 2]
    for row, owner, low in zip(rows, owners, (1, 1, 11, 11), strict=True):
        assert row[0] == V - 1
        assert row[1:].tolist() == text.documents[owner][low : low + 10].tolist()


@pytest.mark.parametrize("name", MODELS)
def test_reading_is_what_evaluation_does(name: str) -> None:
    made, data = predictor(MODELS[name]), corpus(50, 50)
    text = Text.of(data)
    nats = read(made, text.stretches(50, 2)[0])
    score = evaluate(made.model, data, CODEC)
    np.testing.assert_allclose(nats.sum(1) / log(2), score.bits, rtol=1e-9)


def test_curves_are_means_of_what_was_read() -> None:
    made, text = predictor(XLS), Text.of(corpus(100, 100, 100))
    rows, _ = text.stretches(90, 3)
    points = by_memory(made, rows, 2.5)
    assert [point.at for point in points] == [0, 3, 6, 12, 24, 48, 96]
    bits = {p.at: p.bits_per_byte for p in points}
    nats = read(made, rows)
    assert bits[12] == pytest.approx(nats.mean() / log(2) / 2.5)
    assert len(set(bits.values())) > 4, "memory matters to this model"
    assert all(point.low <= point.bits_per_byte <= point.high for point in points)
    places = by_position(nats, 2.5)
    assert [point.at for point in places] == [1, 2, 4, 8, 16, 32], (
        "64 to 90 is less than half of a span"
    )
    for point in places:
        end = 91 if point.at == 32 else 2 * point.at
        some = [nats[:, t - 1] for t in range(point.at, end)]
        assert point.bits_per_byte == pytest.approx(np.mean(some) / log(2) / 2.5)
    assert by_memory(predictor(MODELS["lstm"]), rows, 1.0) == []
    bare = predictor(replace(XLS, pattern=Segments(T, 0), memory=NoMemory()))
    assert by_memory(bare, rows, 1.0) == []


def test_bands_cover_the_mean_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    totals = rng.normal(3.0, 1.0, (30, 400))
    low, high = band(totals, np.ones((30, 1)))
    assert 0.9 <= ((low < 3.0) & (high > 3.0)).mean() <= 0.98
    assert np.mean(high - low) == pytest.approx(2 * 1.96 / 30**0.5, rel=0.1)


def test_a_loss_that_is_no_number_is_said() -> None:
    made = predictor(XLS)
    made.model.head.bias.data[3] = float("nan")
    with pytest.raises(DivergedError, match="tiny: a loss is no number"):
        read(made, Text.of(corpus(40)).stretches(30, 1)[0])


def test_tokens_that_come_again_are_told_from_new_ones() -> None:
    rng = np.random.default_rng(0)
    rows = np.minimum(rng.geometric(0.2, (5, 60)), V - 1)
    nats = rng.uniform(0, 3, (5, 59))
    found = {(one.rank, one.since): one for one in recurring(rows, nats)}
    counts = Counter(rows[:, 1:].ravel().tolist())
    cells: dict[tuple[bool, int], list[float]] = {}
    for row, losses_ in zip(rows[:, 1:].tolist(), nats.tolist(), strict=True):
        for t, token in enumerate(row):
            earlier = [s for s in range(t) if row[s] == token]
            since = 2 ** int(np.log2(t - earlier[-1])) if earlier else 0
            cells.setdefault((token, since), []).append(losses_[t])
    assert sum(one.tokens for one in found.values()) == 5 * 59
    for since in {since for _, since in cells}:
        some = [v for (_, s), values in cells.items() if s == since for v in values]
        mine = [one for one in found.values() if one.since == since]
        assert sum(one.tokens for one in mine) == len(some)
        total = sum(one.bits * one.tokens for one in mine)
        assert total == pytest.approx(sum(some) / log(2))
    # the most frequent id is of the last class, one that comes once of the first
    assert sum(one.tokens for one in found.values() if one.rank == 3) >= max(counts.values())
    assert (0, 0) in found


@torch.no_grad()
def test_attention_by_distance_is_that_of_each_pair() -> None:
    """One layer without positions, whose weights are formed here from its matrices."""
    made = predictor(replace(PLAIN, layers=1, pattern=Segments(T, 12), memory=Recent(12)))
    rows, _ = Text.of(corpus(33, 33)).stretches(32, 2)
    found = looking(made, rows)
    assert found is not None
    block = next(made.model.blocks())
    attention = block.mixer
    x = attention.norm(made.model.embedding(torch.from_numpy(rows[:, :-1])))
    q, k = (map_(x).unflatten(-1, (2, -1)).transpose(1, 2) for map_ in (attention.q, attention.k))
    mass, memory, distance = np.zeros((2, 6)), np.zeros(2), np.zeros(2)
    asked = range(16, 32)
    for row in range(2):
        for t in asked:
            seen = range(max(0, T * (t // T) - 12), t + 1)
            for head in range(2):
                scores = torch.stack([q[row, head, t] @ k[row, head, s] / 2 for s in seen])
                for s, weight in zip(seen, scores.softmax(0).tolist(), strict=True):
                    mass[head, (t - s).bit_length()] += weight / 32
                    memory[head] += weight / 32 * (s < T * (t // T))
                    distance[head] += weight / 32 * (t - s)
    np.testing.assert_allclose(found.mass[0, :, :6], mass, atol=1e-9)
    np.testing.assert_allclose(found.memory[0], memory, atol=1e-9)
    np.testing.assert_allclose(found.distance[0], distance, atol=1e-9)
    np.testing.assert_allclose(found.mass.sum(2), 1, atol=1e-9)
    assert found.memory.min() > 0


def test_who_has_no_attention_does_not_look_and_who_has_no_memory_not_there() -> None:
    rows, _ = Text.of(corpus(33)).stretches(32, 1)
    assert looking(predictor(MODELS["lstm"]), rows) is None
    bare = predictor(replace(XLS, pattern=Segments(T, 0), memory=NoMemory()))
    assert looking(bare, rows).memory.tolist() == [[0, 0], [0, 0]]
    mixed = looking(predictor(MODELS["layers that differ"]), rows)
    assert mixed.layers == (0, 2)


@pytest.mark.parametrize("name", ["xl", "lstm", "linear"])
def test_influence_is_the_slope_of_the_loss(name: str) -> None:
    made = predictor(MODELS[name])
    windows = torch.from_numpy(np.random.default_rng(1).integers(0, V - 1, (2, 20)))
    norms = gradients(made, windows)
    vectors = made.model.embedding(windows[:, :-1])
    moved: list[torch.Tensor] = [vectors]
    low = [0]

    def nats() -> torch.Tensor:
        low[0] = 0
        return made.losses(windows[:, :-1], windows[:, -1:], made.start(2))[0][:, 0]

    def instead(_module: object, inputs: tuple[torch.Tensor], _out: object) -> torch.Tensor:
        count = inputs[0].shape[1]
        low[0] += count
        return moved[0][:, low[0] - count : low[0]]

    handle = made.embedding().register_forward_hook(instead)
    with torch.no_grad():
        for place in (0, 5, 18):
            slopes = []
            for feature in range(8):
                step = torch.zeros_like(vectors)
                step[:, place, feature] = 1e-6
                moved[0] = vectors + step
                up = nats()
                moved[0] = vectors - step
                slopes.append((up - nats()) / 2e-6)
            slope = torch.stack(slopes, 1).norm(dim=1)
            np.testing.assert_allclose(norms[:, place], slope, rtol=1e-5, atol=1e-9)
    handle.remove()
    assert norms.min() > 0


def test_influence_ends_where_a_pattern_does() -> None:
    """Two layers of segments of 8 without memory: nothing of the segment before."""
    made = predictor(replace(XLS, pattern=Segments(T, 0), memory=NoMemory()))
    targets = Text.of(corpus(400)).targets(40, 2 * RUN)
    found = influence(made, targets, 40, 2)
    assert found is not None
    assert found.each.shape == (40,)
    # windows of 40 tokens are five whole segments, and the last token's input ends the fifth
    assert (found.each[:T] > 0).all()
    assert (found.each[T:] == 0).all()
    assert found.shares.sum() == pytest.approx(1)
    assert found.half <= T


class Rooted(RunPredictor):
    """Its losses are numbers, and their slopes are not: that of a root at nought has no end."""

    def losses(self, inputs: Any, targets: Any, state: Any) -> tuple[torch.Tensor, Any]:
        nats, state = super().losses(inputs, targets, state)
        return nats + (0 * nats).sqrt(), state


def test_a_gradient_that_is_no_number_is_said() -> None:
    made = Rooted("tiny", predictor(XLS).model, CODEC, T)
    targets = Text.of(corpus(400)).targets(40, RUN)
    assert np.isfinite(losses(made, targets, 40)).all()
    with pytest.raises(DivergedError, match="tiny: the gradient of a loss is no number"):
        influence(made, targets, 40, 1)


def test_pairs_of_its_own_for_each_layer_change_nothing() -> None:
    made = predictor(XLS)
    tokens = torch.from_numpy(np.random.default_rng(1).integers(0, V - 1, (2, 5 * T)))
    state = other = made.start(2)
    with torch.no_grad():
        for piece in tokens.split(T, 1):
            a, state = made.model.hidden(piece, state)
            b, other = made._each(piece, other)
            assert torch.equal(a, b)
    for mine, theirs in pairwise([state, other]):
        assert all(x.pos.equal(y.pos) for x, y in zip(mine.layers, theirs.layers, strict=True))
