"""Every row reads one unbroken circle, and the step says where."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from longspan.data import Corpus, Lanes
from longspan.data.tokenizers.bytes import Bytes
from longspan.errors import DataError

BYTES = Bytes().fit([])


def corpus(*sizes: int) -> Corpus:
    rng = np.random.default_rng(0)
    return Corpus.of([rng.integers(0, 256, size, np.uint8).tobytes() for size in sizes], BYTES)


@given(
    rows=st.integers(1, 5),
    width=st.integers(1, 9),
    sizes=st.lists(st.integers(0, 30), min_size=1, max_size=4).filter(any),
    step=st.integers(0, 200),
)
def test_a_batch_is_what_the_formula_says(
    rows: int, width: int, sizes: list[int], step: int
) -> None:
    data = corpus(*sizes)
    n = len(data)
    assume(n > width and n // rows >= width)
    batch = Lanes(data, rows, width).at(step)
    for b in range(rows):
        at = [(b * (n // rows) + step * width + j) % n for j in range(width + 1)]
        assert batch.inputs[b].tolist() == data.tokens[at[:-1]].tolist()
        assert batch.targets[b].tolist() == data.tokens[at[1:]].tolist()
        assert batch.starts[b].tolist() == [i in data.offsets for i in at[:-1]]


def test_shapes_and_types() -> None:
    batch = Lanes(corpus(100), 3, 7).at(0)
    assert [tuple(t.shape) for t in batch] == [(3, 7)] * 3
    assert [t.dtype for t in batch] == [torch.int64, torch.int64, torch.bool]
    assert all(t.is_contiguous() for t in batch)


def test_a_row_goes_on_where_it_stopped_and_comes_round() -> None:
    data = corpus(30, 20)
    lanes = Lanes(data, 2, 5)
    row = torch.cat([lanes.at(step).inputs[1] for step in range(40)])
    again = np.roll(np.asarray(data.tokens), -lanes.lane)
    assert row.tolist() == np.resize(again, 200).tolist()


def test_an_epoch_reads_every_token_and_a_step_less_does_not() -> None:
    for rows, width, size in [(1, 7, 50), (3, 7, 50), (4, 5, 83), (5, 1, 9)]:
        data = corpus(size)
        marks = Corpus(
            np.arange(len(data)), data.offsets, data.names, data.document_bytes, data.codec
        )
        lanes = Lanes(marks, rows, width)
        seen = [set(lanes.at(step).inputs.flatten().tolist()) for step in range(lanes.epoch)]
        assert set().union(*seen) == set(range(len(data)))
        assert set().union(*seen[:-1]) != set(range(len(data)))


def test_starts_are_marked_also_where_the_circle_closes() -> None:
    lanes = Lanes(corpus(3, 4), 1, 4)  # 4 + 5 tokens
    starts = torch.cat([lanes.at(step).starts[0] for step in range(9)])
    assert starts.nonzero()[:, 0].tolist() == [0, 4, 9, 13, 18, 22, 27, 31]


@pytest.mark.parametrize(
    ("size", "rows", "width", "message"),
    [
        (6, 1, 7, r"has 7 tokens, fewer than a segment of 7 .* a segment of at most 6$"),
        (
            19,
            4,
            7,
            r"has 20 tokens, fewer than the 28 that 4 rows .* batch of at most 2, .* most 5",
        ),
        (9, 0, 7, "batch and segment must be 1 or more"),
    ],
)
def test_data_too_short_for_its_batches_is_refused(
    size: int, rows: int, width: int, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        Lanes(corpus(size), rows, width)


def test_what_just_suffices_works() -> None:
    assert Lanes(corpus(7), 1, 7).at(3).inputs.shape == (1, 7)
    assert Lanes(corpus(27), 4, 7).at(3).inputs.shape == (4, 7)


def test_a_batch_is_made_in_no_time() -> None:
    lanes = Lanes(corpus(1_000_000), 32, 512)
    times = []
    for step in range(50):
        begin = time.perf_counter()
        lanes.at(step * 7)
        times.append(time.perf_counter() - begin)
    assert sorted(times)[25] < 2e-3  # 0.2 ms here, on an idle machine
