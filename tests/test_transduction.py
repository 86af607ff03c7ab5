"""Reading one sequence and writing another: what is learnt, what is written, what is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import longspan
from longspan.config import override, read_yaml, write_yaml
from longspan.data.pairs.corpus import read
from longspan.decoding.decode import Decoding
from longspan.decoding.strategies.beam import Beam
from longspan.errors import ConfigError, DataError, InputError
from longspan.training.recipe import read_recipe, recipe_text
from longspan.transduction import likelihood, write
from tests.tiny import Result, refused, sentences

SIDE = {"width": 32, "layers": 1, "heads": 2, "feed_forward": 16, "dropout": 0.0}
BOTH = {
    f"model.{side}.{key}": value for side in ("encoder", "decoder") for key, value in SIDE.items()
}
TINY: dict[str, Any] = {
    **BOTH,
    "data.tokenizer.vocab": 280,
    "data.valid": 0.1,
    "data.test": 0.1,
    "train.tokens": 300,
    "train.steps": 300,
    "train.learning_rate": 0.02,
    "train.warmup": 10,
    "train.smoothing": 0.0,
    "train.average": 0.9,
    "train.dtype": "float32",
    "train.device": "cpu",
    "train.threads": 1,
    "evaluate.every": 150,
    "log.checkpoint": 50,
    "log.tensorboard": False,
}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pairs") / "pairs.tsv"
    rows = ("\t".join(pair) for pair in sentences(300))
    path.write_text("source\ttarget\n" + "\n".join(rows) + "\n", "utf-8")
    return path


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory, pairs: Path) -> Path:
    """A run that has learnt to replace each word. Not to be changed."""
    folder = tmp_path_factory.mktemp("translation") / "run"
    return longspan.train("translation", **TINY, **{"data.path": str(pairs), "run": str(folder)})


def test_it_learns_to_translate(learnt: Path, cli: Callable[..., Result]) -> None:
    scores = json.loads(cli("evaluate", learnt, "--json").out)
    assert list(scores)[:3] == ["bleu", "chrf", "bits_per_token"]
    assert scores["bleu"] > 75
    assert scores["records"] > 10
    lines = [json.loads(line) for line in (learnt / "metrics.jsonl").read_text().splitlines()]
    told = [line for line in lines if "valid_bleu" in line]
    assert [line["step"] for line in told] == [150, 300]
    assert told[-1]["valid_bleu"] > told[0]["valid_bleu"]


def test_predict_reads_lines_tables_and_a_text(
    learnt: Path, tmp_path: Path, cli: Callable[..., Result]
) -> None:
    cases = {"the red dog": "das rot Hund", "a blue cat the cat": "ein blau Katze das Katze"}
    lines, table = tmp_path / "in.txt", tmp_path / "in.jsonl"
    lines.write_text("".join(f"{source}\n" for source in cases))
    table.write_text("".join(json.dumps({"source": source}) + "\n" for source in cases))
    for path in (lines, table):
        assert cli("predict", learnt, path).out.splitlines() == list(cases.values())
    assert cli("predict", learnt, "--text", "the red dog").out == "das rot Hund\n"
    told = cli("predict", learnt, "--text", "the red dog", "--beams", 3, "--n-best", 3, "--scores")
    scores = [float(line.split("\t")[0]) for line in told.out.splitlines()]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)
    cli("predict", learnt, lines, "--output", tmp_path / "out.jsonl")
    facts = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [fact["text"] for fact in facts] == list(cases.values())
    told = cli("predict", learnt, "--text", "the red dog", "--explain")
    assert "Step 1" in told.out
    assert "das" in told.out


def test_evaluate_takes_parallel_files_and_keeps_what_was_written(
    learnt: Path, tmp_path: Path, cli: Callable[..., Result]
) -> None:
    ours, theirs = tmp_path / "a.txt", tmp_path / "b.txt"
    ours.write_text("the red dog\na cat\n")
    theirs.write_text("das rot Hund\nein Hund\n")
    kept = tmp_path / "kept.jsonl"
    told = cli("evaluate", learnt, "--data", ours, theirs, "--json", "--save", kept, "--greedy")
    assert 0 < json.loads(told.out)["chrf"] < 100
    facts = [json.loads(line) for line in kept.read_text().splitlines()]
    assert [fact["text"] for fact in facts] == ["das rot Hund", "ein Katze"]
    assert facts[1]["references"] == ["ein Hund"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["evaluate", "RUN", "--memory", "4"], "--memory is of language models"),
        (["evaluate", "RUN", "--data", "a", "b", "c"], "not 3 files"),
        (["generate", "RUN", "--prompt", "a"], "is a run of translation"),
        (["stream", "RUN"], "is a run of translation"),
        (["report", "RUN"], "is a run of translation"),
        (["predict", "RUN"], "name what to read"),
        (["predict", "RUN", "EMPTY"], "line 2: the line is empty"),
        (["predict", "RUN", "--text", ""], "--text is empty"),
        (["predict", "RUN", "--text", "a", "--temperature", "0.5"], "beam draws nothing"),
        (["evaluate", "RUN", "--data", "EMPTY", "ONE"], "EMPTY has 3 lines and ONE has 1"),
    ],
)
def test_what_cannot_be_is_one_line(
    arguments: list[str], said: str, learnt: Path, tmp_path: Path, cli: Callable[..., Result]
) -> None:
    names = {"RUN": learnt, "EMPTY": tmp_path / "in.txt", "ONE": tmp_path / "one.txt"}
    names["EMPTY"].write_text("the dog\n\na cat\n")
    names["ONE"].write_text("das Hund\n")
    told = refused(cli(*(names.get(word, word) for word in arguments)))
    for name in ("EMPTY", "ONE"):
        said = said.replace(name, str(names[name]))
    assert said in told


def test_a_row_does_not_depend_on_its_neighbours(learnt: Path) -> None:
    run = longspan.load(learnt, dtype="float64")
    model: Any = run.model
    sources = [run.tokenizer.prompt(source) for source, _ in sentences(40)]
    decoding = Decoding(strategy=Beam(beams=3, n_best=2), max_tokens=20)
    together = list(write(model, sources, run.tokenizer, decoding))
    for source, texts in zip(sources[::7], together[::7], strict=True):
        ((*alone,),) = write(model, [source], run.tokenizer, decoding)
        assert [text.tokens for text in alone] == [text.tokens for text in texts]


def test_the_likelihood_is_that_of_each_pair_alone(learnt: Path, pairs: Path) -> None:
    run = longspan.load(learnt, dtype="float64")
    model: Any = run.model
    some = read(str(pairs), run.tokenizer).select(range(9))
    start, nats, count = run.tokenizer.start, 0.0, 0
    for index in range(len(some)):
        target = some.target(index).tolist()
        source = torch.tensor([some.source(index).tolist()])
        logits, _ = model(source, torch.tensor([[start, *target]]))
        chances = logits.log_softmax(-1)[0]
        for place, token in enumerate([*target, start]):
            nats -= float(chances[place, token])
            count += 1
    assert likelihood(model, some) == pytest.approx(nats / count / math.log(2), abs=1e-9)


def test_a_run_that_was_stopped_goes_on_bitwise(tmp_path: Path, pairs: Path) -> None:
    """Batches, the average and the weights beneath it are where they were."""
    changes = TINY | {"data.path": str(pairs), "evaluate.every": 0, "log.checkpoint": 0}
    half = str(tmp_path / "b")
    # the rate falls towards the last step, so it must be known from the beginning
    flat = {"train.schedule": "inverse_sqrt"}
    whole = longspan.train(
        "translation", **changes | flat | {"run": str(tmp_path / "c"), "train.steps": 12}
    )
    longspan.train("translation", **changes | flat | {"run": half, "train.steps": 7})
    longspan.train("translation", resume=True, **changes | flat | {"run": half, "train.steps": 12})
    for name in ("model.safetensors", "optimizer.safetensors"):
        step = Path("checkpoints") / "step-00000012" / name
        assert (whole / step).read_bytes() == (Path(half) / step).read_bytes()


def test_a_source_that_is_too_long_is_refused_not_cut(tmp_path: Path, pairs: Path) -> None:
    folder = longspan.train(
        "translation",
        **TINY
        | {
            "data.path": str(pairs),
            "run": str(tmp_path / "run"),
            "train.steps": 2,
            "model.encoder.position": {"name": "learned", "length": 40},
        },
    )
    run = longspan.load(folder)
    model: Any = run.model
    with pytest.raises(InputError, match=r"source 2 has 50 tokens, more than the 40 places of"):
        list(write(model, [[5] * 3, [5] * 50], run.tokenizer, Decoding()))
    with pytest.raises(InputError, match="source 1 is empty"):
        list(write(model, [[]], run.tokenizer, Decoding()))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"train.tokens": None}, r"\[T6\] translation reads batches of records"),
        ({"train.batch": 4}, r"\[T7\] train.batch=4 is of tasks that read streams"),
        ({"train.through": 2, "train.accumulate": 2}, r"\[T7\] train.through=2"),
        ({"model.decoder.vocabulary.cutoffs": [10], "model.shared": False}, r"\[T8\]"),
        ({"task": "translating"}, "unknown task 'translating', did you mean 'translation'"),
        ({"task.beams": 4}, "task.beams is unknown"),
        ({"task.decode.strategy": {"name": "beam", "beams": 0}}, "beams must be 1 or more"),
    ],
)
def test_what_sections_say_against_each_other(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_recipe("translation", change)


def test_streams_are_read_in_lanes_alone() -> None:
    with pytest.raises(ConfigError, match=r"\[T6\] language_modelling reads in lanes"):
        read_recipe("tiny", {"train.batch": None})
    with pytest.raises(ConfigError, match=r"\[T7\] train.tokens=100 is of tasks that read pairs"):
        read_recipe("tiny", {"train.tokens": 100})


def test_parallel_files_of_other_lengths_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    (tmp_path / "b.txt").write_text("eins\n")
    both = [str(tmp_path / "a.txt"), str(tmp_path / "b.txt")]
    with pytest.raises(DataError, match=r"a.txt has 2 lines and .*b.txt has 1; line n of one"):
        longspan.train("translation", **TINY, **{"data.path": both, "run": str(tmp_path / "run")})
    assert not (tmp_path / "run").exists()


LONG = {
    "window": {
        "model.encoder.position": "rotary",
        "model.encoder.pattern": {"name": "longformer", "width": 64, "causal": False},
    },
    "memory": {
        "model": {
            "width": 32,
            "layers": 2,
            "heads": 2,
            "feed_forward": 32,
            "position": "xl",
            "pattern": {"name": "segments", "length": 256, "memory": 0},
            "memory": {"name": "layer", "slots": 8},
        }
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", LONG)
def test_a_document_of_50_000_tokens_is_read_whole(kind: str, tmp_path: Path, pairs: Path) -> None:
    """By an encoder with a window, and by a decoder whose state is no larger for it."""
    tree = read_yaml(recipe_text("summarization"), "summarization")
    if "model" in LONG[kind]:
        tree["model"] = LONG[kind]["model"]
    else:
        tree = override(tree, BOTH | LONG[kind])
    names = ("data.tokenizer.vocab", "train.tokens", "train.threads", "log.tensorboard")
    quick = {name: TINY[name] for name in names} | {"train.steps": 2, "run": str(tmp_path / "run")}
    data = {"data.path": str(pairs), "data.valid": 0.1, "data.source": "source"}
    tree = override(tree, quick | data | {"data.target": "target"})
    (tmp_path / "recipe.yaml").write_text(write_yaml(tree), "utf-8")
    run = longspan.load(longspan.train(str(tmp_path / "recipe.yaml")), dtype="float32")
    model: Any = run.model
    document = torch.randint(256, (1, 50_000))
    other = document.clone()
    other[0, 0] = (other[0, 0] + 1) % 256
    with torch.no_grad():
        states = [model.encode(tokens) for tokens in (document, other)]
        start = torch.tensor([[run.tokenizer.start]])
        first, second = (model.decode(start, state)[0] for state in states)
    if kind == "window":
        assert not torch.equal(first, second)
    else:
        brief = model.encode(document[:, :2048]).nbytes
        assert states[0].nbytes <= brief
    (texts,) = write(model, [document[0].numpy()], run.tokenizer, Decoding(max_tokens=5))
    assert len(texts[0].tokens) <= 5
