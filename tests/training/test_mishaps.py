"""What a training does when the numbers, the memory or the disk give out."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import longspan
from longspan.errors import CheckpointError, DivergedError, LongspanError
from longspan.models.decoder import Decoder
from longspan.models.vocabulary import Head
from longspan.training import checkpoint as checkpoints
from tests.tiny import (
    Result,
    assert_same_end,
    contents,
    refused,
    settings,
    train_tiny,
    words,
)

OFTEN = {"train.steps": 12, "log.every": 1, "log.checkpoint": 2, "evaluate.every": 0}


def steps_saved(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").glob("*"))


# -- no number ------------------------------------------------------------------------------------


def test_a_learning_rate_far_too_high_is_one_clear_line(
    tmp_path: Path, corpus: Path, cli: Callable[..., Result]
) -> None:
    changes = OFTEN | {"train.learning_rate": 1e9, "train.warmup": 0}
    said = refused(cli("train", "tiny", *words(settings(tmp_path / "run", corpus, **changes))))
    assert said.startswith("the loss is no number at step 2 in lane 0, 1, 2, 3; no checkpoint is")
    assert "train.learning_rate (now 1000000000.0)" in said


def poison(monkeypatch: pytest.MonkeyPatch, call: int, spoil: Callable[[Tensor], Tensor]) -> None:
    """Spoils what the head says at its `call`-th loss."""
    calls = iter(range(1, 10**6))
    nll = Head.nll

    def spoilt(self: Head, h: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
        values = nll(self, h, targets, smoothing)
        return spoil(values) if next(calls) == call else values

    monkeypatch.setattr(Head, "nll", spoilt)


def test_the_step_and_the_lane_are_named(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(values: Tensor) -> Tensor:
        lanes = values.view(4, -1).clone()
        lanes[2, 5] = torch.nan
        return lanes.flatten()

    poison(monkeypatch, 8, spoil)
    with pytest.raises(DivergedError, match="loss is no number at step 8 in lane 2; step-00000006"):
        train_tiny(tmp_path / "run", corpus, **OFTEN)
    monkeypatch.undo()
    assert steps_saved(tmp_path / "run") == ["step-00000006"]
    assert longspan.load(tmp_path / "run").checkpoint.name == "step-00000006"
    # the numbers were not the run's fault: it can go on
    whole = train_tiny(tmp_path / "whole", corpus, **OFTEN)
    train_tiny(tmp_path / "run", corpus, resume=True, **OFTEN)
    assert_same_end(tmp_path / "run", whole)


def test_a_gradient_that_is_no_number_changes_no_weight(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the square root of 0 is 0, and its slope is not finite
    poison(monkeypatch, 3, lambda values: values + (values - values.detach()).abs().sqrt())
    with pytest.raises(DivergedError, match="the gradient is no number at step 3; step-00000002"):
        train_tiny(tmp_path / "run", corpus, **OFTEN)


def test_held_out_data_tell_too(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = OFTEN | {"evaluate.every": 4, "log.checkpoint": 1}
    poison(monkeypatch, 5, lambda values: values * torch.nan)
    with pytest.raises(
        DivergedError, match="the held-out loss is no number at step 4; step-000000"
    ):
        train_tiny(tmp_path / "run", corpus, **changes)
    assert steps_saved(tmp_path / "run") == ["step-00000003"]


# -- no memory ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
        MemoryError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_out_of_memory_says_what_to_reduce(
    tmp_path: Path,
    corpus: Path,
    monkeypatch: pytest.MonkeyPatch,
    cli: Callable[..., Result],
    error: Exception,
) -> None:
    folder = tmp_path / "run"
    calls = iter(range(1, 100))
    hidden = Decoder.hidden

    def greedy(self: Decoder, *inputs: Any, **named: Any) -> Any:
        if next(calls) == 5:
            raise error
        return hidden(self, *inputs, **named)

    monkeypatch.setattr(Decoder, "hidden", greedy)
    said = refused(cli("train", "tiny", *words(settings(folder, corpus, **OFTEN))))
    assert "out of memory: reduce train.batch (now 4" in said
    assert steps_saved(folder) == ["step-00000004"]


def test_a_model_that_does_not_fit_says_so_before_it_begins(tmp_path: Path, corpus: Path) -> None:
    changes = OFTEN | {"model.width": 2**34, "model.heads": 1}
    with pytest.raises(LongspanError, match=r"out of memory: .* model\.width"):
        train_tiny(tmp_path / "run", corpus, **changes)
    assert not (tmp_path / "run").exists()


def test_other_errors_keep_their_trace(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("a bug of ours")

    monkeypatch.setattr(Decoder, "hidden", broken)
    with pytest.raises(RuntimeError, match="a bug of ours"):
        train_tiny(tmp_path / "run", corpus, **OFTEN)


# -- no space -------------------------------------------------------------------------------------


def test_a_full_disk_leaves_older_checkpoints_as_they_were(tmp_path: Path, corpus: Path) -> None:
    folder, whole = tmp_path / "run", tmp_path / "whole"
    train_tiny(folder, corpus, **OFTEN | {"train.steps": 4})
    before = contents(folder / "checkpoints")
    shutil.copytree(folder, whole)
    for file in ("model", "optimizer", "memory", "trainer"):
        with pytest.MonkeyPatch.context() as patch:
            fill(patch, file)
            with pytest.raises(CheckpointError, match="checkpoint of step 6 could not be written"):
                train_tiny(folder, corpus, resume=True, **OFTEN)
        assert contents(folder / "checkpoints") == before
    train_tiny(folder, corpus, resume=True, **OFTEN)
    train_tiny(whole, corpus, resume=True, **OFTEN)
    assert_same_end(folder, whole)


def fill(patch: pytest.MonkeyPatch, file: str) -> None:
    """Makes the disk seem full when `file` of a checkpoint is written."""

    def full(path: Path) -> None:
        if path.name.startswith(file):
            path.write_bytes(b"as much as there was room for")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    def save_file(tensors: Any, path: Path) -> None:
        full(path)
        write(tensors, path)

    def write_text(path: Path, *text: Any, **options: Any) -> int:
        full(path)
        return say(path, *text, **options)

    write, say = checkpoints.save_file, Path.write_text
    patch.setattr(checkpoints, "save_file", save_file)
    patch.setattr("longspan.state.save_file", lambda _, path, metadata: full(Path(path)))
    patch.setattr(Path, "write_text", write_text)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[tuple[Path, Callable[[str], None]]]:
    """A real file system of a few kilobytes, and a function that gives it another size."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(size: str, *remount: str) -> None:
        options = ",".join([*remount, f"size={size}"])
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], capture_output=True
        )
        if done.returncode:
            pytest.skip(f"this user may not mount: {done.stderr.decode().strip()}")

    try:
        mount("640k")
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    yield place, lambda size: mount(size, "remount")
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("tensorboard", [False, True])
def test_a_disk_that_is_really_full(
    small_disk: tuple[Path, Callable[[str], None]],
    tmp_path: Path,
    corpus: Path,
    cli: Callable[..., Result],
    tensorboard: bool,
) -> None:
    """A checkpoint takes some 400 KB: one fits, and no second beside it."""
    place, resize = small_disk
    changes = OFTEN | {"log.tensorboard": tensorboard}
    recipe = words(settings(place / "run", corpus, **changes))
    said = refused(cli("train", "tiny", *recipe))
    assert "No space left on device" in said or "could not be written" in said
    assert steps_saved(place / "run") == ["step-00000002"]
    before = contents(place / "run" / "checkpoints")
    refused(cli("train", "tiny", *recipe, "--resume"))
    assert contents(place / "run" / "checkpoints") == before
    resize("8m")
    assert cli("train", "tiny", *recipe, "--resume").status == 0
    assert_same_end(place / "run", train_tiny(tmp_path / "whole", corpus, **changes))


def test_a_disk_that_is_full_before_the_first_checkpoint(
    small_disk: tuple[Path, Callable[[str], None]], corpus: Path, cli: Callable[..., Result]
) -> None:
    place, resize = small_disk
    (place / "ballast").write_bytes(bytes(636 << 10))
    recipe = words(settings(place / "run", corpus, **OFTEN))
    refused(cli("train", "tiny", *recipe))
    assert not (place / "run" / "run.yaml").exists()
    resize("8m")
    assert cli("train", "tiny", *recipe).status == 0


def test_a_folder_that_cannot_be_made_is_named(corpus: Path, cli: Callable[..., Result]) -> None:
    place = corpus / "0.txt" / "run"
    said = refused(cli("train", "tiny", *words(settings(place, corpus, **OFTEN))))
    assert str(corpus / "0.txt") in said


def test_settings_belong_to_names_and_files(tmp_path: Path, corpus: Path) -> None:
    recipe = longspan.training.recipe.read_recipe("tiny", settings(tmp_path, corpus))
    with pytest.raises(longspan.ConfigError, match="change a Recipe by `replace`"):
        longspan.train(recipe, model={"width": 64})
