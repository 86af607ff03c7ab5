"""Tokens a second beside Hugging Face `generate`, on the same weights and in the same dtype.

    python benchmarks/generate.py --threads 2 --out generate.json

An encoder-decoder (their Marian: the Transformer of 1706.03762) and a decoder (their GPT-2), drawn
at random; ours takes their weights, and the biases that ours does not have are zero in theirs.
Every text is given as many new tokens as the others: nothing ends it before. Rounds alternate, each
text is written once before anything is timed, and what is told is the median over rounds, and the
lowest and highest. The mark is 2 times their speed at width 256, and 1.2 times at 512. Their caches
and attention are as they come (a dynamic cache, SDPA).

Reading the source or prompt is part of the time on both sides; laying out our decoder's weights
(`prepared`) is not: it is done once for all texts, as `predict` and `evaluate` do.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, MarianConfig, MarianMTModel

from longspan import (
    Beam,
    Cache,
    Causal,
    Decoder,
    DecoderConfig,
    Decoding,
    EncoderConfig,
    EncoderDecoder,
    EncoderDecoderConfig,
    Greedy,
    Learned,
    Sinusoidal,
    decode,
    prepared,
)
from longspan.machine import hardware
from longspan.models.block import Block
from longspan.models.vocabulary import VocabularyConfig

SIZES = {256: (3, 4, 8000), 512: (6, 8, 32000)}
"""Layers (of each stack), heads and tokens of the vocabulary, by width."""

PLACES = 512
START = 2
Write = Callable[[int], list[list[int]]]
"""Writes so many tokens about every row, and gives them."""


def main() -> None:
    """Times every case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--new", type=int, default=64, help="tokens that are written")
    parser.add_argument("--prompt", type=int, default=24, help="tokens of a source or prompt")
    parser.add_argument("--widths", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--beams", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--models", nargs="+", default=["encoder-decoder", "decoder"])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = []
    for model in options.models:
        for width in options.widths:
            for name in options.dtypes:
                pair = PAIRS[model](width, getattr(torch, name))
                for batch in options.batches:
                    for beams in options.beams:
                        made = measure(pair, batch, beams, options)
                        case = {"model": model, "width": width, "dtype": name, "batch": batch}
                        results.append(case | {"beams": beams} | made)
                        print(json.dumps(results[-1]), flush=True)
    told = {
        "hardware": hardware(torch.device("cpu")),
        "threads": options.threads,
        "torch": torch.__version__,
        "new": options.new,
        "prompt": options.prompt,
        "rounds": options.rounds,
        "sizes": {str(width): SIZES[width] for width in options.widths},
        "results": results,
    }
    if options.out:
        options.out.write_text(json.dumps(told, indent=1) + "\n")
    show(told)


def measure(pair: Any, batch: int, beams: int, options: argparse.Namespace) -> dict[str, Any]:
    """Tokens a second of both, by rounds in turn."""
    generator = torch.Generator().manual_seed(0)
    given = torch.randint(3, pair.size, (batch, options.prompt), generator=generator)
    writers = {"longspan": pair.ours(given, beams), "transformers": pair.theirs(given, beams)}
    texts = {name: write(options.new) for name, write in writers.items()}
    same = sum(mine == other for mine, other in zip(*texts.values(), strict=True))
    speeds: dict[str, list[float]] = {name: [] for name in writers}
    for turn in range(options.rounds):
        for name in sorted(writers, reverse=bool(turn % 2)):
            begun = time.perf_counter()
            writers[name](options.new)
            speeds[name].append(batch * options.new / (time.perf_counter() - begun))
    ratios = [a / b for a, b in zip(*speeds.values(), strict=True)]
    return {
        **{
            name: [round(f(each), 1) for f in (statistics.median, min, max)]
            for name, each in speeds.items()
        },
        "ratio": [round(f(ratios), 2) for f in (statistics.median, min, max)],
        "same_texts": f"{same} of {batch}",
    }


def spread(values: list[float]) -> list[float]:
    """Median, lowest and highest."""
    return [round(f(values), 2) for f in (statistics.median, min, max)]


def show(told: dict[str, Any]) -> None:
    """The results as a table."""
    table = Table(title=f"tokens a second, median (lowest-highest); {told['hardware']}")
    for column in (
        "model",
        "width",
        "dtype",
        "batch",
        "beams",
        "longspan",
        "transformers",
        "ratio",
    ):
        table.add_column(column, justify="left" if column in ("model", "dtype") else "right")
    for each in told["results"]:
        cells = [str(each[key]) for key in ("model", "width", "dtype", "batch", "beams")]
        for key in ("longspan", "transformers", "ratio"):
            median, low, high = each[key]
            cells.append(f"{median:g} ({low:g}-{high:g})")
        table.add_row(*cells)
    Console(width=130).print(table)


def decoding(beams: int, new: int) -> Decoding:
    """As many tokens as asked for, by one beam or several."""
    strategy = Greedy() if beams == 1 else Beam(beams=beams)
    return Decoding(strategy=strategy, max_tokens=new)


def theirs(model: Any, beams: int, given: dict[str, Tensor], skip: int) -> Write:
    """Their `generate`; nothing ends a text."""
    model.generation_config.eos_token_id = None
    model.generation_config.forced_eos_token_id = None
    model.generation_config.bad_words_ids = None
    mask = torch.ones_like(given["input_ids"])

    @torch.inference_mode()
    def write(new: int) -> list[list[int]]:
        found = model.generate(
            **given,
            attention_mask=mask,
            do_sample=False,
            num_beams=beams,
            max_new_tokens=new,
            min_new_tokens=new,
            max_length=None,
        )
        return found[:, skip:].tolist()

    return write


class Translators:
    """A Marian, and ours with its weights."""

    def __init__(self, width: int, dtype: torch.dtype) -> None:
        layers, heads, self.size = SIZES[width]
        torch.manual_seed(0)
        config = MarianConfig(
            vocab_size=self.size,
            decoder_vocab_size=self.size,
            d_model=width,
            encoder_layers=layers,
            decoder_layers=layers,
            encoder_attention_heads=heads,
            decoder_attention_heads=heads,
            encoder_ffn_dim=4 * width,
            decoder_ffn_dim=4 * width,
            activation_function="relu",
            dropout=0.0,
            scale_embedding=True,
            max_position_embeddings=PLACES,
            pad_token_id=0,
            eos_token_id=1,
            decoder_start_token_id=START,
            forced_eos_token_id=None,
            init_std=0.05,
        )
        self.model = MarianMTModel(config).eval()
        sizes = {"width": width, "layers": layers, "heads": heads, "feed_forward": 4 * width}
        sizes |= {"placement": "post", "final_norm": False, "activation": "relu"}
        sizes |= {"position": Sinusoidal()}
        own = EncoderDecoderConfig(
            encoder=EncoderConfig(**sizes),
            decoder=DecoderConfig(**sizes, memory=Cache()),
            shared=True,
        )
        self.mine = EncoderDecoder(own, self.size, self.size).eval()
        body: Any = self.model.model
        # their table has the sines first and then the cosines, ours as the paper has them in turn
        places = self.mine.decoder.entry(torch.arange(PLACES)[None], torch.float32)[0]
        with torch.no_grad():
            self.mine.decoder.embedding.tables[0].copy_(body.shared.weight)
            self.mine.decoder.head.bias.copy_(self.model.final_logits_bias[0])
            for mine, side in (
                (self.mine.encoder, body.encoder),
                (self.mine.decoder, body.decoder),
            ):
                side.embed_positions.weight.copy_(places)
                for block, layer in zip(mine.blocks(), side.layers, strict=True):
                    take_marian(block, layer)
        self.model, self.mine = self.model.to(dtype), self.mine.to(dtype)

    def ours(self, source: Tensor, beams: int) -> Write:
        """Our `decode`."""
        step = prepared(self.mine.decoder, PLACES)

        @torch.inference_mode()
        def write(new: int) -> list[list[int]]:
            state = self.mine.encode(source)
            starts = [[START]] * len(source)
            found = decode(step, starts, state, decoding=decoding(beams, new))
            return [list(best.tokens) for best, *_ in found]

        return write

    def theirs(self, source: Tensor, beams: int) -> Write:
        """Their `generate`."""
        return theirs(self.model, beams, {"input_ids": source}, skip=1)


def take_marian(block: Block, other: Any) -> None:
    """A layer's weights."""
    pairs: list[tuple[Any, Any]] = [
        (block.mixer_norm, other.self_attn_layer_norm),
        (block.feed_forward_norm, other.final_layer_norm),
        (block.feed_forward.inner, other.fc1),
        (block.feed_forward.outer, other.fc2),
    ]
    if block.cross is not None:
        pairs.append((block.cross_norm, other.encoder_attn_layer_norm))
    for mine, their in pairs:
        mine.weight.copy_(their.weight)
        mine.bias.copy_(their.bias)
    layers = [(block.mixer, other.self_attn)]
    layers += [] if block.cross is None else [(block.cross, other.encoder_attn)]
    for mine, their in layers:
        for name, linear in zip("qkvo", ("q_proj", "k_proj", "v_proj", "out_proj"), strict=True):
            getattr(mine, name).weight.copy_(getattr(their, linear).weight)
            getattr(their, linear).bias.zero_()


class Decoders:
    """A GPT-2, and ours with its weights."""

    def __init__(self, width: int, dtype: torch.dtype) -> None:
        layers, heads, self.size = SIZES[width]
        torch.manual_seed(0)
        config = GPT2Config(
            vocab_size=self.size,
            n_positions=PLACES,
            n_embd=width,
            n_layer=layers,
            n_head=heads,
            activation_function="gelu",
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=START,
            eos_token_id=None,
            pad_token_id=0,
            initializer_range=0.05,
        )
        self.model = GPT2LMHeadModel(config).eval()
        own = DecoderConfig(
            width=width,
            layers=layers,
            heads=heads,
            feed_forward=4 * width,
            position=Learned(PLACES),
            pattern=Causal(),
            memory=Cache(),
            activation="gelu",
            vocabulary=VocabularyConfig(tied=False),
        )
        self.mine = Decoder(own, self.size).eval()
        body = self.model.transformer
        with torch.no_grad():
            # ours scales what it reads
            self.mine.embedding.tables[0].copy_(body.wte.weight / width**0.5)
            self.mine.head.tables[0].copy_(self.model.lm_head.weight)
            self.mine.entry.table.copy_(body.wpe.weight)
            self.mine.norm.load_state_dict(body.ln_f.state_dict())
            for block, layer in zip(self.mine.blocks(), body.h, strict=True):
                take_gpt2(block, layer)
        self.model, self.mine = self.model.to(dtype), self.mine.to(dtype)

    def ours(self, prompts: Tensor, beams: int) -> Write:
        """Our `decode`."""
        step = prepared(self.mine, PLACES)

        @torch.inference_mode()
        def write(new: int) -> list[list[int]]:
            found = decode(step, prompts.tolist(), decoding=decoding(beams, new))
            return [list(best.tokens) for best, *_ in found]

        return write

    def theirs(self, prompts: Tensor, beams: int) -> Write:
        """Their `generate`."""
        return theirs(self.model, beams, {"input_ids": prompts}, skip=prompts.shape[1])


def take_gpt2(block: Block, other: Any) -> None:
    """A layer's weights: theirs are stored transposed, queries, keys and values in one."""
    attention, forward = block.mixer, block.feed_forward
    other.attn.c_attn.bias.zero_()
    other.attn.c_proj.bias.zero_()
    for part, weight in zip("qkv", other.attn.c_attn.weight.chunk(3, 1), strict=True):
        getattr(attention, part).weight.copy_(weight.T)
    attention.o.weight.copy_(other.attn.c_proj.weight.T)
    for mine, their in ((forward.inner, other.mlp.c_fc), (forward.outer, other.mlp.c_proj)):
        mine.weight.copy_(their.weight.T)
        mine.bias.copy_(their.bias)
    attention.norm.load_state_dict(other.ln_1.state_dict())
    block.feed_forward_norm.load_state_dict(other.ln_2.state_dict())


PAIRS: dict[str, Any] = {"encoder-decoder": Translators, "decoder": Decoders}

if __name__ == "__main__":
    main()
