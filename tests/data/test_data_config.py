"""What a recipe may say about its data."""

from __future__ import annotations

from typing import Any

import pytest

from longspan.data import DataConfig
from longspan.data.tokenizers.bpe import BPE
from longspan.data.tokenizers.bytes import Bytes
from longspan.errors import ConfigError


def test_the_path_is_all_it_takes() -> None:
    config = DataConfig(path="corpus/")
    assert config == DataConfig(
        path="corpus/", valid=0.05, test=0.05, documents=True, tokenizer=Bytes(), cache=""
    )
    assert config.fraction("valid") == 0.05
    assert DataConfig(path="a", valid="b").fraction("valid") == 0


def test_what_can_be() -> None:
    DataConfig(path=("a", "-"), valid="held/out", test=0, tokenizer=BPE(), documents=False)
    DataConfig(path="a", valid=0.5, test=0.4)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"path": ""}, r"^data\.path must be .* not ''"),
        ({"path": ()}, r"^data\.path must be"),
        ({"path": ("a", "")}, r"^data\.path must be"),
        ({"path": ["a"]}, r"^data\.path must be"),
        ({"path": 3}, r"^data\.path must be"),
        ({"valid": 1.0}, r"^data\.valid must be a fraction .* not 1.0"),
        ({"valid": -0.1}, r"^data\.valid must be"),
        ({"valid": float("nan")}, r"^data\.valid must be"),
        ({"valid": True}, r"^data\.valid must be"),
        ({"test": ""}, r"^data\.test must be"),
        ({"test": None}, r"^data\.test must be"),
        ({"valid": 0.5, "test": 0.5}, r"^data\.valid \+ data\.test must be below 1"),
        ({"documents": 1}, r"^data\.documents must be true or false, not 1"),
        ({"tokenizer": "bytes"}, r"^data\.tokenizer must be a tokenizer"),
        ({"cache": None}, r"^data\.cache must be a folder"),
    ],
)
def test_what_cannot_be_is_named(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DataConfig(**{"path": "corpus/", **wrong})


def test_all_problems_come_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        DataConfig(path="", valid=2, test="", documents=0)  # type: ignore[arg-type]
    assert len(error.value.problems) == 4
