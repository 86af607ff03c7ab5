"""From which length on a layer is faster: what is made of the times, not the times themselves."""

from __future__ import annotations

import pytest
import torch

from longspan import (
    LSTM,
    XL,
    Cache,
    Causal,
    Decoder,
    DecoderConfig,
    MemoryLayer,
    Recent,
    Rotary,
    Segments,
    Tokens,
    Window,
)
from longspan.measure import crossover
from longspan.measure.crossover import Duel, built, duels, passed, wrapping
from longspan.mixing import Mixing
from longspan.models.stack import Different, StackConfig
from longspan.slots import Wrapping
from longspan.state import EMPTY


def duel(*times: tuple[int, float, float]) -> Duel:
    return Duel((0,), "some", False, times)


def test_where_the_lines_cross() -> None:
    # the ratios are 4, 2, 1/2, 1/4: even in the middle of 200 and 800, on the logarithm's scale
    assert duel((100, 1, 4), (200, 1, 2), (800, 2, 1), (1600, 4, 1)).crossover == 400
    assert duel((100, 1, 4), (200, 1, 1), (400, 2, 1)).crossover == 200
    assert duel((100, 2, 1), (200, 4, 1)).crossover == 100
    assert duel((100, 1, 2), (200, 1, 2)).crossover is None
    # faster once is not faster from there on
    assert duel((100, 2, 1), (200, 1, 2), (800, 2, 1)).crossover == 400
    assert duel((100, 2, 1), (200, 1, 2)).crossover is None
    assert duel().crossover is None


def test_every_kind_of_layer_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside plain attention, length by length, until a call takes too long."""
    asked: list[tuple[str, int]] = []

    def timed(mixing: Mixing, length: int, around: Wrapping | None = None) -> float:
        asked.append((type(mixing.pattern).__name__, length))
        return length / 1000 * (2 if mixing.pattern == Causal() else 1)

    monkeypatch.setattr(crossover, "timed", timed)
    window = Different(pattern=Window(4), memory=Recent(3))
    plain = Different(pattern=Causal(), memory=Cache())
    config = StackConfig(
        width=8, layers=6, heads=2, feed_forward=8, stack=(window, plain, window), position=XL()
    )
    lengths = [100, 200, 400, 800]
    first, second = duels(config, lengths=lengths, seconds=0.7, rounds=2)
    assert first.layers == (0, 2, 3, 5)
    assert second.layers == (1, 4)
    assert second.plain
    assert not second.times
    assert first.mixer == "softmax (xl, window, recent)"
    assert first.times == ((100, 0.2, 0.1), (200, 0.4, 0.2), (400, 0.8, 0.4))
    assert first.crossover == 100
    turns = [("Causal", 100), ("Window", 100)] * 2 + [("Causal", 200), ("Window", 200)] * 2
    assert asked[:8] == turns


def test_a_layer_is_really_run() -> None:
    config = StackConfig(
        width=8, layers=1, heads=2, feed_forward=8, pattern=Segments(8, 4), memory=Recent(4)
    )
    (measured,) = duels(config, lengths=[8, 24], rounds=1)
    assert [length for length, _, _ in measured.times] == [8, 24]
    assert all(plain > 0 and own > 0 for _, plain, own in measured.times)


SIZES = {"width": 16, "layers": 1, "heads": 2, "feed_forward": 8, "position": Rotary()}


def test_a_memory_that_folds_is_given_segments() -> None:
    """As a model would: each is written, and the last one may be unfinished."""
    config = StackConfig(**SIZES, pattern=Segments(8, 0), memory=MemoryLayer(5))
    ((mixer, layer, _),) = config.each_layer()
    mixing = built(mixer, layer, torch.float32)
    answers, carried = passed(mixing, torch.randn(1, 28, 16))
    assert [y.shape for y in answers] == [(1, 8, 16)] * 3 + [(1, 4, 16)]
    assert carried.tensors()["ends"].tolist() == [[*[EMPTY] * 2, 7, 15, 23]]
    (measured,) = duels(config, lengths=[8, 24], rounds=1)
    assert len(measured.times) == 2


def test_what_has_no_segments_to_write_at_is_given_all_at_once() -> None:
    for slots in ({"pattern": Segments(8, 4), "memory": Recent(4)}, {"mixer": LSTM()}):
        ((mixer, layer, _),) = StackConfig(**{**SIZES, **slots}).each_layer()
        answers, _ = passed(built(mixer, layer, torch.float32), torch.randn(1, 28, 16))
        assert [y.shape for y in answers] == [(1, 28, 16)]


@torch.no_grad()
def test_a_memory_around_a_model_is_put_around_the_layer() -> None:
    """What the layer is given is, bit for bit, what that of a model is given."""
    config = DecoderConfig(**SIZES, pattern=Segments(8, 0), memory=Tokens(3))
    torch.manual_seed(0)
    model = Decoder(config, 23).eval()
    (block,) = model.blocks()
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    mix = block.mixer.mix

    def spied(x, carried, places, pairs):
        seen.append((x, places.pos))
        return mix(x, carried, places, pairs)

    stream = torch.randint(0, 23, (1, 20))
    block.mixer.mix = spied
    model(stream)
    theirs, seen[:] = list(seen), []
    around = wrapping(config, torch.float32)
    assert around is not None
    around.load_state_dict(model.wrapping.state_dict())
    answers, carried = passed(block.mixer, model.embedding(stream), around)
    assert [y.shape[1] for y in answers] == [8, 8, 4]
    assert [x.shape[1] for x, _ in seen] == [8 + 2 * 3, 8 + 2 * 3, 3 + 4]
    assert all(torch.equal(a[1], b[1]) for a, b in zip(seen, theirs, strict=True))
    # later segments read what the one layer wrote, without the rest of the model
    assert torch.equal(seen[0][0], theirs[0][0])
    assert carried.tensors()["written"].all()


def test_the_memory_around_a_model_is_named() -> None:
    config = DecoderConfig(**SIZES, pattern=Segments(8, 0), memory=Tokens(3))
    (measured,) = duels(config, lengths=[8, 24], rounds=1)
    assert measured.mixer == "softmax (rotary, segments, tokens)"
    assert len(measured.times) == 2
