"""A run that was killed and went on ends bit for bit as the run that nobody disturbed."""

from __future__ import annotations

import random
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import longspan
from longspan.config import read_yaml, write_yaml
from longspan.errors import CheckpointError, ConfigError
from longspan.training.checkpoint import last_checkpoint, read_trainer
from longspan.training.loop import Interrupted, Watcher
from tests.tiny import (
    PATIENCE,
    Result,
    assert_same_end,
    contents,
    refused,
    run,
    settings,
    start,
    train_tiny,
    wait_until,
    words,
)

OFTEN = {"train.steps": 40, "log.every": 3, "log.checkpoint": 1, "evaluate.every": 10}
SELDOM = OFTEN | {"log.checkpoint": 7, "evaluate.every": 0}
MIXED = {
    "dropout, accumulated": {
        "model.dropout": 0.2,
        "model.attention_dropout": 0.1,
        "train.accumulate": 2,
    },
    "bfloat16, one stream": {"train.dtype": "bfloat16", "data.documents": False},
    "muon": {"train.optimizer": "muon"},
    "layers that differ": {
        "model.layers": 4,
        "model.stack": [
            {"mixer": "lstm"},
            {},
            {"mixer": "convolution"},
            {"memory": {"name": "recent", "tokens": 40}},
        ],
        "train.accumulate": 2,
        "train.through": 2,
    },
    "features drawn anew": {
        "model.stack": [{"mixer": {"name": "favor", "features": 16, "redraw": 5}}, {}],
        "train.dtype": "bfloat16",
    },
    "byte pairs, post-norm": {
        "data.tokenizer": {"name": "bpe", "vocab": 300},
        "data.test": 0,
        "model.placement": "post",
    },
}
"""Settings by which a run carries more, or other things, from step to step."""

Moment = Callable[[Path], object]


def metrics(folder: Path) -> int:
    """Bytes written so far."""
    file = folder / "metrics.jsonl"
    return file.stat().st_size if file.exists() else 0


def checkpoints(folder: Path) -> list[str]:
    """Names of what lies there, unfinished ones too."""
    place = folder / "checkpoints"
    return [path.name for path in place.iterdir()] if place.is_dir() else []


def unfinished(folder: Path) -> bool:
    return any(name.startswith(".part") for name in checkpoints(folder))


def complete(folder: Path) -> Path | None:
    return last_checkpoint(folder / "checkpoints")


def later(size: int) -> Moment:
    """When there is a checkpoint, and more than `size` bytes of metrics."""
    return lambda folder: complete(folder) and metrics(folder) > size


def kill(
    folder: Path, data: Path, moment: Moment, left: Moment = lambda _: True, **changes: Any
) -> None:
    """Goes on with a run in a process of its own, and kills it at `moment`.

    If the process was faster (it ended, or what it left is not as `left` says), it begins again
    from where it began.
    """
    recipe = words(settings(folder, data, **changes))
    before = folder.with_name("before")
    for _ in range(10):
        shutil.rmtree(before, ignore_errors=True)
        if folder.exists():
            shutil.copytree(folder, before)
        process = start("train", "tiny", *recipe, "--resume", stdout=subprocess.DEVNULL)
        now = partial(moment, folder)
        wait_until(now, process)
        process.kill()
        _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode in (0, -signal.SIGKILL), err.decode()
        if process.returncode and left(folder):
            return
        shutil.rmtree(folder)
        if before.exists():
            before.rename(folder)
    pytest.fail("the process was faster each time")


def test_a_run_killed_again_and_again_ends_as_the_unbroken_one(
    tmp_path: Path, corpus: Path
) -> None:
    folder, whole = tmp_path / "killed", tmp_path / "whole"
    kill(folder, corpus, lambda f: f.is_dir(), **SELDOM)
    kill(folder, corpus, metrics, lambda f: not complete(f), **SELDOM)
    kill(folder, corpus, later(random.randrange(1000)), **SELDOM)
    train_tiny(folder, corpus, resume=True, **SELDOM)
    train_tiny(whole, corpus, **SELDOM)
    assert_same_end(folder, whole)


def test_a_kill_while_a_checkpoint_is_written_costs_nothing_but_that_one(
    tmp_path: Path, corpus: Path
) -> None:
    folder, whole = tmp_path / "killed", tmp_path / "whole"
    changes = OFTEN | {"train.steps": 20}
    kill(folder, corpus, unfinished, unfinished, **changes)
    train_tiny(folder, corpus, resume=True, **changes)
    assert not unfinished(folder)
    train_tiny(whole, corpus, **changes)
    assert_same_end(folder, whole)


@pytest.mark.parametrize("name", MIXED)
def test_everything_that_a_step_depends_on_goes_on(tmp_path: Path, corpus: Path, name: str) -> None:
    changes = SELDOM | {"train.steps": 24} | MIXED[name]
    folder, whole = tmp_path / "killed", tmp_path / "whole"
    kill(folder, corpus, later(random.randrange(600)), **changes)
    train_tiny(folder, corpus, resume=True, **changes)
    train_tiny(whole, corpus, **changes)
    assert_same_end(folder, whole)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("name", MIXED)
def test_random_kills(tmp_path: Path, corpus: Path, name: str, seed: int) -> None:
    draw = random.Random(f"{name} {seed}")
    changes = OFTEN | MIXED[name] | {"log.checkpoint": draw.choice([1, 1, 3, 11])}
    folder, whole = tmp_path / "killed", tmp_path / "whole"
    kill(folder, corpus, draw.choice([lambda f: f.is_dir(), metrics, unfinished]), **changes)
    for size in sorted(draw.sample(range(1500), 3)):
        kill(folder, corpus, draw.choice([later(size), unfinished]), **changes)
    train_tiny(folder, corpus, resume=True, **changes)
    train_tiny(whole, corpus, **changes)
    assert_same_end(folder, whole)


def printed_command(folder: Path, said: str) -> tuple[int, list[str]]:
    """What the message of a stopped run says: the step, and the command as a shell reads it."""
    told, _, line = said.rstrip().rpartition("\n")
    saved = complete(folder)
    assert saved is not None
    step = read_trainer(saved)["step"]
    assert told.endswith(f"longspan: stopped after step {step}, everything is saved; go on with")
    name, *arguments = shlex.split(line)
    assert name == "longspan"
    return step, arguments


def test_sigterm_saves_and_prints_the_command_that_goes_on(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch, cli: Callable[..., Result]
) -> None:
    place, whole = Path("my runs") / "one", tmp_path / "whole"
    changes = SELDOM | {"train.steps": 120}
    recipe = words(settings(place, corpus, **changes))
    process = start("train", "tiny", *recipe, cwd=tmp_path)
    wait_until(lambda: metrics(tmp_path / place), process)
    process.terminate()
    _, error = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    monkeypatch.chdir(tmp_path)
    step, arguments = printed_command(place, error.decode())
    again = cli(*arguments)
    assert again.status == 0
    assert f"going on after step {step}" in again.err
    assert_same_end(place, train_tiny(whole, corpus, **changes))


def test_ctrl_c_saves_and_prints_the_command_that_goes_on(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch, cli: Callable[..., Result]
) -> None:
    folder, whole = tmp_path / "stopped", tmp_path / "whole"
    monkeypatch.setattr("longspan.cli.train.Bar.step", Stop(10).step)
    stopped = cli("train", "tiny", *words(settings(folder, corpus, **SELDOM)))
    assert stopped.status == 130
    step, arguments = printed_command(folder, stopped.err)
    assert step == 10
    monkeypatch.undo()
    assert cli(*arguments).status == 0
    assert_same_end(folder, train_tiny(whole, corpus, **SELDOM))


class Stop(Watcher):
    """Sends this process a signal in the middle of a run."""

    def __init__(self, after: int) -> None:
        self.after = after

    def step(self, step: int, loss: float, tokens_per_second: float) -> None:
        if step == self.after:
            signal.raise_signal(signal.SIGINT)


@pytest.fixture
def half(tmp_path: Path, corpus: Path) -> Path:
    """A run that was stopped after 10 of 24 steps."""
    changes = settings(tmp_path / "half", corpus, **SELDOM | {"train.steps": 24})
    with pytest.raises(Interrupted, match="after step 10"):
        longspan.train("tiny", watcher=Stop(10), **changes)
    return tmp_path / "half"


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("model.width", 48, "model.width was 32 and is now 48"),
        ("model.memory", {"name": "recent", "tokens": 64}, "model.memory.tokens was 32"),
        ("data.valid", 0.3, "data.valid was 0.1 and is now 0.3"),
        ("data.documents", False, "data.documents was True and is now False"),
        ("train.batch", 2, "train.batch was 4 and is now 2"),
        ("train.seed", 2, "train.seed was 1 and is now 2"),
        ("train.learning_rate", 0.5, "train.learning_rate was 0.01 and is now 0.5"),
    ],
)
def test_a_changed_recipe_is_refused_and_nothing_touched(
    half: Path, corpus: Path, key: str, value: Any, said: str
) -> None:
    before = contents(half)
    with pytest.raises(ConfigError, match="cannot be resumed with a changed recipe") as caught:
        train_tiny(half, corpus, resume=True, **SELDOM | {"train.steps": 24, key: value})
    assert said in str(caught.value)
    assert contents(half) == before


def test_every_change_is_named_at_once(half: Path, corpus: Path) -> None:
    changes = {"train.steps": 24, "model.width": 48, "train.batch": 2, "data.valid": 0.3}
    with pytest.raises(ConfigError) as caught:
        train_tiny(half, corpus, resume=True, **SELDOM | changes)
    named = {problem.split(" was ")[0] for problem in caught.value.problems}
    assert named == {"model.width", "train.batch", "data.valid"}


def test_steps_logs_and_evaluation_may_change(half: Path, corpus: Path) -> None:
    train_tiny(
        half,
        corpus,
        resume=True,
        **{
            "train.steps": 30,
            "log.every": 2,
            "log.checkpoint": 5,
            "evaluate.every": 6,
            "evaluate.tokens": 500,
        },
    )
    saved = last_checkpoint(half / "checkpoints")
    assert saved is not None
    assert read_trainer(saved)["step"] == 30


def test_a_run_of_an_older_version_goes_on(half: Path, corpus: Path) -> None:
    """What it did not know yet it did as today's default does."""
    file = half / "run.yaml"
    tree = read_yaml(file.read_text("utf-8"), str(file))
    for name in ("schedule", "smoothing", "average", "tokens"):
        del tree["train"][name]
    del tree["task"]
    file.write_text(write_yaml(tree), "utf-8")
    train_tiny(half, corpus, resume=True, **SELDOM | {"train.steps": 24})
    saved = last_checkpoint(half / "checkpoints")
    assert saved is not None
    assert read_trainer(saved)["step"] == 24


def test_fewer_steps_than_done_are_refused(half: Path, corpus: Path) -> None:
    before = contents(half)
    with pytest.raises(ConfigError, match=r"train\.steps=5, but the run has done 10 already"):
        train_tiny(half, corpus, resume=True, **SELDOM | {"train.steps": 5})
    assert contents(half) == before


def test_another_number_of_threads_is_warned_of(half: Path, corpus: Path) -> None:
    changes = SELDOM | {"train.steps": 10, "train.threads": 2}
    with pytest.warns(UserWarning, match="^threads was 1 and is now 2: .* not bitwise"):
        train_tiny(half, corpus, resume=True, **changes)


def test_another_dtype_is_warned_of(half: Path, corpus: Path) -> None:
    changes = SELDOM | {"train.steps": 24, "train.dtype": "bfloat16"}
    with pytest.warns(UserWarning, match=r"^train\.dtype was 'float32' .* not bitwise"):
        train_tiny(half, corpus, resume=True, **changes)


def test_other_data_at_the_same_place_are_warned_of(tmp_path: Path, corpus: Path) -> None:
    data = shutil.copytree(corpus, tmp_path / "data")
    changes = SELDOM | {"train.steps": 24}
    with pytest.raises(Interrupted):
        longspan.train("tiny", watcher=Stop(10), **settings(tmp_path / "run", data, **changes))
    for file in data.iterdir():
        file.write_bytes(file.read_bytes().swapcase())
    with pytest.warns(UserWarning, match=r"data was \w+ and is now \w+: .* not bitwise"):
        train_tiny(tmp_path / "run", data, resume=True, **changes)


def test_a_run_is_not_begun_twice(half: Path, corpus: Path) -> None:
    before = contents(half)
    with pytest.raises(ConfigError, match="holds a run already; go on with --resume"):
        train_tiny(half, corpus, **SELDOM)
    assert contents(half) == before


def test_going_on_with_a_finished_run_changes_nothing(tmp_path: Path, trained: Path) -> None:
    folder = shutil.copytree(trained, tmp_path / "run")
    before = contents(folder)
    longspan.train(str(folder), resume=True)
    after = contents(folder)
    # the recipe now names the copy, and nothing else
    before.pop("run.yaml"), after.pop("run.yaml")
    assert after == before


def test_a_moved_run_goes_on_where_it_lies_now(half: Path, corpus: Path) -> None:
    moved = half.rename(half.with_name("moved"))
    assert longspan.train(str(moved), resume=True) == moved
    assert not half.exists()
    whole = train_tiny(half, corpus, **SELDOM | {"train.steps": 24})
    assert_same_end(moved, whole)


def test_metrics_that_somebody_cut_are_warned_of(half: Path, corpus: Path) -> None:
    (half / "metrics.jsonl").write_text("")
    with pytest.warns(UserWarning, match=r"metrics\.jsonl is shorter"):
        longspan.train(str(half), resume=True)
    assert b"\0" not in (half / "metrics.jsonl").read_bytes()


# -- fine-tuning ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another corpus, whose byte pairs are other ones."""
    folder = tmp_path_factory.mktemp("other")
    for index in range(6):
        rows = (f"{n:05d};{n * n % 97:03d}\n" for n in range(index * 1000, index * 1000 + 600))
        (folder / f"{index}.csv").write_text("".join(rows))
    return folder


TUNED = SELDOM | {"train.steps": 12, "data.tokenizer": {"name": "bpe", "vocab": 400}}


def test_fine_tuning_begins_with_the_weights_and_the_tokenizer_of_the_run(
    tmp_path: Path, trained_bpe: Path, other: Path
) -> None:
    before = contents(trained_bpe)
    still = TUNED | {"train.learning_rate": 1e-12, "train.weight_decay": 0.0}
    folder = tmp_path / "tuned"
    longspan.train("tiny", source=trained_bpe, **settings(folder, other, **still))
    mine, theirs = longspan.load(folder), longspan.load(trained_bpe)
    assert mine.tokenizer.fingerprint == theirs.tokenizer.fingerprint
    for (name, a), b in zip(mine.model.named_parameters(), theirs.model.parameters(), strict=True):
        assert (a - b).abs().max() < 1e-9, name
    assert contents(trained_bpe) == before


def test_fine_tuning_goes_on_without_the_run_that_it_began_with(
    tmp_path: Path, trained_bpe: Path, other: Path
) -> None:
    source = shutil.copytree(trained_bpe, tmp_path / "source")
    folder, whole = tmp_path / "killed", tmp_path / "whole"
    longspan.train("tiny", source=source, **settings(whole, other, **TUNED))
    recipe = words(settings(folder, other, **TUNED))
    process = start("train", "tiny", *recipe, "--from", source)
    # before its first own checkpoint
    wait_until(lambda: (folder / "run.yaml").exists(), process)
    process.kill()
    process.communicate(timeout=PATIENCE)
    shutil.rmtree(source)
    longspan.train(str(folder), resume=True)
    assert_same_end(folder, whole)


def test_fine_tuning_refuses_another_model(tmp_path: Path, trained: Path, corpus: Path) -> None:
    changes = settings(tmp_path / "tuned", corpus, **{"model.layers": 3})
    with pytest.raises(ConfigError, match=r"model\.layers is 2 there and 3 here"):
        longspan.train("tiny", source=trained, **changes)
    assert not (tmp_path / "tuned").exists()


# -- checkpoints that are damaged -----------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["model.safetensors", "optimizer.safetensors", "memory.safetensors", "trainer.json"],
)
@pytest.mark.parametrize("share", [None, 0.0, 0.5, 0.99])
def test_a_damaged_checkpoint_is_one_clear_line(
    half: Path, cli: Callable[..., Result], name: str, share: float | None
) -> None:
    saved = last_checkpoint(half / "checkpoints")
    assert saved is not None
    file = saved / name
    if share is None:
        file.unlink()
    else:
        content = file.read_bytes()
        file.write_bytes(content[: int(share * len(content))])
    before = contents(half)
    assert name in refused(cli("train", half, "--resume"))
    assert contents(half) == before


def test_a_checkpoint_of_another_shape_is_refused(half: Path, tmp_path: Path, corpus: Path) -> None:
    wide = train_tiny(tmp_path / "wide", corpus, **SELDOM | {"train.steps": 7, "model.width": 48})
    source = last_checkpoint(wide / "checkpoints")
    target = last_checkpoint(half / "checkpoints")
    assert source is not None
    assert target is not None
    kept = {path.name: path.read_bytes() for path in target.iterdir()}
    for name, said in {
        "model.safetensors": "does not fit its run.yaml",
        "optimizer.safetensors": "does not fit its run.yaml",
        "memory.safetensors": "another model's",
    }.items():
        shutil.copy(source / name, target / name)
        with pytest.raises(longspan.LongspanError, match=said):
            longspan.train(str(half), resume=True)
        (target / name).write_bytes(kept[name])
    longspan.train(str(half), resume=True)


def test_a_run_without_checkpoint_says_how_to_go_on(tmp_path: Path, half: Path) -> None:
    shutil.rmtree(half / "checkpoints")
    with pytest.raises(CheckpointError, match=f"longspan train {half} --resume"):
        longspan.load(half)


def test_the_best_and_the_last_checkpoint_stay(tmp_path: Path, corpus: Path) -> None:
    changes = {"train.steps": 30, "evaluate.every": 5, "log.checkpoint": 2}
    changes |= {"train.learning_rate": 0.5, "train.final": 1.0}
    folder = train_tiny(tmp_path / "run", corpus, **changes)
    last = last_checkpoint(folder / "checkpoints")
    assert last is not None
    best = f"step-{read_trainer(last)['best_step']:08d}"
    assert sorted(checkpoints(folder)) == sorted({best, "step-00000030"})
    assert longspan.load(folder).checkpoint.name == best
    assert longspan.load(folder, checkpoint="last").checkpoint.name == "step-00000030"


def test_the_console_script_trains_on_what_is_piped_in(tmp_path: Path, corpus: Path) -> None:
    folder = tmp_path / "run"
    recipe = settings(folder, Path("-"), **{"train.steps": 4, "log.tensorboard": True})
    done = run("train", "tiny", *words(recipe), input=(corpus / "1.txt").read_bytes() * 2)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode() == f"{folder}\n"
    assert sorted(path.name for path in folder.iterdir()) == [
        "checkpoints",
        "events",
        "metrics.jsonl",
        "run.yaml",
        "speed.json",
        "tokenizer.json",
        "versions.json",
    ]
    assert list((folder / "events").iterdir())
