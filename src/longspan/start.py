"""A pretrained start: what a recipe's model begins as.

    start: {path: all-MiniLM-L6-v2/}

The checkpoint, a BERT (`interop/bert.py`), says what the encoder is made of, and its tokenizer is
the run's. What the recipe says beside must agree with it, but for what has no weights: pattern,
memory, kernel and dropout. A longer table of positions than the checkpoint's is had by asking for
it (`model.encoder.position: {name: learned, length: 1024}`) and begins as copies of the
checkpoint's (2004.05150, section 5); a shorter one as its beginning.

A decoder is by default of the same form and begins with the same weights, but for its
cross-attention (1907.12461, BERT2BERT); of fewer layers, as those that lie evenly from the first to
the last (2010.13002, section 3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

from longspan.config import Tree, override, plain
from longspan.errors import ConfigError
from longspan.interop.bert import Bert
from longspan.models.decoder import DecoderConfig
from longspan.models.encoder import Encoder, EncoderConfig
from longspan.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from longspan.models.stack import StackConfig
from longspan.positions.learned import Learned

FREE = ("pattern", "memory", "kernel", "exact", "dropout", "attention_dropout", "stack")
"""In what a model may differ from the checkpoint: it has no weights."""


@dataclass(frozen=True, kw_only=True)
class StartConfig:
    """With what weights a model begins.

    Attributes:
        path: a folder in Hugging Face's layout with a BERT: config.json, model.safetensors, and
            tokenizer.json or vocab.txt.
        decoder: a decoder's layers begin with the encoder's weights; otherwise afresh, and the
            decoder may be of any form.
    """

    path: str
    decoder: bool = True

    @cached_property
    def bert(self) -> Bert:
        """The checkpoint, read when it is first asked for.

        Raises:
            CheckpointError: it cannot be read, or is none.
        """
        return Bert.read(self.path)

    def encoder_tree(self, tree: Any) -> Any:
        """The section of an encoder with what the checkpoint says where it says nothing."""
        return _completed(plain(self.bert.config), tree)

    def both_tree(self, tree: Any) -> Any:
        """The section of an encoder and a decoder, likewise."""
        if not isinstance(tree, Mapping | None):
            return tree
        tree = dict(tree or {})
        whole = plain(self.bert.config)
        # what is the other way round in a decoder, or has a default of its own there
        both = {k: v for k, v in whole.items() if k not in ("pattern", "memory", "stack")}
        return {
            "shared": True,
            **tree,
            "encoder": _completed(whole, tree.get("encoder")),
            "decoder": _completed({**both, "memory": "cache"}, tree.get("decoder")),
        }

    def tokenizer_tree(self, tree: Any, where: str = "data") -> Any:
        """A section that names a tokenizer, with the checkpoint's.

        Args:
            tree: it.
            where: what an error calls it.

        Raises:
            ConfigError: it names another one.
        """
        codec = self.bert.codec
        own = {"name": codec.kind, "vocab": codec.size, "lower": codec.lower}
        if not isinstance(tree, Mapping | None):
            return tree
        named = (tree or {}).get("tokenizer", own)
        if named not in (own, codec.kind):
            raise ConfigError(
                f"{where}.tokenizer is {named!r}, and the model begins with that of {self.path}; "
                "leave it out"
            )
        return {**(tree or {}), "tokenizer": own}

    def encoder_problems(self, config: EncoderConfig, where: str = "model") -> list[str]:
        """Why an encoder cannot begin as the checkpoint."""
        return self._differences(config, where, self.bert.config.layers)

    def both_problems(self, config: EncoderDecoderConfig) -> list[str]:
        """Why an encoder and a decoder cannot begin as the checkpoint."""
        problems = self.encoder_problems(config.encoder, "model.encoder")
        if not self.decoder:
            return problems
        layers = config.decoder.layers
        problems += self._differences(config.decoder, "model.decoder", layers)
        if layers > self.bert.config.layers:
            problems.append(
                f"model.decoder.layers={layers}, and {self.path} has {self.bert.config.layers}; "
                "take so many or fewer, or start.decoder=false"
            )
        return problems

    def begin_encoder(self, model: Encoder, where: str = "model") -> None:
        """Gives an encoder the checkpoint's weights.

        Args:
            model: it.
            where: what an error calls its section.

        Raises:
            ConfigError: it is another model.
            CheckpointError: they cannot be read, or do not fit.
        """
        if problems := self.encoder_problems(model.config, where):
            raise ConfigError(problems)
        self.bert.fill(model)

    def begin_both(self, model: EncoderDecoder) -> None:
        """Gives an encoder and a decoder the checkpoint's weights; raises as `begin_encoder`."""
        if problems := self.both_problems(model.config):
            raise ConfigError(problems)
        self.bert.fill(model.encoder)
        if self.decoder:
            self.bert.fill(model.decoder, spread(self.bert.config.layers, model.config.decoder))

    def _differences(self, config: StackConfig, where: str, layers: int) -> list[str]:
        there: Any = replace(self.bert.config, layers=layers)
        names = [each.name for each in fields(there) if each.name not in (*FREE, "position")]
        pairs = [(name, getattr(config, name), getattr(there, name)) for name in names]
        problems = [
            f"{where}.{name} is {plain(mine)!r}, and {plain(theirs)!r} in {self.path}; leave it out"
            for name, mine, theirs in pairs
            if mine != theirs
        ]
        if not isinstance(config.position, Learned):
            problems.append(
                f"{where}.position is {config.position.name!r}, and 'learned' in {self.path}; "
                "leave it out"
            )
        if any(each.mixer or each.position for each in config.stack):
            problems.append(
                f"{where}.stack names a mixer or a position of its own, and {self.path} knows one "
                "alone; let layers differ in pattern and memory"
            )
        return problems


def spread(layers: int, config: DecoderConfig) -> list[int]:
    """Of so many layers as many as a decoder has, evenly from the first to the last."""
    last = max(1, config.layers - 1)
    return [round(index * (layers - 1) / last) for index in range(config.layers)]


def _completed(tree: Tree, own: Any) -> Any:
    return override(tree, own) if isinstance(own, Mapping) else tree if own is None else own
