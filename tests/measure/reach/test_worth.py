"""What a memory is worth: known of a copier whose memory is a buffer, zero without memory."""

from __future__ import annotations

from dataclasses import replace
from math import log, log2
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from longspan import (
    LSTM,
    XL,
    Alibi,
    Cache,
    Causal,
    Compressive,
    Decoder,
    DecoderConfig,
    Infini,
    LinearAttention,
    MemoryLayer,
    NoMemory,
    Recent,
    Segments,
    Sinks,
    SinkWindow,
)
from longspan.buffer import Hidden
from longspan.data.tokenizers.ids import IdCodec
from longspan.errors import DataError
from longspan.measure.reach.predictor import Predictor
from longspan.measure.reach.reading import read
from longspan.measure.reach.runs import RunPredictor
from longspan.measure.reach.worth import another, newest_only, shuffled, worth
from longspan.state import EMPTY, Carried

V, T, M = 33, 16, 32


class Buffered(Predictor):
    """Copies lag k from its segment or from its memory, two layers of the newest M tokens, of which
    the second is never read.
    """

    size, unit, vocabulary, segment, memory, layers = V, "token", "constructed", T, M, 2

    def __init__(self, k: int) -> None:
        self.k, self.name = k, f"copier {k}"

    def start(self, batch: int) -> tuple[int, Hidden, Hidden]:
        nothing = Hidden(torch.zeros(batch, 0, 1), torch.zeros(batch, 0, dtype=torch.long))
        return 0, nothing, nothing

    def carried(self, state: Any) -> tuple[Carried, ...]:
        return state[1:]

    def carrying(self, state: Any, carried: Any) -> Any:
        return state[0], *carried

    def losses(self, inputs: Tensor, targets: Tensor, state: Any) -> tuple[Tensor, Any]:
        end, held, _ = state
        x = torch.cat([held.x[..., 0], inputs.float()], 1)
        pos = torch.cat([held.pos, torch.arange(end, end + T).expand(len(x), -1)], 1)
        nats = torch.full(targets.shape, log(V))
        for place in range(T):
            # the target stands at end + place + 1
            source = pos == end + place + 1 - self.k
            told = (x * source).sum(1)
            right = source.any(1) & (told == targets[:, place])
            wrong = source.any(1) & (told != targets[:, place])
            nats[right, place], nats[wrong, place] = 0.0, 10.0
        own = Hidden(x[:, -M:, None], pos[:, -M:])
        return nats, (end + T, own, own)


def pieces(period: int, count: int = 6, length: int = 10 * T) -> np.ndarray:
    """Texts that repeat after `period` tokens, each its own."""
    rng = np.random.default_rng(0)
    rows = [np.resize(rng.permutation(V - 1)[:period], length) for _ in range(count)]
    return np.concatenate([np.full((count, 1), V - 1), np.stack(rows)], 1)


@pytest.mark.parametrize("k", [5, 16, 20, 29])
def test_a_copier_loses_what_its_memory_told(k: int) -> None:
    """With nothing lost in its segment, each lost token costs log2 V bits, or 10 nats if it is told
    another one.
    """
    rows = pieces(k)
    lost = {
        (one.change, one.layer): one.bits_per_byte
        for one in worth(Buffered(k), rows, np.arange(len(rows)), 2.0)
    }
    # of the segment's targets, at 1 … T after its beginning, those from before it
    of_memory = [place for place in range(1, T + 1) if place < k]
    share = len(of_memory) / T
    assert lost["emptied", 0] == pytest.approx(share * log2(V) / 2, rel=1e-5)
    assert lost["emptied", None] == lost["emptied", 0]
    for newest in (M // 4, M // 2):
        # a target at `place` asks for the slot k - place tokens before the segment's first
        beyond = [place for place in of_memory if k - place > newest]
        expected = len(beyond) / T * log2(V) / 2
        assert lost[f"newest {newest}", 0] == pytest.approx(expected, abs=1e-6)
    # texts of other documents say something else nearly everywhere
    assert lost["swapped", 0] == pytest.approx(share * 10 / log(2) / 2, rel=0.15)
    assert lost["shuffled", 0] > 0.5 * lost["swapped", 0]
    # frozen after M tokens: a period later what it tells is right again
    since = range(T, len(rows[0]) - 1 - M, T)
    wrong = [shift for shift in since if shift % k]
    expected = len(wrong) / len(since) * share * 10 / log(2) / 2
    assert lost["frozen", 0] == pytest.approx(expected, rel=1e-5)
    assert (lost["frozen", 0] == 0) == (T % k == 0)
    assert all(value == 0 for (_, layer), value in lost.items() if layer == 1), "it is never read"


def test_frozen_is_not_told_of_a_piece_that_ends_where_the_memory_is_full() -> None:
    lost = worth(Buffered(20), pieces(20, length=M + T), np.arange(6), 2.0)
    assert {one.change for one in lost} == {
        "emptied",
        "shuffled",
        "swapped",
        "newest 8",
        "newest 16",
    }
    lost = worth(Buffered(20), pieces(20, length=M + 2 * T), np.arange(6), 2.0)
    assert "frozen" in {one.change for one in lost}


def test_another_piece_is_of_another_document_where_there_is_one() -> None:
    for owners in ([0, 1, 2, 3], [0, 0, 1, 1], [0, 0, 0, 1]):
        others = np.array(owners)[another(np.array(owners))]
        assert (others != owners).sum() == min(len(owners), 2 * (len(owners) - owners.count(0)))
    assert sorted(another(np.zeros(4, int))) == [0, 1, 2, 3]


PLAIN = DecoderConfig(width=8, layers=2, heads=2, feed_forward=12)
SIZES = replace(PLAIN, position=Alibi())
CODEC = IdCodec(V, V - 1)
BUFFERS = {
    "recent": replace(SIZES, position=XL(), pattern=Segments(T, M), memory=Recent(M)),
    "hidden": replace(SIZES, pattern=Segments(T, M), memory=Recent(M, store="hidden")),
    "sinks": replace(SIZES, pattern=SinkWindow(M, 2), memory=Sinks(M, 2)),
    "cache": replace(SIZES, pattern=Causal(), memory=Cache()),
    "compressive": replace(
        SIZES, position=XL(), pattern=Segments(T, M), memory=Compressive(M, 8, 4)
    ),
    "layer": replace(SIZES, pattern=Segments(T, 0), memory=MemoryLayer(4)),
}
SUMS = {
    "infini": replace(SIZES, pattern=Segments(T, 0), memory=Infini()),
    "linear": replace(PLAIN, mixer=LinearAttention()),
    "lstm": replace(PLAIN, mixer=LSTM()),
}


def predictor(config: DecoderConfig) -> RunPredictor:
    torch.manual_seed(0)
    model = Decoder(config, V).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return RunPredictor("tiny", model.requires_grad_(False), CODEC, T)


def random_pieces(length: int = 6 * T) -> np.ndarray:
    rows = np.random.default_rng(3).integers(0, V - 1, (4, length))
    return np.concatenate([np.full((4, 1), V - 1), rows], 1)


def test_without_memory_every_contribution_of_memory_is_zero() -> None:
    made = predictor(replace(SIZES, pattern=Segments(T, 0), memory=NoMemory()))
    assert made.memory == 0
    lost = worth(made, random_pieces(), np.arange(4), 1.0)
    assert len(lost) > 5
    assert all((one.bits_per_byte, one.low, one.high) == (0, 0, 0) for one in lost)


@pytest.mark.parametrize("name", BUFFERS)
def test_every_memory_of_slots_can_be_changed(name: str) -> None:
    made = predictor(BUFFERS[name])
    lost = worth(made, random_pieces(), np.arange(4), 1.0)
    changes = {one.change for one in lost}
    assert changes >= {"emptied", "shuffled", "swapped", "frozen"}
    assert {one.layer for one in lost} == {None, 0, 1}
    for change in ("emptied", "swapped", "shuffled"):
        each = [one.bits_per_byte for one in lost if one.change == change]
        assert all(np.isfinite(each)), change
        assert all(value != 0 for value in each), change


@pytest.mark.parametrize("name", SUMS)
def test_sums_have_no_order(name: str) -> None:
    lost = worth(predictor(SUMS[name]), random_pieces(), np.arange(4), 1.0)
    assert {one.change for one in lost} == {"emptied", "swapped", "frozen"}
    assert all(one.bits_per_byte != 0 for one in lost)


def test_emptied_is_what_reading_each_segment_from_nothing_gives() -> None:
    """In one layer, so that what is emptied before a segment is all that it could have known."""
    made = predictor(replace(BUFFERS["recent"], layers=1))
    rows = random_pieces()
    lost = {(one.change, one.layer): one for one in worth(made, rows, np.arange(4), 1.5)}
    clean = read(made, rows)
    bare = made.remembering(0)
    assert bare is not None
    alone = read(bare, rows)
    first = M  # tokens until the memory is full
    expected = (alone - clean)[:, first:].mean() / log(2) / 1.5
    assert lost["emptied", None].bits_per_byte == pytest.approx(expected, abs=1e-9)
    assert lost["emptied", None].low < expected < lost["emptied", None].high


def test_slots_that_hold_nothing_do_not_move() -> None:
    pos = torch.tensor([[EMPTY, EMPTY, 0, 1, 2, 3], [0, 1, 2, 3, 4, 5]])
    state = Hidden(torch.arange(12.0).view(2, 6, 1), pos)
    mixed = shuffled(state, 1)
    assert isinstance(mixed, Hidden)
    assert mixed.pos.equal(pos)
    assert mixed.x[0, :2, 0].tolist() == [0, 1]
    assert sorted(mixed.x[0, 2:, 0].tolist()) == [2, 3, 4, 5] != mixed.x[0, 2:, 0].tolist()
    assert sorted(mixed.x[1, :, 0].tolist()) == list(range(6, 12)) != mixed.x[1, :, 0].tolist()
    held = shuffled(state, 1, keep=3)
    assert isinstance(held, Hidden)
    assert held.x[1, :3, 0].tolist() == [6, 7, 8]
    cut = newest_only(state, 2)
    assert isinstance(cut, Hidden)
    assert cut.pos.tolist() == [[EMPTY] * 4 + [2, 3], [EMPTY] * 4 + [4, 5]]


def test_a_memory_that_never_fills_is_said() -> None:
    with pytest.raises(DataError, match="end before a memory of 32 tokens is read"):
        worth(predictor(BUFFERS["recent"]), random_pieces(T + 2), np.arange(4), 1.0)
