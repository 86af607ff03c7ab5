"""Classes of texts: tiny runs that learn them, and what the command line makes of these."""

from __future__ import annotations

import io
import json
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import longspan
from longspan.config import read_yaml, write_yaml
from longspan.data.labelled.item import Item
from longspan.data.labelled.sequences import gather
from longspan.errors import ConfigError, DataError, DivergedError, IncompatibleConfig
from longspan.measure.embedding import embed
from longspan.tasks.classification import probabilities
from longspan.training.loop import Watcher
from longspan.training.recipe import read_recipe
from tests.tiny import SETTINGS, call, images, refused

SIZES = {"width": 16, "layers": 2, "heads": 2, "feed_forward": 16, "position": "rotary"}


def texts(count: int, seed: int, filler: int = 0) -> list[tuple[str, str]]:
    """The class is how the text begins; letters that mean nothing follow."""
    draw = random.Random(seed)
    found = []
    for number in range(count):
        label = ("up", "down", "still")[number % 3]
        rest = "".join(draw.choices("abcd", k=draw.randint(3, 9) + filler))
        found.append(({"up": "+", "down": "-", "still": "="}[label] + rest, label))
    return found


def table(path: Path, records: list[tuple[str, str]]) -> str:
    rows = (json.dumps({"text": text, "label": label}) for text, label in records)
    path.write_text("\n".join(rows), "utf-8")
    return str(path)


def folders(path: Path, records: list[tuple[str, str]]) -> str:
    for number, (text, label) in enumerate(records):
        (path / label).mkdir(parents=True, exist_ok=True)
        (path / label / f"{number:03}.txt").write_text(text, "utf-8")
    return str(path)


def recipe(folder: Path, model: dict[str, Any] | None = None, filler: int = 0) -> str:
    folder.mkdir(exist_ok=True)
    tree = {
        "task": "classification",
        "data": {
            "path": folders(folder / "train", texts(60, 0, filler)),
            "valid": table(folder / "valid.jsonl", texts(15, 1, filler)),
            "test": table(folder / "test.jsonl", texts(12, 2, filler)),
            "input": {"name": "text", "tokenizer": "bytes"},
        },
        "model": model or {"encoder": SIZES},
        "train": {"steps": 60, "tokens": 300, "learning_rate": 1e-2, "warmup": 5},
        "run": str(folder / "run"),
    }
    (folder / "tiny.yaml").write_text(write_yaml(tree), "utf-8")
    return str(folder / "tiny.yaml")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that tells three classes. Not to be changed."""
    torch.set_num_threads(1)
    return longspan.train(recipe(tmp_path_factory.mktemp("classes")), **SETTINGS)


def test_a_tiny_encoder_learns_and_is_judged(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = json.loads((trained / "metrics.jsonl").read_text().splitlines()[-1])
    assert set(scores) == {"step", "valid_accuracy", "valid_macro_f1", "valid_cross_entropy"}
    assert scores["valid_accuracy"] > 90, "guessing is 33"
    told = json.loads(call(monkeypatch, capsys, "evaluate", trained, "--json").out)
    assert told["accuracy"] > 90
    assert told["records"] == 12
    again = ("evaluate", trained, "--data", trained.parent / "train", "--limit", 20, "--json")
    limited = json.loads(call(monkeypatch, capsys, *again).out)
    assert limited["records"] == 20
    saved = trained.parent / "told.jsonl"
    assert call(monkeypatch, capsys, "evaluate", trained, "--save", saved).status == 0
    rows = [json.loads(line) for line in saved.read_text().splitlines()]
    assert [row["references"] for row in rows] == [[label] for _, label in texts(12, 2)]


def test_training_tells_bits_a_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--train.steps", 2, "--train.threads", 1, "--log.tensorboard", "false")
    told = call(monkeypatch, capsys, "train", recipe(tmp_path), *words)
    assert told.status == 0, told.err
    assert "bits/record" in told.err


def test_predict_tells_classes_and_probabilities(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = trained.parent
    right = [label for _, label in texts(12, 2)]
    out = call(monkeypatch, capsys, "predict", trained, folder / "test.jsonl").out
    assert out.split() == right
    made = call(monkeypatch, capsys, "predict", trained, folder / "test.jsonl", "--json").out
    for line, (text, label) in zip(made.splitlines(), texts(12, 2), strict=True):
        told = json.loads(line)
        assert told["asked"] == [text]
        assert told["text"] == label
        assert set(told["probabilities"]) == {"up", "down", "still"}
        assert sum(told["probabilities"].values()) == pytest.approx(1)
        assert told["score"] == max(told["probabilities"].values())
    scored = call(monkeypatch, capsys, "predict", trained, "--text", "+abc", "--scores").out
    assert scored.endswith("\tup\n")
    lines = call(monkeypatch, capsys, "predict", trained, folder / "train", "--json").out
    of_folder = [json.loads(line) for line in lines.splitlines()]
    named = {Path(told["asked"][0]).parent.name: told["text"] for told in of_folder}
    assert named == {"up": "up", "down": "down", "still": "still"}


def test_standard_input_is_replied_to_line_by_line(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The reply to a line is there before the next line is asked for."""
    replies: list[str] = []

    class Lines(io.BytesIO):
        def __next__(self) -> bytes:
            replies.append(capsys.readouterr().out)
            return super().__next__()

    stdin = io.TextIOWrapper(Lines(b"+ab\n-cd\n=a\n"))
    monkeypatch.setattr(sys, "stdin", stdin)
    last = call(monkeypatch, capsys, "predict", trained, "-").out
    assert [*replies[1:], last] == ["up\n", "down\n", "still\n", ""]


def test_a_row_does_not_depend_on_its_neighbours(trained: Path) -> None:
    run = longspan.load(trained, dtype="float64")
    records = gather((Item(text, text) for text, _ in texts(30, 5)), run.learnt)  # type: ignore[arg-type]
    together = probabilities(run.model, records)  # type: ignore[arg-type]
    assert together.sum(1) == pytest.approx(np.ones(30))
    for row in range(0, 30, 7):
        alone = probabilities(run.model, records.select(np.array([row])))  # type: ignore[arg-type]
        assert together[row] == pytest.approx(alone[0], abs=1e-6)


def test_scores_that_are_no_numbers_are_not_passed_on(trained: Path) -> None:
    run = longspan.load(trained)
    records = gather([Item("here", "+a")], run.learnt)  # type: ignore[arg-type]
    run.model.head.bias.fill_(float("nan"))  # type: ignore[union-attr, operator]
    with pytest.raises(DivergedError, match="here: the scores are no numbers"):
        probabilities(run.model, records)  # type: ignore[arg-type]


SEGMENTS = {"name": "segments", "length": 8}
MEMORY = {"memory": {"name": "recent", "tokens": 8}, "pattern": SEGMENTS | {"memory": 8}}
ALONE = {"memory": "none", "pattern": SEGMENTS | {"memory": 0}}


def test_memory_carries_what_was_said_first(tmp_path: Path) -> None:
    """The class stands in the first of four segments, and the last token alone is judged by."""
    accuracy = {}
    for name, choice in (("memory", MEMORY), ("alone", ALONE)):
        model = {"pool": "last", "decoder": SIZES | choice | {"layers": 3}}
        run = longspan.train(
            recipe(tmp_path / name, model, filler=12),
            **SETTINGS,
            **{"train.steps": 60, "train.tokens": 600},
        )
        scores = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
        accuracy[name] = scores["valid_accuracy"]
    assert accuracy["memory"] > 90
    assert accuracy["alone"] < 70


class Killer(Watcher):
    """Ends a training in its midst."""

    def step(self, step: int, loss: float, tokens_per_second: float) -> None:
        if step == 6:
            raise KeyboardInterrupt


def test_a_run_that_goes_on_ends_with_the_same_bits(tmp_path: Path) -> None:
    model = {"decoder": SIZES | MEMORY, "dropout": 0.1}
    file = recipe(tmp_path, model)
    settings: dict[str, Any] = SETTINGS | {"train.steps": 8, "log.checkpoint": 4}
    whole = longspan.train(file, **settings)
    settings["run"] = str(tmp_path / "other")
    with pytest.raises(KeyboardInterrupt):
        longspan.train(file, watcher=Killer(), **settings)
    other = longspan.train(file, resume=True, **settings)
    assert (whole / "metrics.jsonl").read_text() == (other / "metrics.jsonl").read_text()
    ends = [longspan.load(run, checkpoint="last").model.state_dict() for run in (whole, other)]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_what_cannot_be_is_said(
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    strange = table(tmp_path / "strange.jsonl", [("+a", "up"), ("-a", "sideways")])
    empty = table(tmp_path / "empty.jsonl", [("+a", "up"), ("", "down")])
    for words, said in {
        (
            "evaluate",
            trained,
            "--data",
            strange,
        ): "line 2: field 'label' is of the class",
        ("evaluate", trained, "--data", empty): "line 2: field 'text' is empty",
        ("evaluate", trained, "--memory", 3): "--memory is of language models",
        ("predict", trained, empty): "line 2: field 'text' is empty",
        ("predict", trained, empty, "--explain"): "writes nothing step by step",
        ("cost", trained): "has more than a decoder, and cost counts decoders alone",
        ("cost", "classification"): "has more than a decoder",
        ("generate", trained, "--prompt", "x"): "is a run of classification",
        ("embed", trained, empty, "--out", "x.txt"): "--out must end in .npy or .parquet",
    }.items():
        assert said in refused(call(monkeypatch, capsys, *words))
    (trained / "none").mkdir(exist_ok=True)
    with pytest.raises(DataError, match="has no folders"):
        longspan.train(recipe(tmp_path / "x"), **SETTINGS, **{"data.path": str(trained / "none")})


@pytest.mark.parametrize(
    ("changes", "rule", "said"),
    [
        ({"train.tokens": None}, "T6", "reads batches of records of like length"),
        ({"train.segment": 3}, "T7", "train.segment=3 is of tasks that read streams"),
        ({"model.encoder.pattern": "causal"}, "E1", "hides what comes after"),
        (
            {"data.input": {"name": "patches"}, "model": {"decoder": SIZES | MEMORY}},
            "H2",
            "data.input='patches' gives vectors, and a decoder reads tokens",
        ),
    ],
)
def test_choices_that_exclude_each_other(
    tmp_path: Path, changes: dict[str, Any], rule: str, said: str
) -> None:
    others = {key: value for key, value in changes.items() if key != "model"}
    with pytest.raises(IncompatibleConfig) as caught:
        read_recipe(recipe(tmp_path, changes.get("model")), others)
    (conflict,) = caught.value.conflicts
    assert conflict.rule == rule
    assert said in str(conflict)


def test_a_model_reads_by_one_thing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.encoder is required"):
        read_recipe(recipe(tmp_path, {"pool": "mean"}))
    both = {"model.decoder": SIZES | MEMORY}
    with pytest.raises(ConfigError, match=r"model\.decoder is unknown"):
        read_recipe(recipe(tmp_path), both)


# -- images ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [4, None])
def test_images_are_told_apart_by_patches_and_by_rows(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    width: int | None,
) -> None:
    file = recipe(tmp_path, {"encoder": SIZES | {"position": {"name": "learned", "length": 8}}})
    section = {
        "path": images(tmp_path)["data.path"],
        "valid": images(tmp_path / "more", 10, 1)["data.path"],
        "test": "",
        "input": {"name": "patches", "height": 4 if width else 1, "width": width},
    }
    tree = read_yaml(Path(file).read_text(), file) | {"data": section}
    Path(file).write_text(write_yaml(tree))
    run = longspan.train(file, **SETTINGS, **{"train.steps": 40})
    scores = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert scores["valid_accuracy"] == 100, "guessing is 50"
    one = tmp_path / "more" / "images" / "below" / "001.png"
    assert call(monkeypatch, capsys, "predict", run, one).out == "below\n"
    lines = call(monkeypatch, capsys, "predict", run, tmp_path / "more" / "images", "--json").out
    for told in map(json.loads, lines.splitlines()):
        assert Path(told["asked"][0]).parent.name == told["text"]
    npy = tmp_path / "v.npy"
    words = ("embed", run, tmp_path / "more" / "images", "--out", npy)
    assert call(monkeypatch, capsys, *words).status == 0
    assert np.load(npy).shape == (10, 16)
    one.write_bytes(b"no image")
    said = refused(call(monkeypatch, capsys, "predict", run, one))
    assert "001.png: is no image that Pillow knows" in said


# -- vectors --------------------------------------------------------------------------------------


def test_embed_writes_the_mean_of_the_last_hidden_states(
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    npy = tmp_path / "v.npy"
    words = (trained, trained.parent / "test.jsonl", "--dtype", "float32", "--out")
    result = call(monkeypatch, capsys, "embed", *words, npy)
    assert "12 vectors of 16 numbers" in result.err
    vectors = np.load(npy)
    assert (vectors.shape, vectors.dtype) == ((12, 16), np.float32)
    run = longspan.load(trained, dtype="float32")
    encoder, codec = run.model.encoder, run.learnt.encoding.codec  # type: ignore
    for row, (text, _) in enumerate(texts(12, 2)):
        ids = torch.tensor([[codec.start, *codec.encode(text.encode())]])
        h = encoder(ids)[0].mean(0)  # type: ignore[operator]
        assert vectors[row] == pytest.approx(h.numpy(), abs=1e-5)
    pytest.importorskip("pyarrow")
    from pyarrow.parquet import read_table

    parquet = tmp_path / "v.parquet"
    assert call(monkeypatch, capsys, "embed", *words, parquet).status == 0
    columns = read_table(parquet).to_pydict()
    assert columns["input"] == [text for text, _ in texts(12, 2)]
    assert np.array(columns["vector"], np.float32) == pytest.approx(vectors)


def test_a_language_model_has_vectors_too(trained_bpe: Path, tmp_path: Path) -> None:
    run = longspan.load(trained_bpe, dtype="float32")
    texts = ["one", "and then, after a long while, " * 30]
    vectors = embed(run, [Item(text, text) for text in texts])
    for row, text in enumerate(texts):
        ids = [run.tokenizer.start, *run.tokenizer.encode(text.encode())]
        h, _ = run.language_model.hidden(torch.tensor([ids]))
        assert vectors[row] == pytest.approx(h[0].mean(0).numpy(), abs=1e-5)
