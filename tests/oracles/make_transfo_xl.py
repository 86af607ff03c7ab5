"""Write small Transformer-XL oracles with the last good release of the Hugging Face code.

`transformers` dropped TransfoXL after 4.35, so nobody can compare with it at test time. This script
runs that release once and keeps what it answered: for every option a small random model as the
release itself saves it (`config.json`, `model.safetensors`) and its answers over a few segments
(`cases.safetensors`). The tests read these files and need no `transformers`.

Run it in an environment of its own, with Python 3.11 and

    pip install torch==2.13.0 transformers==4.35.2 "numpy<2"
    python tests/oracles/make_transfo_xl.py [FOLDER]

FOLDER is `transfo_xl` beside this script unless given. Two runs on one machine write the same
bytes; on another processor the last digits of the float64 answers may differ.

`cases.safetensors` holds, with S the segment and L the layer, both counted from 0:

    input_ids      (B, segments * T) int64    segment S is columns S * T to (S + 1) * T
    log_probs.S    (B, T, V) float64          the output without labels
    hidden.S       (B, T, C) float64          what the last layer gives to the head
    attention0.S   (B, H, T, M + T) float64   probabilities of layer 0, oldest key first
    memory.S.L     (M, B, C) float64          the inputs of layer L kept after segment S; none
                                              where mem_len is 0, shorter than M while an
                                              empty start still fills
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import TransfoXLConfig, TransfoXLLMHeadModel

RELEASE = "4.35.2"
BATCH = 2

# Head count, head width, layer count and batch stay small, so that an oracle is some 80 KB.
BASE: dict[str, Any] = {
    "vocab_size": 60,
    "cutoffs": [],
    "div_val": 1,
    "d_model": 16,
    "d_embed": 16,
    "n_head": 2,
    "d_head": 8,
    "d_inner": 24,
    "n_layer": 2,
    "mem_len": 10,
    "clamp_len": -1,
    "same_length": False,
    "untie_r": True,
    "pre_lnorm": False,
    "dropout": 0.0,
    "dropatt": 0.0,
}


@dataclass(frozen=True, kw_only=True)
class Oracle:
    """One option of the release: what differs from `BASE`, and how the stream is cut."""

    shows: str
    segment_length: int
    segments: int = 4
    # The release starts from mem_len slots of zeros that are attended to; the authors' own code
    # starts from no slot at all, which the release accepts when it is handed such a memory.
    empty_start: bool = False
    options: dict[str, Any] = field(default_factory=dict)


ORACLES: dict[str, Oracle] = {
    "untied": Oracle(
        shows="the baseline: biases u and v of every layer its own, memory longer than a segment",
        segment_length=6,
        options={"mem_len": 10},
    ),
    "shared_uv": Oracle(
        shows="untie_r False: one u and one v for all layers, memory shorter than a segment",
        segment_length=7,
        options={"mem_len": 5, "untie_r": False},
    ),
    "clamp": Oracle(
        shows="distances beyond clamp_len share one position embedding",
        segment_length=6,
        options={"mem_len": 9, "clamp_len": 4},
    ),
    "same_length": Oracle(
        shows="every query sees mem_len keys, its own among them",
        segment_length=5,
        options={"mem_len": 8, "same_length": True},
    ),
    "same_length_short": Oracle(
        shows="same_length with mem_len below the segment: keys of the segment itself fall out",
        segment_length=8,
        options={"mem_len": 6, "same_length": True},
    ),
    "pre_norm": Oracle(
        shows="pre_lnorm: norms before the sublayers, over the memory as well, and none at the end",
        segment_length=6,
        options={"mem_len": 8, "pre_lnorm": True},
    ),
    "head_width": Oracle(
        shows="n_head * d_head differs from d_model",
        segment_length=5,
        options={"mem_len": 7, "n_head": 3, "d_head": 4},
    ),
    "adaptive_div1": Oracle(
        shows="cutoffs with div_val 1: one embedding table, clusters in the output only",
        segment_length=8,
        segments=3,
        options={"mem_len": 6, "vocab_size": 90, "cutoffs": [20, 50]},
    ),
    "adaptive_div1_small": Oracle(
        shows="cutoffs with div_val 1 and d_embed below d_model: the tails share emb_projs.0",
        segment_length=5,
        options={"mem_len": 7, "vocab_size": 90, "cutoffs": [20, 50], "d_embed": 12},
    ),
    "adaptive_div4": Oracle(
        shows="three cutoffs with div_val 4: widths 64, 16, 4 and 1 under d_model 16",
        segment_length=6,
        options={
            "mem_len": 9,
            "vocab_size": 110,
            "cutoffs": [15, 40, 70],
            "div_val": 4,
            "d_embed": 64,
        },
    ),
    "tied_projections": Oracle(
        shows="tie_projs True for every cluster, the first included",
        segment_length=6,
        options={
            "mem_len": 8,
            "vocab_size": 80,
            "cutoffs": [20, 50],
            "div_val": 2,
            "tie_projs": [True, True, True],
        },
    ),
    "untied_projections": Oracle(
        shows="proj_share_all_but_first False: tie_projs False for every cluster",
        segment_length=6,
        options={
            "mem_len": 8,
            "vocab_size": 80,
            "cutoffs": [20, 50],
            "div_val": 2,
            "proj_share_all_but_first": False,
        },
    ),
    "untied_weights": Oracle(
        shows="tie_word_embeddings False: output tables of their own, projections still tied",
        segment_length=6,
        options={
            "mem_len": 8,
            "vocab_size": 70,
            "cutoffs": [25],
            "div_val": 2,
            "tie_word_embeddings": False,
        },
    ),
    "no_memory": Oracle(
        shows="mem_len 0: every segment stands alone and no memory is returned",
        segment_length=7,
        options={"mem_len": 0},
    ),
    "small_embedding": Oracle(
        shows="d_embed below d_model without cutoffs: a projection in and another one out",
        segment_length=6,
        options={"mem_len": 9, "d_embed": 10},
    ),
    "empty_start": Oracle(
        shows="a memory that starts with no slots and grows to mem_len",
        segment_length=4,
        segments=5,
        empty_start=True,
        options={"mem_len": 10},
    ),
    "combined": Oracle(
        shows="shared u and v, pre_lnorm, clamp_len, same_length, head width and cutoffs at once",
        segment_length=7,
        options={
            "mem_len": 9,
            "vocab_size": 90,
            "cutoffs": [20, 50],
            "div_val": 2,
            "d_embed": 12,
            "n_head": 3,
            "d_head": 6,
            "untie_r": False,
            "pre_lnorm": True,
            "clamp_len": 5,
            "same_length": True,
        },
    ),
}


@contextmanager
def float64_attention() -> Iterator[None]:
    """Keep the attention scores in float64.

    The release casts them with `.float()` before it masks them with the least float64, which
    float32 cannot hold: a float64 model raises. Leaving float64 tensors alone is all it takes.
    """
    to_float = torch.Tensor.float

    def keep_float64(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return tensor if tensor.dtype == torch.float64 else to_float(tensor, *args, **kwargs)

    torch.Tensor.float = keep_float64  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.Tensor.float = to_float  # type: ignore[method-assign]


def randomize(model: TransfoXLLMHeadModel, generator: torch.Generator) -> None:
    """Give every parameter a size that shows in the answers.

    The release starts with matrices of std 0.02, biases of 0 and norms near 1, under which a wrong
    or a missing term would hide in the rounding. Projections are not even initialised there.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(generator=generator)
            if name.endswith(("r_w_bias", "r_r_bias")):
                parameter.mul_(0.5)
            elif parameter.dim() == 1:
                parameter.mul_(0.3)
                if name.endswith("layer_norm.weight"):
                    parameter.add_(1.0)
            else:
                parameter.mul_(min(max(parameter.size(-1) ** -0.5, 0.15), 0.5))


def random_ids(config: TransfoXLConfig, length: int, generator: torch.Generator) -> torch.Tensor:
    ids = torch.randint(config.vocab_size, (BATCH, length), generator=generator)
    # The ends of every cluster are where an index that is off by one shows.
    edges = [0, config.vocab_size - 1, *(i for c in config.cutoffs for i in (c - 1, c))]
    ids.view(-1)[torch.randperm(ids.numel(), generator=generator)[: len(edges)]] = torch.tensor(
        edges
    )
    return ids


@torch.no_grad()
def answers(
    model: TransfoXLLMHeadModel, ids: torch.Tensor, oracle: Oracle
) -> dict[str, torch.Tensor]:
    config = model.config
    cases = {"input_ids": ids}
    memory = None
    if oracle.empty_start:
        empty = torch.zeros(0, BATCH, config.d_model, dtype=torch.float64)
        memory = [empty] * config.n_layer
    for segment in range(oracle.segments):
        start = segment * oracle.segment_length
        out = model(
            ids[:, start : start + oracle.segment_length],
            mems=memory,
            output_hidden_states=True,
            output_attentions=True,
        )
        memory = out.mems
        cases[f"log_probs.{segment}"] = out.prediction_scores
        cases[f"hidden.{segment}"] = out.hidden_states[-1]
        cases[f"attention0.{segment}"] = out.attentions[0]
        for layer, kept in enumerate(memory or []):
            cases[f"memory.{segment}.{layer}"] = kept
    return {name: tensor.contiguous().clone() for name, tensor in cases.items()}


def write(name: str, oracle: Oracle, folder: Path) -> None:
    """Write one oracle into `folder`, which is made where it is missing."""
    # Seeded by name, so that an oracle added later leaves the others as they are.
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    model = TransfoXLLMHeadModel(TransfoXLConfig(**{**BASE, **oracle.options})).eval()
    randomize(model, generator)
    ids = random_ids(model.config, oracle.segments * oracle.segment_length, generator)

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as saved:
        model.save_pretrained(saved, safe_serialization=True)
        for file in ("config.json", "model.safetensors"):  # not its generation_config.json
            (folder / file).write_bytes(Path(saved, file).read_bytes())
    # The answers come from what was written: a file that would not load again is no oracle.
    model, loading = TransfoXLLMHeadModel.from_pretrained(folder, output_loading_info=True)
    if any(loading.values()):
        raise RuntimeError(f"{name} does not load as it was saved: {loading}")
    left_out = sorted(set(model.state_dict()) - set(load_file(folder / "model.safetensors")))

    with float64_attention():
        cases = answers(model.double().eval(), ids, oracle)
    save_file(cases, folder / "cases.safetensors")

    about = {
        "shows": oracle.shows,
        "tied_names_left_out": left_out,
        "segments": oracle.segments,
        "segment_length": oracle.segment_length,
        "initial_memory": (
            "none"
            if model.config.mem_len == 0
            else "empty: no slots"
            if oracle.empty_start
            else "mem_len slots of zeros, attended to"
        ),
        "output_branch": "no labels",
        "made_with": f"transformers {RELEASE}, float64 arithmetic on float32 weights",
        "versions": {"transformers": transformers.__version__, "torch": torch.__version__},
        "memory_layout": "memory.S.L is (mem_len, batch, d_model) after segment S, layer L; "
        "log_probs.S is (batch, segment, vocab)",
    }
    (folder / "about.json").write_text(json.dumps(about, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "folder", nargs="?", type=Path, default=Path(__file__).parent / "transfo_xl"
    )
    folder: Path = parser.parse_args().folder
    if transformers.__version__ != RELEASE:
        raise SystemExit(f"this needs transformers=={RELEASE}, not {transformers.__version__}")
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    torch.set_num_threads(1)  # one order of summation, hence the same bytes each time
    for name, oracle in ORACLES.items():
        write(name, oracle, folder / name)
        size = sum(file.stat().st_size for file in (folder / name).iterdir())
        print(f"{name:20} {size / 1024:6.1f} KiB  {oracle.shows}")


if __name__ == "__main__":
    main()
