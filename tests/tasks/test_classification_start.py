"""Classes of texts by an encoder that begins as a BERT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import longspan
from longspan.config import override, plain, write_yaml
from longspan.data.labelled.item import Item
from longspan.errors import ConfigError
from longspan.measure.embedding import embed
from longspan.start import StartConfig
from longspan.training.recipe import read_recipe
from tests.interop.bert import PIECES, peer, write
from tests.tiny import SETTINGS, written


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a BERT of three layers. Not to be changed."""
    return write(tmp_path_factory.mktemp("start") / "bert", peer())


def recipe(folder: Path, bert: Path, **changes: Any) -> str:
    tree = {
        "task": "classification",
        "start": {"path": str(bert)},
        "data": {"path": written("classification", {}, folder)["data.path"], "valid": 0.2},
        "model": {"pool": "mean", "encoder": {"dropout": 0.1}},
        "train": {"steps": 2, "tokens": 200, "dtype": "float32"},
        "run": str(folder / "run"),
    }
    (folder / "begun.yaml").write_text(write_yaml(override(tree, changes)), "utf-8")
    return str(folder / "begun.yaml")


def test_the_checkpoint_says_what_the_encoder_is_made_of(tmp_path: Path, bert: Path) -> None:
    read = read_recipe(recipe(tmp_path, bert))
    start = StartConfig(path=str(bert))
    assert plain(read.model.encoder) == {**plain(start.bert.config), "dropout": 0.1}
    own = {"name": "wordpiece", "vocab": len(PIECES), "lower": True}
    assert plain(read.data.input) == {"name": "text", "tokenizer": own}


def test_vectors_are_the_peers_means(tmp_path: Path, bert: Path) -> None:
    """Of [CLS], the tokens and [SEP], as sentence embeddings are made of MiniLM."""
    settings = SETTINGS | {"train.learning_rate": 1e-30, "train.weight_decay": 0.0}
    run = longspan.load(longspan.train(recipe(tmp_path, bert), **settings))
    texts = ["the red cat", "a dog"]
    found = embed(run, [Item(text, text) for text in texts])
    model = peer()
    for row, text in zip(found, texts, strict=True):
        ids = [PIECES.index(piece) for piece in ("[CLS]", *text.split(), "[SEP]")]
        theirs = model(torch.tensor([ids])).last_hidden_state[0].mean(0)
        assert row == pytest.approx(theirs.detach().numpy(), abs=1e-5)


def test_a_run_goes_on_without_the_checkpoint(tmp_path: Path) -> None:
    folder = write(tmp_path / "bert", peer())
    file = recipe(tmp_path, folder)
    run = longspan.train(file, **SETTINGS)
    for each in folder.iterdir():
        each.unlink()
    longspan.train(str(run), resume=True, **SETTINGS, **{"train.steps": 4})
    assert '"step": 4' in (run / "metrics.jsonl").read_text()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model.encoder.width": 8}, r"model\.encoder\.width is 8, and 16 in"),
        ({"model": {"decoder": {}}}, r"is an encoder; use model\.encoder"),
        ({"data.input": "patches"}, r"reads texts; use data\.input=text"),
        (
            {"data.input.tokenizer": "bytes", "data.input.name": "text"},
            r"data\.input\.tokenizer is",
        ),
    ],
)
def test_what_does_not_fit_the_checkpoint_is_refused(
    tmp_path: Path, bert: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        read_recipe(recipe(tmp_path, bert, **changes))
