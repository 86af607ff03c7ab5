"""Buffers against plain lists, and what a state's file says when it is none."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from longspan import State
from longspan.buffer import Hidden, Keys
from longspan.errors import StateError
from longspan.state import EMPTY, Carried, push, push_positions

calls = st.lists(
    st.integers(1, 5).flatmap(lambda t: st.lists(st.integers(0, t), min_size=3, max_size=3)),
    min_size=1,
    max_size=6,
)
"""For each call, how many real tokens each of three rows has."""


@given(calls, st.none() | st.integers(0, 7), st.booleans())
@settings(max_examples=60, deadline=None)
def test_pushing_is_appending_to_lists(
    calls: list[list[int]], keep: int | None, dim_two: bool
) -> None:
    """A row's list of the tokens it was given, right-aligned, the newest `keep` of them."""
    rows: list[list[int]] = [[], [], []]
    width = 0
    positions = torch.zeros(3, 0, dtype=torch.long)
    values = torch.zeros((3, 2, 0, 1) if dim_two else (3, 0, 2), dtype=torch.float64)
    dim = 2 if dim_two else 1
    for counts in calls:
        length = max(1, *counts)
        new = torch.stack([len(row) + torch.arange(length) for row in rows])
        shape = (3, 1, length, 1) if dim_two else (3, length, 1)
        tokens = new.double().view(shape).expand((3, 2, length, 1) if dim_two else (3, length, 2))
        even = all(count == length for count in counts)
        real = None if even else torch.tensor(counts)
        values = push(values, tokens, real, keep, dim)
        positions = push_positions(positions, new, real, keep)
        for row, count in zip(rows, counts, strict=True):
            row += range(len(row), len(row) + count)
        width = width + length if keep is None else min(width + length, keep)
        assert positions.shape == (3, width)
        assert values.shape[dim] == width
        for row, held, at in zip(rows, values.movedim(dim, 1), positions.tolist(), strict=True):
            kept = row[max(0, len(row) - width) :]
            assert at == [EMPTY] * (width - len(kept)) + kept
            assert (held[width - len(kept) :].flatten(1) == torch.tensor(kept)[:, None]).all()


def test_gradients_pass_through_a_ragged_push() -> None:
    old = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    new = torch.randn(2, 2, 4, dtype=torch.float64, requires_grad=True)
    counts = torch.tensor([1, 2])
    assert torch.autograd.gradcheck(lambda a, b: push(a, b, counts, 4), (old, new))


def state() -> State:
    torch.manual_seed(0)
    keys = Keys(torch.randn(3, 2, 4, 5), torch.randn(3, 2, 4, 5), torch.arange(12).view(3, 4))
    hidden = Hidden(torch.randn(3, 4, 6).bfloat16(), torch.arange(12).view(3, 4), zeros=2)
    return State(torch.tensor([4, 8, 12]), (keys, hidden))


def assert_same(a: State, b: State) -> None:
    assert torch.equal(a.next, b.next)
    for mine, theirs in zip(a.layers, b.layers, strict=True):
        assert type(mine) is type(theirs)
        assert mine.numbers() == theirs.numbers()
        for name, tensor in mine.tensors().items():
            assert tensor.dtype == theirs.tensors()[name].dtype
            assert torch.equal(tensor, theirs.tensors()[name])


def test_a_file_holds_all_of_it(tmp_path) -> None:
    path = tmp_path / "state.safetensors"
    state().save(path, about={"run": "abc", "pending": [1, 2]})
    assert_same(State.load(path), state())
    assert State.about(path) == {"run": "abc", "pending": [1, 2]}
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_its_bytes_are_counted() -> None:
    clock, keys, hidden = 3 * 8, 2 * 3 * 2 * 4 * 5 * 4, 3 * 4 * 6 * 2
    assert state().nbytes == clock + keys + hidden + 2 * 3 * 4 * 8


def test_moving_changes_the_dtype_of_what_is_no_position() -> None:
    whole = replace(state(), sources=state().layers[:1])
    moved = whole.to(dtype=torch.float64)
    assert moved.next.dtype == torch.long
    assert (len(moved.layers), len(moved.sources)) == (len(whole.layers), 1)
    for layer in (*moved.layers, *moved.sources):
        for name, tensor in layer.tensors().items():
            assert tensor.dtype == (torch.long if name == "pos" else torch.float64)


def test_rows_are_selected_in_the_order_given() -> None:
    rows = torch.tensor([2, 0, 2, 1])
    selected = state().select(rows)
    assert selected.batch == 4
    assert selected.next.tolist() == [12, 4, 12, 8]
    assert torch.equal(selected.layers[0].tensors()["k"], state().layers[0].tensors()["k"][rows])


def test_resetting_forgets_the_marked_rows_only() -> None:
    keys, hidden = state().reset(torch.tensor([False, True, False])).layers
    assert keys.tensors()["pos"].tolist() == [[0, 1, 2, 3], [EMPTY] * 4, [8, 9, 10, 11]]
    # zero-filled slots stand at -2 and -1 again
    assert hidden.tensors()["pos"].tolist() == [
        [0, 1, 2, 3],
        [EMPTY, EMPTY, -2, -1],
        [8, 9, 10, 11],
    ]
    assert hidden.tensors()["x"][1].abs().max() == 0
    assert hidden.tensors()["x"][0].abs().max() > 0


@pytest.mark.parametrize("rows", [torch.tensor([True, False]), torch.tensor([0, 1, 0])])
def test_rows_to_reset_must_be_truths_one_a_row(rows: Tensor) -> None:
    with pytest.raises(StateError, match=r"rows of shape \(3,\) and dtype bool"):
        state().reset(rows)


def test_a_file_that_is_no_state_is_refused(tmp_path) -> None:
    path = tmp_path / "state.safetensors"
    with pytest.raises(StateError, match="there is no such state file"):
        State.load(path)
    path.write_bytes(b"nothing of ours")
    with pytest.raises(StateError, match="the state file is damaged"):
        State.load(path)
    for metadata in (None, {"longspan_state": "{"}, {"longspan_state": "[]"}):
        save_file({"next": torch.zeros(1)}, path, metadata=metadata)
        for read in (State.load, State.about):
            with pytest.raises(StateError, match="but no state"):
                read(path)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.98])
def test_a_truncated_file_is_refused(tmp_path, share: float) -> None:
    path = tmp_path / "state.safetensors"
    state().save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(StateError, match=r"state\.safetensors: the state file is damaged"):
        State.load(path)


@pytest.mark.parametrize(
    "layers",
    [
        [{"kind": "of the future", "numbers": {}}],
        [{"kind": "keys", "numbers": {"unknown": 1}}],
        [{"kind": "hidden", "numbers": {"zeros": 0}}],
        [{"numbers": {}}],
    ],
)
def test_a_state_of_another_version_is_refused(tmp_path, layers: list) -> None:
    path = tmp_path / "state.safetensors"
    header = json.dumps({"format": 1, "layers": layers, "about": {}})
    save_file({"next": torch.zeros(1)}, path, metadata={"longspan_state": header})
    with pytest.raises(StateError, match="not a state that this version can read"):
        State.load(path)


def test_a_folder_that_is_not_there_is_named(tmp_path) -> None:
    with pytest.raises(StateError, match="could not be written"):
        state().save(tmp_path / "absent" / "state.safetensors")
    assert not list(tmp_path.iterdir())


def test_every_kind_of_memory_is_known_by_name() -> None:
    assert {"keys", "hidden"} <= set(Carried.kinds)


def test_a_file_is_read_by_a_process_that_has_made_no_model(tmp_path) -> None:
    """What the memories carry must be known without anybody having imported them."""
    path = tmp_path / "state.safetensors"
    state().save(path)
    script = f"import longspan; print(longspan.State.load({str(path)!r}).nbytes)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (f"{state().nbytes}\n", "")


def test_what_was_read_does_not_lean_on_the_file(tmp_path) -> None:
    path = tmp_path / "state.safetensors"
    state().save(path)
    loaded = State.load(path)
    path.write_bytes(bytes(path.stat().st_size))
    assert_same(loaded, state())
