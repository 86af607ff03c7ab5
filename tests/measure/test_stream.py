"""A stream gives the same numbers however it is cut, stopped and picked up."""

from __future__ import annotations

import math
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import longspan
from longspan.data import Corpus
from longspan.errors import DataError, InputError, LongspanError, StateError
from longspan.measure.stream import Stream, Surprise
from longspan.training.run import Run

SIZE = 1000
"""Bytes of the text: several blocks."""

RARELY = settings(max_examples=15, deadline=None)


def text(size: int, seed: int = 0) -> bytes:
    """Lines of UTF-8, one of them longer than a block, of `size` bytes or a few more."""
    draw = random.Random(seed)
    lines = [" ".join(draw.choices(["αβγ", "der", "€uro", "x", "été"], k=150)) + "\n"]
    while sum(map(len, map(str.encode, lines))) < size:
        lines.insert(0, " ".join(draw.choices("ab cdé €", k=draw.randint(0, 40))) + "\n")
    return "".join(lines).encode()


@pytest.fixture(scope="module", params=["bytes", "bpe"])
def loaded(request: pytest.FixtureRequest) -> Run:
    name = {"bytes": "trained", "bpe": "trained_bpe"}[request.param]
    return longspan.load(request.getfixturevalue(name), device="cpu")


@pytest.fixture(scope="module")
def whole(loaded: Run) -> list[Surprise]:
    """What one call gives."""
    return list(longspan.stream(loaded, text(SIZE)))


cuts = st.lists(st.integers(0, SIZE + 500), max_size=6).map(sorted)


def pieces(data: bytes, places: list[int]) -> Iterator[bytes]:
    for low, high in zip([0, *places], [*places, len(data)], strict=True):
        yield data[low:high]


# -- one stream -----------------------------------------------------------------------------------


def test_one_call_is_what_is_streamed(loaded: Run, whole: list[Surprise]) -> None:
    data = text(SIZE)
    assert b"".join(step.bytes for step in whole) == data
    assert [step.position for step in whole] == list(range(len(whole)))
    assert [step.token for step in whole] == loaded.tokenizer.encode(data).tolist()
    assert len(whole) > Stream(loaded).block


@RARELY
@given(places=cuts)
def test_any_cut_gives_bit_for_bit_the_same(
    loaded: Run, whole: list[Surprise], places: list[int]
) -> None:
    stream = Stream(loaded)
    steps = [step for piece in pieces(text(SIZE), places) for step in stream.feed(piece)]
    steps += stream.feed(b"", final=True)
    assert steps == whole


@RARELY
@given(places=cuts)
def test_stopped_and_picked_up_gives_bit_for_bit_the_same(
    loaded: Run,
    whole: list[Surprise],
    tmp_path_factory: pytest.TempPathFactory,
    places: list[int],
) -> None:
    """Each piece is read by another stream, which knows of the others by a file alone."""
    folder = tmp_path_factory.mktemp("state")
    stream, steps = Stream(loaded), []
    for piece in pieces(text(SIZE), places):
        steps += stream.feed(piece)
        stream.save(folder / "state")
        stream = Stream.load(loaded, folder / "state")
    stream.save(folder / "cut")
    once = Stream(loaded)
    list(once.feed(text(SIZE)))
    once.save(folder / "once")
    assert (folder / "cut").read_bytes() == (folder / "once").read_bytes()
    assert steps + list(stream.feed(b"", final=True)) == whole
    shutil.rmtree(folder)


def test_a_pipe_is_read_as_it_comes(loaded: Run, whole: list[Surprise]) -> None:
    read, write = os.pipe()

    def tell() -> None:
        with open(write, "wb", buffering=0) as pipe:
            for piece in pieces(text(SIZE), [1, 2, 700, 701]):
                pipe.write(piece)

    teller = Thread(target=tell)
    teller.start()
    with open(read, "rb") as file:
        assert list(longspan.stream(loaded, file)) == whole
    teller.join()


def test_every_kind_of_source_is_the_same_stream(
    loaded: Run, whole: list[Surprise], tmp_path: Path
) -> None:
    data = text(SIZE)
    (tmp_path / "file").write_bytes(data)
    with open(tmp_path / "file", "rb") as file:
        assert list(longspan.stream(loaded, file)) == whole
    assert list(longspan.stream(loaded, data.decode())) == whole
    assert list(longspan.stream(loaded, iter([step.token for step in whole]))) == whole
    assert [(token, bits) for token, bits in longspan.stream(loaded, data)] == [
        (step.token, step.bits) for step in whole
    ]


def test_what_came_is_scored_before_more_is_asked_for(trained: Path) -> None:
    """An endless source: reading ahead would never end."""
    run = longspan.load(trained, device="cpu")
    asked = []

    def endless() -> Iterator[int]:
        while True:
            asked.append(len(asked))
            yield ord("a")

    steps = longspan.stream(run, endless())
    first = [next(steps) for _ in range(600)]
    assert [step.position for step in first] == list(range(600))
    assert len(asked) <= 600 + Stream(run).block
    state = Stream(run)
    assert [step.bytes for step in state.feed(b"ab")] == [b"a", b"b"]


@pytest.mark.parametrize("token", [-1, 257, 10**6])
def test_a_token_outside_the_vocabulary_is_refused(trained: Path, token: int) -> None:
    run = longspan.load(trained, device="cpu")
    with pytest.raises(InputError, match=f"token {token} is outside"):
        list(longspan.stream(run, iter([1, token])))


def test_what_is_no_text_is_refused_where_text_is_needed(trained_bpe: Path) -> None:
    run = longspan.load(trained_bpe, device="cpu")
    with pytest.raises(DataError, match="not UTF-8"):
        list(longspan.stream(run, b"abc\xff\n"))


# -- against what others say of the same text -----------------------------------------------------


def test_the_bits_are_those_of_one_pass(trained: Path) -> None:
    run = longspan.load(trained, device="cpu", dtype="float64")
    data = text(SIZE)
    tokens = torch.tensor([[run.tokenizer.start, *run.tokenizer.encode(data)]])
    with torch.no_grad():
        logits, _ = run.model(tokens[:, :-1])
    nats = -logits.log_softmax(-1).gather(-1, tokens[:, 1:, None])[0, :, 0]
    bits = [step.bits for step in longspan.stream(run, data)]
    torch.testing.assert_close(
        torch.tensor(bits, dtype=torch.float64), nats / math.log(2), rtol=0, atol=1e-10
    )


def test_the_bits_are_those_that_evaluation_counts(trained: Path) -> None:
    run = longspan.load(trained, device="cpu", dtype="float64")
    documents = [text(size, seed) for seed, size in enumerate([SIZE, 300, 700])]
    score = longspan.evaluate(run.model, Corpus.of(documents, run.tokenizer), run.tokenizer)
    bits = [sum(step.bits for step in longspan.stream(run, data)) for data in documents]
    # losses are kept in float32
    assert score.bits.tolist() == pytest.approx(bits, rel=1e-6)


def test_the_memory_matters_and_the_far_past_does_not(trained: Path) -> None:
    run = longspan.load(trained, device="cpu")
    data = text(SIZE)
    alone = [step.bits for step in longspan.stream(run, data)]
    before = b"zzzz\n" * 32  # five segments, so that the following ones begin where they did
    told = [step.bits for step in longspan.stream(run, before + data)][len(before) :]
    assert max(abs(a - b) for a, b in zip(alone[1:20], told[1:20], strict=True)) > 0.1
    # two layers, each of which sees its segment and the one before
    assert alone[96:] == pytest.approx(told[96:], abs=1e-4)


# -- the state ------------------------------------------------------------------------------------


def test_the_state_does_not_grow(trained: Path, tmp_path: Path) -> None:
    run = longspan.load(trained, device="cpu")
    stream = Stream(run)
    sizes = []
    for _ in range(12):
        list(stream.feed(bytes(2 * stream.block)))
        stream.save(tmp_path / "state")
        sizes.append((stream.state.nbytes, (tmp_path / "state").stat().st_size))
    memory = {state for state, _ in sizes[1:]}
    assert len(memory) == 1
    files = {file for _, file in sizes[1:]}
    assert max(files) - min(files) <= 16  # digits of the position


def test_saving_does_not_disturb(trained: Path, tmp_path: Path) -> None:
    run = longspan.load(trained, device="cpu")
    a, b = Stream(run), Stream(run)
    for piece in pieces(text(900), [100, 500]):
        mine = list(a.feed(piece))
        a.save(tmp_path / "state")
        assert mine == list(b.feed(piece))


@pytest.fixture
def saved(trained: Path, tmp_path: Path) -> Path:
    stream = Stream(longspan.load(trained, device="cpu"))
    list(stream.feed(text(900)))
    stream.save(tmp_path / "state")
    return tmp_path / "state"


def test_the_state_of_another_run_is_refused(saved: Path, trained_bpe: Path) -> None:
    with pytest.raises(StateError, match="the state of another run"):
        Stream.load(longspan.load(trained_bpe, device="cpu"), saved)


def test_the_state_of_other_weights_is_refused(saved: Path, trained: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(trained, tmp_path / "more")
    assert Stream.load(longspan.load(folder, device="cpu"), saved).position > 0
    longspan.train(str(folder), resume=True, train={"steps": 62})
    run = longspan.load(folder, device="cpu", checkpoint="last")
    with pytest.raises(StateError, match="other weights of this one"):
        Stream.load(run, saved)


def test_a_state_computed_in_another_dtype_is_refused(saved: Path, trained: Path) -> None:
    run = longspan.load(trained, device="cpu", dtype="bfloat16")
    with pytest.raises(StateError, match="was computed in float32, not bfloat16"):
        Stream.load(run, saved)


def test_a_state_that_is_no_streams_is_refused(trained: Path, tmp_path: Path) -> None:
    run = longspan.load(trained, device="cpu")
    run.model.start(1).save(tmp_path / "state")
    with pytest.raises(StateError, match="another run"):
        Stream.load(run, tmp_path / "state")


@settings(max_examples=30, deadline=None)
@given(share=st.floats(0, 0.999))
def test_a_truncated_state_is_refused(
    trained: Path, tmp_path_factory: pytest.TempPathFactory, share: float
) -> None:
    run = longspan.load(trained, device="cpu")
    path = tmp_path_factory.mktemp("state") / "state"
    stream = Stream(run)
    list(stream.feed(b"some text"))
    stream.save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(StateError, match="damaged"):
        Stream.load(run, path)


@pytest.mark.parametrize("content", [b"", b"no state", b"\0" * 400])
def test_what_is_no_state_at_all_is_refused(trained: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "state").write_bytes(content)
    with pytest.raises(LongspanError, match=str(tmp_path / "state")):
        Stream.load(longspan.load(trained, device="cpu"), tmp_path / "state")


def test_a_state_that_cannot_be_written_leaves_the_old_one(
    trained: Path, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = saved.read_bytes()
    stream = Stream(longspan.load(trained, device="cpu"))
    list(stream.feed(b"more"))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("longspan.state.save_file", full)
    with pytest.raises(StateError, match="could not be written"):
        stream.save(saved)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]
