"""A pretrained start: what it says of model and tokenizer, what it gives, and what it refuses."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import longspan
from longspan import EncoderDecoder
from longspan.config import plain, write_yaml
from longspan.data.spans.windows import CONTEXT, QUESTION, SHARED
from longspan.errors import CheckpointError, ConfigError, DataError
from longspan.models.decoder import DecoderConfig
from longspan.models.spans import SpanFinder
from longspan.start import StartConfig, spread
from longspan.training.loop import Interrupted, Watcher
from longspan.training.recipe import Recipe, read_recipe
from tests.interop.bert import PIECES, peer, write
from tests.tiny import Result, contents, refused, written

TRAIN = {
    "steps": 4,
    "tokens": 400,
    "warmup": 1,
    "learning_rate": 1e-3,
    "device": "cpu",
    "threads": 1,
    "dtype": "float32",
}
LOG = {"tensorboard": False, "every": 1, "checkpoint": 2}
Make = Callable[..., str]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a BERT of three layers. Not to be changed."""
    return write(tmp_path_factory.mktemp("start") / "bert", peer())


@pytest.fixture
def recipe(bert: Path, tmp_path: Path) -> Make:
    """Writes a recipe of a task that begins with it."""

    def make(task: str, **sections: Any) -> str:
        data = written(task, {}, tmp_path) if task != "language_modelling" else {"data.path": "x"}
        window = {"window": 12} if task == "span_answering" else {}
        tree = {
            "task": task,
            "data": {"path": data["data.path"], "valid": 0.2, "test": 0.0, **window},
            "start": {"path": str(bert)},
            "train": TRAIN,
            "evaluate": {"every": 0},
            "log": LOG,
            "run": str(tmp_path / "run"),
        }
        path = tmp_path / f"{task}.yaml"
        path.write_text(write_yaml({**tree, **sections}), "utf-8")
        return str(path)

    return make


class Stop(Watcher):
    """Sends this process a signal in the middle of a run."""

    def __init__(self, after: int) -> None:
        self.after = after

    def step(self, step: int, loss: float, tokens_per_second: float) -> None:
        if step == self.after:
            signal.raise_signal(signal.SIGINT)


# -- what it says ---------------------------------------------------------------------------------


def test_the_checkpoint_says_what_the_encoder_is_made_of(recipe: Make, bert: Path) -> None:
    read = read_recipe(recipe("span_answering", model={"dropout": 0.2}))
    start = StartConfig(path=str(bert))
    assert read.start == start
    assert plain(read.model) == {**plain(start.bert.config), "dropout": 0.2}
    assert plain(read.data.tokenizer) == {
        "name": "wordpiece",
        "vocab": len(PIECES),
        "lower": True,
    }


def test_a_decoder_is_of_the_same_form_with_one_vocabulary(recipe: Make) -> None:
    read = read_recipe(recipe("translation", model={"decoder": {"layers": 2}}))
    assert read.model.shared
    for name in ("width", "heads", "bias", "epsilon", "placement", "position", "first_norm"):
        assert getattr(read.model.decoder, name) == getattr(read.model.encoder, name)
    assert (read.model.encoder.layers, read.model.decoder.layers) == (3, 2)
    assert read.model.decoder.memory.name == "cache"


def test_a_decoder_that_begins_afresh_may_be_of_any_form(recipe: Make, bert: Path) -> None:
    decoder = {"layers": 5, "feed_forward": 8, "placement": "pre", "final_norm": True}
    sections = {"start": {"path": str(bert), "decoder": False}, "model": {"decoder": decoder}}
    read = read_recipe(recipe("translation", **sections))
    assert (read.model.decoder.layers, read.model.decoder.feed_forward) == (5, 8)


@pytest.mark.parametrize(
    ("layers", "of", "expected"),
    [(6, 6, [0, 1, 2, 3, 4, 5]), (6, 1, [0]), (6, 2, [0, 5]), (12, 4, [0, 4, 7, 11]), (1, 1, [0])],
)
def test_layers_lie_evenly_from_the_first_to_the_last(
    layers: int, of: int, expected: list[int]
) -> None:
    assert spread(layers, DecoderConfig(width=4, layers=of, heads=1, feed_forward=4)) == expected


# -- what it gives --------------------------------------------------------------------------------


def begun(read: Recipe) -> Any:
    assert read.start is not None
    model = read.task.build(read.model, read.start.bert.codec)
    read.task.begin(model, read.start)
    return model.eval()


@torch.no_grad()
def test_question_and_context_are_read_as_two_texts_of_a_bert(recipe: Make, bert: Path) -> None:
    model = begun(read_recipe(recipe("span_answering")))
    assert isinstance(model, SpanFinder)
    theirs = type(peer()).from_pretrained(bert, add_pooling_layer=False).eval()
    tokens = torch.randint(1, len(PIECES), (3, 12), generator=torch.Generator().manual_seed(0))
    valid = torch.arange(12) < torch.tensor([[12], [9], [7]])
    kinds = torch.where(torch.arange(12) < torch.tensor([[5], [3], [6]]), QUESTION, CONTEXT)
    kinds[0, 8] = SHARED
    expected = theirs(tokens, valid.long(), token_type_ids=(kinds > 0).long()).last_hidden_state
    given = model.encoder(tokens, valid=valid, added=model.kinds(kinds))
    torch.testing.assert_close(given[valid], expected[valid], rtol=0, atol=1e-5)


@torch.no_grad()
def test_an_encoder_and_a_decoder_begin_as_the_checkpoint(recipe: Make, bert: Path) -> None:
    model = begun(read_recipe(recipe("translation", model={"decoder": {"layers": 2}})))
    assert isinstance(model, EncoderDecoder)
    theirs = type(peer()).from_pretrained(bert, add_pooling_layer=False).eval()
    tokens = torch.randint(1, len(PIECES), (2, 12), generator=torch.Generator().manual_seed(0))
    expected = theirs(tokens).last_hidden_state
    torch.testing.assert_close(model.encoder(tokens), expected, rtol=0, atol=1e-5)
    assert model.decoder.embedding.tables[0] is model.encoder.embedding.tables[0]
    for own, layer in zip(model.decoder.layers, (0, 2), strict=True):
        other = theirs.encoder.layer[layer]
        assert torch.equal(own.mixer.q.bias, other.attention.self.query.bias)
        assert torch.equal(own.mixer.o.weight, other.attention.output.dense.weight)
        assert torch.equal(own.feed_forward.outer.weight, other.output.dense.weight)


def test_a_decoder_that_begins_afresh_takes_the_embedding_alone(recipe: Make, bert: Path) -> None:
    model = begun(read_recipe(recipe("translation", start={"path": str(bert), "decoder": False})))
    start = StartConfig(path=str(bert)).bert.tensors
    rows = start["embeddings.word_embeddings.weight"]
    assert torch.equal(model.decoder.embedding.tables[0].data, rows)
    for block in model.decoder.layers:
        assert not bool(block.mixer.q.bias.any())


# -- runs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["span_answering", "translation"])
def test_a_run_goes_on_bit_for_bit_without_the_start(
    task: str, recipe: Make, bert: Path, tmp_path: Path
) -> None:
    moved, whole = tmp_path / "moved", tmp_path / "whole"
    shutil.copytree(bert, moved)
    path = recipe(task, start={"path": str(moved)})
    longspan.train(path, run=str(whole))
    with pytest.raises(Interrupted):
        longspan.train(path, watcher=Stop(2))
    shutil.rmtree(moved)
    part = longspan.train(str(tmp_path / "run"), resume=True)
    assert (part / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    last = "checkpoints/step-00000004"
    assert contents(part / last) == contents(whole / last) != {}
    lines = [json.loads(line) for line in (part / "metrics.jsonl").read_text().splitlines()]
    assert {line["step"] for line in lines} == {1, 2, 3, 4}
    run = longspan.load(part)
    assert run.config["start"] == {"path": str(moved), "decoder": True}
    assert run.tokenizer.definition() == StartConfig(path=str(bert)).bert.codec.definition()


def test_a_run_holds_the_weights_that_it_began_with(recipe: Make, bert: Path) -> None:
    path = recipe("translation")
    with pytest.raises(Interrupted):
        longspan.train(path, watcher=Stop(1))
    read = read_recipe(path)
    first = load_file(Path(read.run) / "checkpoints" / "step-00000001" / "model.safetensors")
    mine = begun(read).state_dict()
    # a step of 1e-3 after weights of some 0.3
    near = [float((first[name] - mine[name]).abs().max()) for name in first if "cross" not in name]
    assert max(near) < 0.01


def test_a_tiny_run_evaluates_and_predicts(recipe: Make, cli: Callable[..., Result]) -> None:
    run = longspan.train(recipe("translation"))
    assert cli("predict", run, "--text", "the red dog", "--max-tokens", 5).status == 0
    told = refused(cli("predict", run, "--text", "the cat " * 20))
    assert "42 tokens" in told, "those of the text and the two symbols"


# -- what it refuses ------------------------------------------------------------------------------


WIDE = {"encoder": {"position": {"name": "learned", "length": 64}}}


@pytest.mark.parametrize(
    ("task", "sections", "said"),
    [
        ("language_modelling", {}, "is an encoder, and task 'language_modelling' has none"),
        ("span_answering", {"start": {"pth": "x"}}, "did you mean 'path'?"),
        ("span_answering", {"start": {}}, "start.path"),
        ("span_answering", {"start": "x"}, "start"),
        ("span_answering", {"start": {"path": "no/where"}}, "no/where/config.json cannot be read"),
        ("span_answering", {"model": {"width": 8}}, "model.width is 8, and 16 in "),
        ("span_answering", {"model": {"placement": "pre"}}, "model.placement is 'pre', and 'post'"),
        ("span_answering", {"model": {"layers": 2}}, "model.layers is 2, and 3 in "),
        ("span_answering", {"model": {"bias": False}}, "model.bias is False, and True in "),
        (
            "span_answering",
            {"model": {"vocabulary": {"scaled": True}}},
            "model.vocabulary is {'width': None, 'scaled': True",
        ),
        ("span_answering", {"model": {"position": "rotary"}}, "model.position is 'rotary', and"),
        ("span_answering", {"model": {"stack": [{"mixer": "lstm"}]}}, "let layers differ in patt"),
        ("span_answering", {"model": {"mixer": "lstm"}}, "model.mixer is "),
        ("translation", {"model": {"encoder": {"heads": 4}}}, "model.encoder.heads is 4, and 2 in"),
        ("translation", {"model": {"decoder": {"heads": 4}}}, "model.decoder.heads is 4, and 2 in"),
        ("translation", {"model": {"decoder": {"layers": 5}}}, "or start.decoder=false"),
        ("translation", {"model": {"width": 32}}, "model.width"),
    ],
)
def test_a_recipe_that_says_something_else_is_refused_before_anything_is_made(
    task: str, sections: dict[str, Any], said: str, recipe: Make, cli: Callable[..., Result]
) -> None:
    assert said in refused(cli("check", recipe(task, **sections)))


def test_all_that_differs_is_said_at_once(recipe: Make) -> None:
    model = {"encoder": {"heads": 4, "bias": False}, "decoder": {"layers": 5, "norm": "rms"}}
    with pytest.raises(ConfigError) as caught:
        read_recipe(recipe("translation", model=model))
    assert len(caught.value.problems) == 4


@pytest.mark.parametrize("tokenizer", ["bpe", {"name": "wordpiece", "vocab": 300}])
def test_another_tokenizer_is_refused(tokenizer: Any, recipe: Make) -> None:
    with pytest.raises(ConfigError, match=r"data\.tokenizer is .*leave it out"):
        read_recipe(recipe("translation"), {"data.tokenizer": tokenizer})
    assert read_recipe(recipe("translation"), {"data.tokenizer": "wordpiece"}).start is not None


def test_a_model_begins_with_the_weights_of_one(recipe: Make) -> None:
    with pytest.raises(ConfigError, match="cannot begin both with the weights of"):
        longspan.train(recipe("translation"), source="runs/another")


def test_longer_sources_are_refused_by_name_unless_places_are_asked_for(
    recipe: Make, tmp_path: Path
) -> None:
    path = recipe("translation")
    long = json.dumps({"source": "the cat " * 20, "target": "das"})
    records = tmp_path / "pairs.jsonl"
    records.write_text(f"{records.read_text()}{long}\n")
    said = r"line 81: the source has 42 tokens, more than the 32 places of position='learned'"
    with pytest.raises(DataError, match=said):
        longspan.train(path)
    assert not (tmp_path / "run").exists()
    longspan.train(recipe("translation", model=WIDE))


def test_weights_that_do_not_fit_leave_no_run(recipe: Make, bert: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(bert, tmp_path / "bert")
    (folder / "model.safetensors").write_bytes(b"none")
    with pytest.raises(CheckpointError, match="missing or damaged"):
        longspan.train(recipe("translation", start={"path": str(folder)}))
    assert not (tmp_path / "run").exists()
