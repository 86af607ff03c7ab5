"""What a recipe may say about pairs."""

from __future__ import annotations

from typing import Any

import pytest

from longspan.config import build, plain
from longspan.data.pairs.config import PairsConfig
from longspan.data.tokenizers.bpe import BPE
from longspan.data.tokenizers.bytes import Bytes
from longspan.errors import ConfigError


def test_the_path_is_all_it_takes() -> None:
    config = PairsConfig(path="train.jsonl")
    assert config == PairsConfig(
        path="train.jsonl",
        valid=0.05,
        test=0.05,
        source="source",
        target="target",
        longest=None,
        tokenizer=BPE(),
        cache="",
    )
    assert config.fraction("valid") == 0.05
    assert PairsConfig(path="a.tsv", valid="b.tsv").fraction("valid") == 0
    assert PairsConfig(path="a.tsv", valid="").fraction("valid") == 0


def test_a_recipe_says_it_and_says_it_again() -> None:
    tree = {
        "path": ["train.en.gz", "train.de.gz"],
        "valid": ["val.en", "val.de"],
        "test": "hf:owner/name@test",
        "source": "en",
        "target": "translation.de",
        "longest": 100,
        "tokenizer": "bytes",
    }
    config = build(PairsConfig, tree)
    assert config.path == ("train.en.gz", "train.de.gz")
    assert config.tokenizer == Bytes()
    assert build(PairsConfig, plain(config)) == config


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"path": ""}, r"^data.path must be a table such as 'train.jsonl' .*, not ''$"),
        (
            {"path": "train.en"},
            r"^data.path: 'train.en' does not say .*\.jsonl, .*\.gz.*'hf:",
        ),
        (
            {"path": ("a.en",)},
            r"^data.path must be a table .*, targets\], not \('a.en',\)",
        ),
        ({"path": ("a.en", " ")}, r"^data.path must be a table"),
        ({"path": ("a.en", "b.tsv")}, r"^data.path: 'b.tsv' is a table, no parallel text file$"),
        ({"valid": "val"}, r"^data.valid: 'val' does not say what it is"),
        ({"valid": 1.0}, r"^data.valid must be a fraction from 0 to below 1, a path, or '' for "),
        ({"test": True}, r"^data.test must be a fraction"),
        ({"valid": 0.5, "test": 0.5}, r"^data.valid \+ data.test must be below 1, not 0.5 \+ 0.5"),
        ({"source": ""}, r"^data.source must be the name of a field, not ''$"),
        ({"source": "target"}, r"^data.source and data.target are both 'target'; name two fields$"),
        ({"longest": 0}, r"^data.longest must be 1 or more, or null, not 0$"),
        ({"longest": True}, r"^data.longest must be 1 or more"),
        ({"tokenizer": "bpe"}, r"^data.tokenizer must be a tokenizer such as BPE\(\), not 'bpe'$"),
        ({"cache": None}, r"^data.cache must be a folder, or '', not None$"),
    ],
)
def test_what_cannot_be_is_said(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PairsConfig(**{"path": "a.jsonl", **wrong})


def test_every_problem_is_said_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        PairsConfig(path="a", valid="b", test=2, source="x", target="x", longest=-1)
    assert len(error.value.problems) == 5
