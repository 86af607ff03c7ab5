"""BERT in Hugging Face's layout (1810.04805): config.json, model.safetensors and its tokenizer.

    bert = Bert.read("all-MiniLM-L6-v2/")
    h = bert.encoder()(tokens, valid=valid)

It is an encoder of ours: norms after the residuals, a learned vector a position, biases in all
maps, a norm of the embeddings. Every text is of kind 0 unless told otherwise, so that kind's vector
is part of the positions. What stands above the last layer (the pooler, heads) is left out.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from longspan.data.tokenizers.wordpiece import WordPieceCodec
from longspan.errors import CheckpointError, ConfigError
from longspan.interop.copying import Copying
from longspan.interop.folder import read_json, read_weights
from longspan.models.block import Block
from longspan.models.decoder import Decoder
from longspan.models.encoder import Encoder, EncoderConfig
from longspan.models.vocabulary import VocabularyConfig
from longspan.positions.learned import Learned, LearnedEntry

SIZES = {
    "vocab_size": 1,
    "hidden_size": 1,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "intermediate_size": 1,
    "max_position_embeddings": 1,
}
"""Whole numbers that config.json must have, and the least that each may be."""

ACTIVATIONS = ("gelu", "relu")
KIND = "embeddings.token_type_embeddings.weight"
SPARE = ("embeddings.position_ids",)
"""What old checkpoints hold and nothing needs: 0, 1, 2, …"""


@dataclass(frozen=True)
class Bert:
    """A folder with a BERT.

    Attributes:
        path: the folder.
        config: of the encoder.
        size: V, tokens in the vocabulary.
        codec: its tokenizer.
    """

    path: Path
    config: EncoderConfig
    size: int
    codec: WordPieceCodec

    @staticmethod
    def read(path: str | os.PathLike[str]) -> Bert:
        """What the folder says, without its weights.

        Raises:
            CheckpointError: it is no folder with a BERT, a file is damaged, or a setting has no
                counterpart here.
        """
        path = Path(path).expanduser()
        tree = read_json(path / "config.json")
        try:
            config = encoder_config(tree)
        except CheckpointError as error:
            raise CheckpointError(f"{path / 'config.json'}: {error}") from error
        codec = _codec(path)
        if codec.size > tree["vocab_size"]:
            raise CheckpointError(
                f"{path}: its tokenizer has {codec.size} tokens, and config.json says "
                f"vocab_size={tree['vocab_size']}"
            )
        return Bert(path, config, codec.size, codec)

    def encoder(self) -> Encoder:
        """The encoder with its weights, in evaluation mode and float32.

        Raises:
            CheckpointError: they are missing, damaged or of another shape.
        """
        model = Encoder(self.config, self.size)
        self.fill(model)
        return model.eval()

    def fill(self, model: Encoder | Decoder, layers: Sequence[int] | None = None) -> None:
        """Copies the weights into a model of the same kind, but for heads and cross-attention.

        A table of more positions goes on with the first one again (2004.05150, section 5).

        Args:
            model: of `config`, but for what has no weights; a decoder likewise.
            layers: which ones its layers begin as; None for all in their order.

        Raises:
            CheckpointError: they are missing, damaged or of another shape.
        """
        chosen = range(self.config.layers) if layers is None else layers
        named = [f"encoder.layer.{index}." for index in chosen]
        whole = ["encoder.layer.", "embeddings."]
        copying = Copying(self.tensors, tuple(whole if layers is None else named), SPARE)
        embedding, entry = model.embedding, model.entry
        assert embedding is not None, "a model of tokens"
        assert isinstance(entry, LearnedEntry), "learned positions"
        copying.copy("embeddings.word_embeddings.weight", embedding.tables[0], slice(self.size))
        _both(copying, "embeddings.LayerNorm", model.first_norm)
        places = entry.table.new_empty(self.places, self.config.width)
        first = entry.table.new_empty(1, self.config.width)
        copying.copy("embeddings.position_embeddings.weight", places)
        copying.copy(KIND, first, slice(1))
        for index, block in zip(chosen, model.blocks(), strict=True):
            _fill_block(copying, f"encoder.layer.{index}", block)
        copying.finish()
        with torch.no_grad():
            entry.table.copy_(first + places[torch.arange(len(entry.table)) % self.places])

    @property
    def places(self) -> int:
        """How many positions it has learnt."""
        assert isinstance(self.config.position, Learned)
        return self.config.position.length

    @property
    def kinds(self) -> Tensor:
        """(2, C), what is added to a token's embedding: in the first text, in a second one.

        Where only one kind was learnt, the second is as the first.
        """
        kinds = self.tensors[KIND].float()
        return kinds[[0, min(1, len(kinds) - 1)]]

    @cached_property
    def tensors(self) -> Mapping[str, Tensor]:
        """The weights by BERT's own names.

        Raises:
            CheckpointError: they are missing or damaged, or there is only a pickle.
        """
        tensors = read_weights(self.path)
        return {name.removeprefix("bert."): value for name, value in tensors.items()}


def encoder_config(config: Mapping[str, Any]) -> EncoderConfig:
    """The encoder that BERT's `config` describes.

    Args:
        config: the content of config.json.

    Raises:
        CheckpointError: it is another model's, or a setting has no counterpart.
    """
    if (kind := config.get("model_type")) != "bert":
        raise CheckpointError(f"model_type is {kind!r}, not 'bert'")
    if missing := [name for name in SIZES if name not in config]:
        raise CheckpointError(f"{', '.join(missing)} missing")
    problems = [
        f"{name} must be {least} or more, not {config[name]!r}"
        for name, least in SIZES.items()
        if type(config[name]) is not int or config[name] < least
    ]
    if (activation := config.get("hidden_act", "gelu")) not in ACTIVATIONS:
        problems.append(f"hidden_act is {activation!r}, and only gelu and relu can be imported")
    if (places := config.get("position_embedding_type", "absolute")) != "absolute":
        problems.append(f"position_embedding_type is {places!r}, and only 'absolute' is BERT's own")
    if problems:
        raise CheckpointError("; ".join(problems))
    try:
        return EncoderConfig(
            width=config["hidden_size"],
            layers=config["num_hidden_layers"],
            heads=config["num_attention_heads"],
            feed_forward=config["intermediate_size"],
            position=Learned(config["max_position_embeddings"]),
            bias=True,
            epsilon=config.get("layer_norm_eps", 1e-12),
            placement="post",
            first_norm=True,
            final_norm=False,
            activation=activation,
            dropout=config.get("hidden_dropout_prob", 0.1),
            attention_dropout=config.get("attention_probs_dropout_prob", 0.1),
            vocabulary=VocabularyConfig(scaled=False),
        )
    except (ConfigError, TypeError) as error:
        raise CheckpointError(f"it describes no encoder: {error}") from error


def _fill_block(copying: Copying, name: str, block: Block) -> None:
    attention: Any = block.mixer
    maps = {"query": "q", "key": "k", "value": "v"}
    # what marked tokens are to see apart they learn (2004.05150, section 5)
    for own in (attention,) if attention.wide is None else (attention, attention.wide):
        for theirs, ours in maps.items():
            _both(copying, f"{name}.attention.self.{theirs}", getattr(own, ours))
    _both(copying, f"{name}.attention.output.dense", attention.o)
    _both(copying, f"{name}.attention.output.LayerNorm", block.mixer_norm)
    _both(copying, f"{name}.intermediate.dense", block.feed_forward.inner)
    _both(copying, f"{name}.output.dense", block.feed_forward.outer)
    _both(copying, f"{name}.output.LayerNorm", block.feed_forward_norm)


def _both(copying: Copying, name: str, module: Any) -> None:
    copying.copy(f"{name}.weight", module.weight)
    copying.copy(f"{name}.bias", module.bias)


def _codec(path: Path) -> WordPieceCodec:
    """The tokenizer of tokenizer.json, or of vocab.txt and tokenizer_config.json."""
    whole, lines = path / "tokenizer.json", path / "vocab.txt"
    try:
        if whole.is_file():
            tree = read_json(whole)
            ids, normal = tree["model"]["vocab"], tree.get("normalizer") or {}
            if tree["model"]["type"] != "WordPiece" or normal.get("type") != "BertNormalizer":
                raise CheckpointError(f"{whole} is no tokenizer of BERT's kind, WordPiece")
            return WordPieceCodec(
                _ordered(ids),
                lower=normal["lowercase"],
                accents=_not(normal["strip_accents"]),
                characters=normal["handle_chinese_chars"],
            )
        settings = path / "tokenizer_config.json"
        own = read_json(settings) if settings.is_file() else {}
        return WordPieceCodec(
            lines.read_text(encoding="utf-8").removesuffix("\n").split("\n"),
            lower=own.get("do_lower_case", True),
            accents=_not(own.get("strip_accents")),
            characters=own.get("tokenize_chinese_chars", True),
        )
    except OSError as error:
        raise CheckpointError(f"{path} has neither tokenizer.json nor vocab.txt") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: its tokenizer cannot be read ({error})") from error


def _ordered(ids: Mapping[str, int]) -> Iterable[str]:
    pieces = sorted(ids, key=ids.__getitem__)
    if [ids[piece] for piece in pieces] != list(range(len(pieces))):
        raise ValueError("the ids of its vocabulary have gaps")
    return pieces


def _not(strips: bool | None) -> bool | None:
    return None if strips is None else not strips
