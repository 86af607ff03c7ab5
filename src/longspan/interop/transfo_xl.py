"""Hugging Face's TransfoXL layout (transformers up to 4.35.2): config.json, model.safetensors.

What that release does and we keep: memory starts as M zero-filled slots that are attended to,
`inv_freq` is taken as stored (float32), no norm follows the last layer, and the score's two terms
are scaled together. The length of a segment is no part of its config (callers cut their input);
here it is part of the model, so it is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from longspan.config import plain
from longspan.data import Codec
from longspan.data.tokenizers.ids import IdCodec
from longspan.data.tokenizers.words import WordCodec
from longspan.errors import CheckpointError, ConfigError
from longspan.interop.copying import Copying
from longspan.interop.folder import read_json, read_weights
from longspan.machine import versions
from longspan.memories.recent import Recent
from longspan.models.decoder import Decoder, DecoderConfig
from longspan.models.vocabulary import VocabularyConfig
from longspan.patterns.segments import Segments
from longspan.patterns.window import Window
from longspan.positions.xl import XL
from longspan.training.checkpoint import save_checkpoint
from longspan.training.loop import Progress
from longspan.training.run import write_config, write_json


def decoder_config(config: Mapping[str, Any], segment: int) -> DecoderConfig:
    """The decoder that TransfoXL's `config` describes.

    Args:
        config: the content of config.json.
        segment: T, tokens in a segment (the authors' tgt_len).

    Raises:
        CheckpointError: a setting that has no counterpart.
    """
    if config.get("attn_type", 0) != 0:
        raise CheckpointError(
            f"config.json: attn_type={config['attn_type']} is not Transformer-XL's attention; "
            "only attn_type=0 can be imported"
        )
    memory, width = config["mem_len"], config["d_embed"]
    if config.get("same_length") and memory == 0:
        raise CheckpointError(
            "config.json: same_length with mem_len 0 leaves a query no key at all; that release "
            "then attends to the future, and is not followed there; set same_length to false"
        )
    cutoffs = tuple(config["cutoffs"]) if config.get("adaptive", True) else ()
    clamp = config.get("clamp_len", -1)
    return DecoderConfig(
        width=config["d_model"],
        layers=config["n_layer"],
        heads=config["n_head"],
        head_dim=config["d_head"],
        feed_forward=config["d_inner"],
        position=XL(clamp=clamp if clamp > 0 else None, shared=not config.get("untie_r", True)),
        pattern=Window(memory) if config.get("same_length") else Segments(segment, memory),
        memory=Recent(memory, init="zeros"),
        placement="pre" if config.get("pre_lnorm") else "post",
        final_norm=False,
        activation="relu",
        dropout=config.get("dropout", 0.0),
        attention_dropout=config.get("dropatt", 0.0),
        vocabulary=VocabularyConfig(
            width=width,
            cutoffs=cutoffs,
            div=config.get("div_val", 1),
            tied=config.get("tie_word_embeddings", True),
            tied_projections=_tied_projections(config, len(cutoffs)),
        ),
    )


def _tied_projections(config: Mapping[str, Any], cutoffs: int) -> tuple[bool, ...]:
    tied = config.get("tie_projs") or [False] + [True] * cutoffs
    return tuple(bool(t) for t in tied[: cutoffs + 1])


def load_weights(model: Decoder, tensors: Mapping[str, Tensor]) -> None:
    """Copies TransfoXL's tensors into `model`.

    Raises:
        CheckpointError: a tensor is missing or has another shape; what does not fit is named.
    """
    # a shared u and v may also be kept under the name of each layer
    spare = ("dec_attn.r_w_bias", "dec_attn.r_r_bias")
    source = Copying(tensors, ("transformer.layers.",), spare)
    embedding, head = model.embedding, model.head
    for i, table in enumerate(embedding.tables):
        source.copy(f"transformer.word_emb.emb_layers.{i}.weight", table)
    for i, projection in enumerate(embedding.projections):
        source.copy(f"transformer.word_emb.emb_projs.{i}", projection)
    if not model.config.vocabulary.tied:
        for i, table in enumerate(head.tables):
            source.copy(f"crit.out_layers.{i}.weight", table)
    for i, projection in enumerate(head.projections):
        if not model.config.vocabulary.shares(i):
            source.copy(f"crit.out_projs.{i}", projection)
    if model.config.vocabulary.div == 1:
        source.copy("crit.out_layers.0.bias", head.bias)
    else:
        for i, (low, high, _) in enumerate(head.clusters):
            source.copy(f"crit.out_layers.{i}.bias", head.bias.data[low:high])
    if head.tail_rows is not None and head.tail_bias is not None:
        source.copy("crit.cluster_weight", head.tail_rows)
        source.copy("crit.cluster_bias", head.tail_bias)
    for i, block in enumerate(model.blocks()):
        _load_block(source, f"transformer.layers.{i}", block)
    source.finish()


def _load_block(source: Copying, name: str, block: Any) -> None:
    attention, order = block.mixer, block.mixer.order
    inner = attention.q.weight.shape[0]
    for i, part in enumerate((attention.q, attention.k, attention.v)):
        rows = slice(i * inner, (i + 1) * inner)
        source.copy(f"{name}.dec_attn.qkv_net.weight", part.weight, rows)
    source.copy(f"{name}.dec_attn.o_net.weight", attention.o.weight)
    source.copy(f"{name}.dec_attn.r_net.weight", order.r.weight)
    shared = order.config.shared
    source.copy("transformer.r_w_bias" if shared else f"{name}.dec_attn.r_w_bias", order.u)
    source.copy("transformer.r_r_bias" if shared else f"{name}.dec_attn.r_r_bias", order.v)
    source.copy("transformer.pos_emb.inv_freq", order.frequency)
    norm = attention.norm if block.placement == "pre" else block.mixer_norm
    for theirs, ours in (("dec_attn", norm), ("pos_ff", block.feed_forward_norm)):
        source.copy(f"{name}.{theirs}.layer_norm.weight", ours.weight)
        source.copy(f"{name}.{theirs}.layer_norm.bias", ours.bias)
    for theirs, ours in ((0, block.feed_forward.inner), (3, block.feed_forward.outer)):
        source.copy(f"{name}.pos_ff.CoreNet.{theirs}.weight", ours.weight)
        source.copy(f"{name}.pos_ff.CoreNet.{theirs}.bias", ours.bias)


def import_run(
    path: str | os.PathLike[str], to: str | os.PathLike[str], *, segment: int | None = None
) -> Path:
    """Makes a run of a Hugging Face folder in the TransfoXL layout.

    Text is tokenised by `vocab.txt` (a word a line) where the folder has one. The release's own
    vocabulary is a pickle, which is never read; without vocab.txt the run takes token numbers.

    Args:
        path: a folder with config.json and model.safetensors.
        to: the run's folder; must not hold one.
        segment: T; None for config.json's tgt_len, else 128.

    Returns:
        `to`.

    Raises:
        CheckpointError: a file is missing or damaged, or the weights do not fit the config.
        ConfigError: `to` holds a run already, or a setting has no counterpart.
    """
    path, to = Path(path), Path(to)
    if (to / "run.yaml").exists():
        raise ConfigError(f"{to} holds a run already; name another folder (--to)")
    config = _read_config(path / "config.json")
    segment = config.get("tgt_len", 128) if segment is None else segment
    decoder = decoder_config(config, segment)
    tensors = read_weights(path)
    model = Decoder(decoder, config["vocab_size"])
    load_weights(model, tensors)
    codec = _codec(path / "vocab.txt", config)
    to.mkdir(parents=True, exist_ok=True)
    codec.save(to)
    named = dict(model.named_parameters()) | dict(model.named_buffers())
    save_checkpoint(to / "checkpoints", 0, named, {}, None, asdict(Progress()))
    write_json(to / "versions.json", {**versions(), "imported": path.name})
    write_config(to, {"model": plain(decoder)})
    return to


def _read_config(path: Path) -> dict[str, Any]:
    config = read_json(path)
    if (kind := config.get("model_type")) == "bert":
        raise CheckpointError(
            f"{path}: a BERT is an encoder, and no task is done by one alone; training begins with "
            f"its weights by start.path={path.parent} in a recipe (docs/tasks.md)"
        )
    if kind != "transfo-xl":
        raise CheckpointError(
            f"{path}: model_type is {kind!r}; so far only 'transfo-xl' can be imported"
        )
    if missing := [name for name in (*NEEDED, "cutoffs") if name not in config]:
        raise CheckpointError(f"{path} lacks {', '.join(missing)}")
    least = NEEDED | {"clamp_len": None, "div_val": 1, "tgt_len": 1}
    problems = [
        f"{name} must be {'a whole number' if at is None else f'{at} or more'}, not {value!r}"
        for name, at in least.items()
        if not _whole(value := config.get(name, 1), at)
    ]
    cutoffs = config["cutoffs"]
    if not isinstance(cutoffs, list) or not all(_whole(cutoff, 1) for cutoff in cutoffs):
        problems.append(f"cutoffs must be a list of whole numbers above 0, not {cutoffs!r}")
    if problems:
        raise CheckpointError(f"{path}: " + "; ".join(problems))
    return config


NEEDED = {
    "vocab_size": 1,
    "d_model": 1,
    "d_embed": 1,
    "n_layer": 1,
    "n_head": 1,
    "d_head": 1,
    "d_inner": 1,
    "mem_len": 0,
}
"""Whole numbers that config.json must have, and the least that each may be."""


def _whole(value: Any, least: int | None) -> bool:
    return type(value) is int and (least is None or value >= least)


def _codec(path: Path, config: Mapping[str, Any]) -> Codec:
    size, eos = config["vocab_size"], config.get("eos_token_id") or 0
    if not path.is_file():
        return IdCodec(size, eos)
    try:
        words = [line.split()[0] for line in path.read_text(encoding="utf-8").splitlines()]
        codec = WordCodec(words, words[eos])
    except (OSError, UnicodeDecodeError, IndexError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path}: no vocabulary with a word a line, <eos> and <unk> among them ({error})"
        ) from error
    if codec.size != size:
        raise CheckpointError(f"{path} has {codec.size} words, config.json says {size}")
    return codec
