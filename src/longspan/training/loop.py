"""The training loop: lanes in, truncated back-propagation through time, a run's folder out."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shlex
import shutil
import signal
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import nn

from longspan.config import build, differences, plain
from longspan.errors import CheckpointError, ConfigError, DivergedError, LongspanError
from longspan.machine import choose_device, choose_dtype, peak_memory, record, set_threads
from longspan.state import State
from longspan.task import Material
from longspan.training.checkpoint import (
    MODEL,
    last_checkpoint,
    load_weights,
    read_tensors,
    read_trainer,
    save_checkpoint,
)
from longspan.training.config import TrainConfig
from longspan.training.optimizer import Optimizer, learning_rate
from longspan.training.recipe import Recipe, read_model, read_recipe
from longspan.training.run import load, write_config, write_json

FREE = ("run", "train.steps", "evaluate", "log", "data.cache")
"""Keys that may change on resume. Threads, device and versions may too, with a warning."""
MACHINE = ("train.threads", "train.device", "train.dtype")


class Interrupted(LongspanError):
    """Ctrl-C or SIGTERM: everything is saved."""


class Watcher:
    """Is told what happens in training. The command line's progress bar is one."""

    def begin(self, recipe: Recipe, model: nn.Module, step: int) -> None:
        """Training begins, or goes on after `step` steps."""

    def step(self, step: int, loss: float, tokens_per_second: float) -> None:
        """`step` steps are done; the loss is in nats a token."""

    def evaluated(self, step: int, scores: Mapping[str, float]) -> None:
        """Held-out data were scored."""

    def end(self) -> None:
        """Training ended, however."""


@dataclass
class Progress:
    """Where a training stands: all that `trainer.json` keeps.

    Attributes:
        step: updates done.
        tokens: read so far.
        best: of held-out data, by the task's first score; None if never scored.
        best_step: when it was seen; 0 if never.
        metrics: bytes of metrics.jsonl that are sure.
        losses: of the steps since the last line, nats a token.
        norms: of their gradients.
    """

    step: int = 0
    tokens: int = 0
    best: float | None = None
    best_step: int = 0
    metrics: int = 0
    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)


def train(
    recipe: str | Recipe,
    *,
    resume: bool = False,
    source: str | os.PathLike[str] | None = None,
    watcher: Watcher | None = None,
    **sections: Any,
) -> Path:
    """Trains a model and writes its run's folder.

        train("xl-small", data={"path": "books/"}, train={"steps": 2000})

    Args:
        recipe: a YAML file, a run's folder, the name of a recipe that ships, or a `Recipe`.
        resume: go on where the run in the folder stopped, bitwise as if it had not.
        source: a run whose weights and tokenizer to begin with (fine-tuning).
        watcher: is told what happens.
        **sections: settings by section, or by dotted key as {"model.width": 256}.

    Returns:
        The run's folder.

    Raises:
        ConfigError: every problem of the recipe; a resume with another model or other data.
        DataError: data that cannot be read or are too short.
        DivergedError: the loss is no number; the last good checkpoint stays.
        CheckpointError: a damaged or unwritable checkpoint.
        Interrupted: Ctrl-C or SIGTERM, after saving.
    """
    if isinstance(recipe, str):
        recipe = read_recipe(recipe, sections)
    elif sections:
        raise ConfigError("settings go with a recipe's name or file; change a Recipe by `replace`")
    with _explained(recipe):
        return Trainer(recipe, resume, source, watcher or Watcher()).run()


class Trainer:
    """One training from its recipe to its run's folder."""

    def __init__(
        self,
        recipe: Recipe,
        resume: bool,
        source: str | os.PathLike[str] | None,
        watcher: Watcher,
    ) -> None:
        self.folder = Path(recipe.run)
        self.watcher = watcher
        self.progress = Progress()
        started = (self.folder / "run.yaml").is_file()
        # a run that has begun holds the weights that it began with
        self.source = Path(source) if source is not None and not started else None
        if started and not resume:
            raise ConfigError(
                f"{self.folder} holds a run already; go on with --resume, or choose another "
                "folder with --run"
            )
        self.start = None if started else recipe.start
        if self.source is not None and self.start is not None:
            raise ConfigError(
                f"the model cannot begin both with the weights of {self.source} (--from) and with "
                f"those of start.path={self.start.path}; leave one out"
            )
        self.recipe = self._resolve(recipe, started)
        self.learnt = self.recipe.task.learnt(self.folder) if started else None
        self.threads = set_threads(self.recipe.train.threads)
        self.device = choose_device(self.recipe.train.device)
        self.dtype = choose_dtype(self.recipe.train.dtype, self.device)
        self.checkpoint = last_checkpoint(self.folder / "checkpoints") if resume else None
        self.splits = self._prepare()
        config = self.recipe.train
        self.task = self.recipe.task
        sections = self.recipe.data, self.recipe.model, config
        self.lessons = self.task.lessons(self.splits, *sections)
        torch.manual_seed(config.seed)
        self.model = self.task.build(self.recipe.model, self.splits.codec)
        if self.checkpoint is not None:
            load_weights(self.model, self.checkpoint / MODEL)
        elif self.source is not None:
            load_weights(self.model, load(self.source).checkpoint / MODEL)
        elif self.start is not None:
            self.task.begin(self.model, self.start)
        self.model.to(self.device)
        self.optimizer = Optimizer(self.model, config, self.dtype)
        self.model.train()
        self.state: State | None = None

    # -- the run's folder ---------------------------------------------------------------------

    def _resolve(self, recipe: Recipe, started: bool) -> Recipe:
        """The recipe with every choice made; on resume that of the run, as far as it is given."""
        if started:
            # read as a recipe: what an older version did not know has today's default
            old = plain(read_recipe(str(self.folder)))
            new = plain(recipe)
            if recipe.train.dtype == "auto":
                new["train"]["dtype"] = old["train"]["dtype"]
            changed = list(differences({k: old[k] for k in new if k in old}, new))
            refused = [c for c in changed if not _is(c[0], FREE) and not _is(c[0], MACHINE)]
            if refused:
                raise ConfigError(
                    [f"{key} was {was!r} and is now {now!r}" for key, was, now in refused],
                    f"{self.folder} cannot be resumed with a changed recipe; "
                    "take the old values, or another folder with --run",
                )
            for key, was, now in changed:
                # of threads and device versions.json tells what was really used
                if key == "train.dtype":
                    warnings.warn(
                        f"{key} was {was!r} and is now {now!r}: the run goes on, but not bitwise",
                        stacklevel=2,
                    )
            recipe = replace(recipe, train=build(TrainConfig, new["train"]))
        config = recipe.train
        if config.dtype == "auto":
            dtype = choose_dtype("auto", choose_device(config.device))
            config = replace(config, dtype=str(dtype).removeprefix("torch."))  # type: ignore[arg-type]
        return replace(recipe, train=config)

    def _prepare(self) -> Material:
        task, data = self.recipe.task, self.recipe.data
        if self.learnt is not None and self.recipe.start is not None:
            return task.prepare(data, self.learnt)
        if self.learnt is not None:
            # the run's own, which the data alone need not give: it may have come from another run
            splits = task.prepare(data)
            same = splits.codec.fingerprint == self.learnt.fingerprint
            return splits if same else task.prepare(data, self.learnt)
        if self.start is not None:
            return task.prepare(data, self.start.bert.codec)
        if self.source is None:
            return task.prepare(data)
        source = load(self.source)
        # built anew: what an older version did not know has today's default
        old, new = plain(read_model(str(self.source))), plain(self.recipe.model)
        changed = [c for c in differences(old, new) if not c[0].startswith(("dropout", "atten"))]
        if changed:
            raise ConfigError(
                [f"model.{key} is {was!r} there and {now!r} here" for key, was, now in changed],
                f"{self.source} has another model than this recipe",
            )
        return task.prepare(data, source.learnt)

    def _open(self) -> None:
        """Makes the folder, or puts it back to where its last checkpoint was."""
        if self.checkpoint is not None:
            # first: what cannot be gone on with stays as it is
            self._restore(self.checkpoint)
        self.folder.mkdir(parents=True, exist_ok=True)
        here = {**record(self.device), "data": _digest(self.splits)}
        known = self.folder / "versions.json"
        if self.checkpoint is not None and known.is_file():
            was = json.loads(known.read_text(encoding="utf-8"))
            for key, value in here.items():
                if was.get(key) != value:
                    warnings.warn(
                        f"{key} was {was.get(key)} and is now {value}: "
                        "the run goes on, but not bitwise",
                        stacklevel=2,
                    )
        self.splits.codec.save(self.folder)
        write_json(known, {**here, "seed": self.recipe.train.seed})
        with open(self.folder / "metrics.jsonl", "ab") as file:
            if file.tell() < self.progress.metrics:
                warnings.warn(f"{file.name} is shorter than the run wrote it", stacklevel=2)
                self.progress.metrics = file.tell()
            file.truncate(self.progress.metrics)
        if self.progress.step == 0:
            shutil.rmtree(self.folder / "events", ignore_errors=True)
        if self.checkpoint is None and not (self.source is None and self.start is None):
            # the weights to begin with, so that going on needs the other run no more
            shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)
            self._save()
        # last: a folder without it is no run yet and may be begun afresh
        write_config(self.folder, plain(self.recipe))

    def _restore(self, checkpoint: Path) -> None:
        trainer = read_trainer(checkpoint)
        known = {name: trainer[name] for name in vars(self.progress)}
        self.progress = Progress(**known)
        if self.progress.step > self.recipe.train.steps:
            raise ConfigError(
                f"train.steps={self.recipe.train.steps}, but the run has done "
                f"{self.progress.step} already"
            )
        path = checkpoint / "optimizer.safetensors"
        tensors = read_tensors(path)
        if "random.cpu" not in tensors:
            raise CheckpointError(f"{path} lacks random.cpu; remove {checkpoint}")
        torch.set_rng_state(tensors.pop("random.cpu"))
        if self.device.type == "cuda" and "random.cuda" in tensors:
            torch.cuda.set_rng_state(tensors.pop("random.cuda"), self.device)
        if self.progress.step:
            try:
                self.optimizer.restore(tensors)
            except CheckpointError as error:
                raise CheckpointError(f"{path} does not fit its run.yaml: {error}") from error
            if self.task.carries:
                state = State.load(checkpoint / "memory.safetensors")
                self.state = state.to(self.device, self.dtype)

    def _save(self) -> None:
        random = {"random.cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            random["random.cuda"] = torch.cuda.get_rng_state(self.device)
        buffers = dict(self.model.named_buffers())
        folder = self.folder / "checkpoints"
        if last_checkpoint(folder) != folder / f"step-{self.progress.step:08d}":
            save_checkpoint(
                folder,
                self.progress.step,
                {**self.optimizer.model, **buffers},
                {**self.optimizer.tensors(), **random},
                self.state,
                vars(self.progress),
            )

    # -- the loop -----------------------------------------------------------------------------

    def run(self) -> Path:
        """Trains to the last step."""
        self._open()
        config, log, watch = self.recipe.train, self.recipe.log, self.recipe.evaluate
        events = _Events(self.folder, log.tensorboard, self.progress.step)
        self.watcher.begin(self.recipe, self.model, self.progress.step)
        begun, first = time.perf_counter(), self.progress.tokens
        idle = 0.0
        stop = False
        try:
            with _signals() as asked:
                while self.progress.step < config.steps and not stop:
                    loss = self._step()
                    step = self.progress.step
                    speed = (self.progress.tokens - first) / (time.perf_counter() - begun - idle)
                    self.watcher.step(step, loss, speed)
                    last = step == config.steps
                    if step % log.every == 0 or last:
                        events.write(step, {"train/tokens_per_second": speed})
                        self._log(events)
                    paused = time.perf_counter()
                    better = False
                    if last or (watch.every and step % watch.every == 0):
                        better = self._evaluate(events)
                    stop = bool(asked) and not last
                    due = log.checkpoint and step % log.checkpoint == 0
                    if last or better or due or stop:
                        self._save()
                    idle += time.perf_counter() - paused
        finally:
            events.close()
            self.watcher.end()
        self._note_speed(self.progress.tokens - first, time.perf_counter() - begun - idle)
        if stop:
            raise Interrupted(
                f"stopped after step {self.progress.step}, everything is saved; go on with\n"
                f"  longspan train {shlex.quote(str(self.folder))} --resume"
            )
        return self.folder

    def _note_speed(self, tokens: int, seconds: float) -> None:
        """Adds to speed.json, which counts what was trained in all calls but those killed."""
        path = self.folder / "speed.json"
        if tokens == 0:
            return
        peak = peak_memory()
        if self.checkpoint is not None and path.is_file():
            before = json.loads(path.read_text(encoding="utf-8"))
            tokens, seconds = tokens + before["tokens"], seconds + before["seconds"]
            peak = max(peak, before["peak_memory"])
        speed = {"tokens": tokens, "seconds": seconds, "tokens_per_second": tokens / seconds}
        write_json(path, {**speed, "peak_memory": peak})

    def _step(self) -> float:
        """One update; the mean loss of its tokens in nats."""
        config, progress = self.recipe.train, self.progress
        total, unsent = 0.0, torch.zeros((), device=self.device)
        for call in range(config.accumulate):
            number = progress.step * config.accumulate + call
            lesson = self.lessons.at(self.model, number, self.state)
            loss = lesson.losses.mean() / config.accumulate
            if not math.isfinite(value := loss.item()):
                bad = (~lesson.losses.isfinite()).nonzero()[:, 0].tolist()
                self._diverged("loss", progress.step + 1, f" in {lesson.where(bad)}")
            state = lesson.state
            aside = None if state is None else state.loss
            unsent = unsent + loss
            if aside is not None:
                unsent = unsent + aside.mean() / config.accumulate
            self.state = state
            if (call + 1) % config.through == 0:
                unsent.backward()
                self.optimizer.gather()
                self.state = None if state is None else state.detach()
                unsent = torch.zeros_like(unsent)
            total += value
            progress.tokens += lesson.tokens
        norm = self.optimizer.clip().item()
        if not math.isfinite(norm):
            self._diverged("gradient", progress.step + 1)
        self.optimizer.step(progress.step)
        progress.step += 1
        progress.losses.append(total)
        progress.norms.append(norm)
        return total

    def _diverged(self, what: str, step: int, where: str = "") -> NoReturn:
        kept = last_checkpoint(self.folder / "checkpoints")
        raise DivergedError(
            f"the {what} is no number at step {step}{where}; "
            f"{kept.name if kept else 'no checkpoint'} is kept. Begin another run (--run) with a "
            f"lower train.learning_rate (now {self.recipe.train.learning_rate}) or train.clip, or "
            "with train.dtype=float32"
            + (f"; --from {shlex.quote(str(self.folder))} takes its weights" if kept else "")
        )

    def _evaluate(self, events: _Events) -> bool:
        """Scores held-out data; whether it is the best so far."""
        limit = self.recipe.evaluate.tokens
        self.model.eval()
        try:
            with self.optimizer.averaged():
                scores = self.task.score(self.model, self.splits.valid, self.splits.codec, limit)
        except DivergedError:
            self._diverged("held-out loss", self.progress.step)
        self.model.train()
        if not scores:
            return False
        progress = self.progress
        self._line({"step": progress.step} | {f"valid_{k}": v for k, v in scores.items()})
        events.write(progress.step, {f"valid/{k}": v for k, v in scores.items()})
        self.watcher.evaluated(progress.step, scores)
        first = next(iter(scores.values()))
        if progress.best is not None:
            better = first > progress.best if self.task.rises else first < progress.best
            if not better:
                return False
        progress.best, progress.best_step = first, progress.step
        return True

    def _log(self, events: _Events) -> None:
        progress = self.progress
        values = {
            "loss": sum(progress.losses) / len(progress.losses),
            "gradient_norm": sum(progress.norms) / len(progress.norms),
            "learning_rate": learning_rate(self.recipe.train, progress.step - 1),
        }
        progress.losses, progress.norms = [], []
        self._line({"step": progress.step, "tokens": progress.tokens, **values})
        events.write(progress.step, {f"train/{name}": value for name, value in values.items()})

    def _line(self, values: Mapping[str, Any]) -> None:
        line = (json.dumps(values) + "\n").encode()
        with open(self.folder / "metrics.jsonl", "ab") as file:
            file.write(line)
        self.progress.metrics += len(line)


def _digest(splits: Material) -> str:
    """What tells whether the tokens are the same ones: a resumed run reads on where it was."""
    digest = hashlib.sha256(splits.train.tokens.data)
    digest.update(splits.valid.tokens.data)
    return digest.hexdigest()[:16]


@contextmanager
def _explained(recipe: Recipe) -> Iterator[None]:
    """Turns what the machine lacks into a line that says what to do."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not _is_memory(error):
            raise
        raise LongspanError(
            f"out of memory: reduce {recipe.task.sparing(recipe.model, recipe.train)}; "
            "the last checkpoint is kept"
        ) from error
    except BrokenPipeError:
        raise
    except OSError as error:
        raise CheckpointError(
            f"{error.filename or recipe.run} cannot be written or read "
            f"({error.strerror or error}); the last checkpoint is kept; go on with --resume"
        ) from error


def _is(key: str, prefixes: tuple[str, ...]) -> bool:
    return any(key == prefix or key.startswith(prefix + ".") for prefix in prefixes)


def _is_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return "out of memory" in text or "can't allocate memory" in text


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collects Ctrl-C and SIGTERM instead of dying; a second Ctrl-C dies at once."""
    asked: list[int] = []

    def note(number: int, frame: Any) -> None:
        if asked:
            signal.default_int_handler(number, frame)
        asked.append(number)

    try:
        old = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:
        # not the main thread: signals are not ours to take
        yield asked
        return
    try:
        yield asked
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


class _Events:
    """TensorBoard events, or nothing."""

    def __init__(self, folder: Path, wanted: bool, step: int) -> None:
        self.writer = None
        if wanted:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(folder / "events"), purge_step=step + 1)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        if self.writer is not None:
            for name, value in values.items():
                self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()


__all__ = ["CheckpointError", "Interrupted", "Trainer", "Watcher", "train"]
