"""Folders with a BERT, made by transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from longspan.data.tokenizers.wordpiece import SYMBOLS

WORDS = ["red", "blue", "cat", "dog", "a", "the", "rot", "blau", "katze", "hund", "ein", "das"]
PIECES = [*SYMBOLS, *WORDS, "what", "is", "last", "?", "##s", "##d", "r", "b"]
SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 32,
}


def peer(**changes: Any) -> Any:
    """A BertModel in evaluation mode with weights that leave nothing out."""
    transformers = pytest.importorskip("transformers", reason="the peer is in the extra 'dev'")
    config = transformers.BertConfig(vocab_size=len(PIECES), **(SIZES | changes))
    config._attn_implementation = "eager"
    model = transformers.BertModel(config, add_pooling_layer=False).eval()
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        norm = name.endswith("LayerNorm.weight")
        nn.init.normal_(parameter, float(norm), 0.2 if norm else 0.3)
    return model


def write(folder: Path, model: Any) -> Path:
    """Writes a model with the tokenizer of `PIECES`, as its users find it."""
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in PIECES), "utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True}), "utf-8")
    return folder
