"""Batches of like length: every record once an epoch, the budget kept, and the step says which."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longspan.data import plan as making
from longspan.data.pairs.batches import Batches, PairBatch
from longspan.data.pairs.corpus import Pairs
from longspan.data.tokenizers.bytes import Bytes
from longspan.errors import DataError

BYTES = Bytes().fit([])


def pairs(*sizes: tuple[int, int]) -> Pairs:
    """Pairs of so many bytes; each is told by its own letters."""
    draw = np.random.default_rng(0)
    text = lambda size: bytes(draw.integers(97, 123, size, np.uint8)).decode()  # noqa: E731
    return Pairs.of([(text(source), text(target)) for source, target in sizes], BYTES)


def many(count: int) -> Pairs:
    draw = np.random.default_rng(1)
    return pairs(*map(tuple, draw.integers(1, 40, (count, 2)).tolist()))


def padded(rows: list[list[int]]) -> tuple[list[list[int]], list[list[bool]]]:
    """The rows with zeros at their ends, and where there are none."""
    width = max(map(len, rows))
    return (
        [row + [0] * (width - len(row)) for row in rows],
        [[True] * len(row) + [False] * (width - len(row)) for row in rows],
    )


def check(batch: PairBatch, data: Pairs) -> None:
    """A batch is what its records say, by lists."""
    start = data.codec.start
    records = batch.records.tolist()
    sources = [data.source(i).tolist() for i in records]
    targets = [data.target(i).tolist() for i in records]
    want = padded(sources)
    assert (batch.source.tolist(), batch.source_valid.tolist()) == want
    inputs, valid = padded([[start, *target] for target in targets])
    assert (batch.inputs.tolist(), batch.target_valid.tolist()) == (inputs, valid)
    assert batch.targets.tolist() == padded([[*target, start] for target in targets])[0]


def test_a_batch_by_hand() -> None:
    data = Pairs.of([("abc", "x"), ("d", "yz")], BYTES)
    batch = Batches(data, tokens=6).rows(np.array([1, 0]))
    s = BYTES.start
    assert batch.source.tolist() == [[100, 0, 0], [97, 98, 99]]
    assert batch.source_valid.tolist() == [[True, False, False], [True, True, True]]
    assert batch.inputs.tolist() == [[s, 121, 122], [s, 120, 0]]
    assert batch.targets.tolist() == [[121, 122, s], [120, s, 0]]
    assert batch.target_valid.tolist() == [[True, True, True], [True, True, False]]
    assert batch.records.tolist() == [1, 0]
    kinds = [tensor.dtype for tensor in batch]
    assert kinds == [torch.int64, torch.bool, torch.int64, torch.int64, torch.bool, torch.int64]


SIZES = st.lists(st.tuples(st.integers(1, 12), st.integers(1, 11)), min_size=1, max_size=40)


@settings(deadline=None, max_examples=40)
@given(sizes=SIZES, tokens=st.integers(12, 60), chunk=st.integers(1, 8), seed=st.integers(0, 5))
def test_an_epoch_has_every_record_once_within_the_budget(
    sizes: list[tuple[int, int]], tokens: int, chunk: int, seed: int
) -> None:
    data = pairs(*sizes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(making, "CHUNK", chunk)
        batches = Batches(data, tokens, seed)
        epoch = [batches.at(step) for step in range(batches.epoch)]
        after = batches.at(batches.epoch)
        padding = batches.padding
    for batch in [*epoch, after]:
        check(batch, data)
        assert len(batch.records) * max(batch.source.shape[1], batch.inputs.shape[1]) <= tokens
    seen = [record for batch in epoch for record in batch.records.tolist()]
    assert sorted(seen) == list(range(len(sizes)))
    real = sum(int(b.source_valid.sum() + b.target_valid.sum()) for b in epoch)
    places = sum(b.source.numel() + b.inputs.numel() for b in epoch)
    assert padding == pytest.approx(1 - real / places)


def test_a_batch_depends_on_the_step_alone() -> None:
    data = many(300)
    through = Batches(data, 200)
    steps = range(5 * through.epoch)
    want = [through.at(step).records.tolist() for step in steps]
    for step in (4 * through.epoch, 3, through.epoch, 0, steps[-1]):
        assert through.at(step).records.tolist() == want[step], "asked for again"
        assert Batches(data, 200).at(step).records.tolist() == want[step], "begun there"


def test_epochs_are_different_and_whole() -> None:
    data = many(300)
    batches = Batches(data, 200)
    seen: list[list[int]] = [[]]
    for step in range(6 * batches.epoch):
        if len(seen[-1]) == len(data):
            seen.append([])
        seen[-1] += batches.at(step).records.tolist()
    assert len(seen) >= 5
    assert all(sorted(epoch) == list(range(len(data))) for epoch in seen[:-1])
    groups = [
        {frozenset(batches.at(step).records.tolist()) for step in range(begin, begin + 40)}
        for begin in (0, batches.epoch)
    ]
    assert not groups[0] & groups[1], "other records meet"
    other = Batches(data, 200, seed=1)
    assert other.at(0).records.tolist() != batches.at(0).records.tolist()


def test_lengths_come_in_no_order() -> None:
    """Else a run would see the short records first, in every epoch."""
    batches = Batches(many(2000), 200)
    widths = [batches.at(step).inputs.shape[1] for step in range(batches.epoch)]
    assert abs(np.corrcoef(widths, np.arange(len(widths)))[0, 1]) < 0.2


def test_records_of_like_length_meet() -> None:
    draw = np.random.default_rng(0)
    translations = pairs(*[(n, n + 1) for n in draw.integers(5, 40, 3000)])
    summaries = pairs(*draw.integers((20, 3), (300, 30), (3000, 2)).tolist())
    for data, most in [(translations, 0.05), (summaries, 0.16)]:
        batches = Batches(data, 2048)
        assert batches.padding < most
        lengths = data.lengths + (0, 1)  # noqa: RUF005 - an array
        blind = 1 - lengths.mean(0).sum() / lengths.max(0).sum()
        assert blind > 0.4, "as it would be without"


@pytest.mark.parametrize(
    ("sizes", "limit", "message"),
    [
        ([(3, 3), (9, 3)], None, r"^record 1: the source has 9 tokens, more than the 8 that a bat"),
        ([(3, 8), (3, 3)], None, r"^record 0: the target has 9 .*use larger batches, or data.long"),
        ([(9, 3), (3, 9)], None, r"data.longest: 7 to leave .* out of training \(2 records are"),
        ([(6, 3)], 5, r"^record 0: the source has 6 tokens, more than the 5 that the model takes"),
        ([(3, 5)], 5, r"^record 0: the target has 6 tokens, .*; use data.longest: 4 to leave"),
    ],
)
def test_what_is_too_long_is_refused_not_cut(
    sizes: list[tuple[int, int]], limit: int | None, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        Batches(pairs(*sizes), 8, limit=limit)


def test_what_just_fits_works() -> None:
    assert Batches(pairs((8, 7)), 8, limit=8).at(3).inputs.shape == (1, 8)


def test_nothing_to_make_batches_of() -> None:
    with pytest.raises(DataError, match="there are no pairs to make batches of"):
        Batches(many(3).select(np.array([], int)))
    with pytest.raises(DataError, match="a batch must have 1 token or more, not 0"):
        Batches(many(3), 0)


def test_a_batch_is_made_in_no_time() -> None:
    batches = Batches(many(5000), 4096)
    times = []
    for step in range(40):
        begin = time.perf_counter()
        batches.at(step * 3)
        times.append(time.perf_counter() - begin)
    assert sorted(times)[20] < 20e-3  # 1 ms here, on an idle machine
