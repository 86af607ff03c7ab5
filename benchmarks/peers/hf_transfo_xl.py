"""One training step of the Transformer-XL in transformers 4.35.2, the last release that had it.

Six layers of width 512, memory of 512 carried from step to step, 256 symbols; the cluster softmax
is off (one table, no cutoffs), so that only the network is timed. Prints one line of JSON for the
fastest of the settings below. Environment: `hf.txt`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from contextlib import nullcontext

import torch
import transformers
from torch.nn.functional import nll_loss
from transformers import TransfoXLConfig, TransfoXLLMHeadModel

BATCH, SEGMENT, MEMORY, SYMBOLS = 2, 512, 512, 256
# The memory of zeros and the one the model returns differ in strides: each compiles anew.
COMPILING_STEPS = 4
# bf16 parameters are left out: the release counts positions in the dtype of the parameters, where
# every second one above 256 is lost, so that this would time a network that nobody can train.
SETTINGS = {
    "float32": "float32",
    "bf16 autocast": "float32 parameters, bfloat16 products",
    "bf16 autocast, compiled": "float32 parameters, bfloat16 products",
}


def step_seconds(setting: str, steps: int, warmup: int) -> list[float]:
    torch.manual_seed(0)
    config = TransfoXLConfig(
        vocab_size=SYMBOLS,
        cutoffs=[],
        div_val=1,
        adaptive=False,
        d_model=512,
        d_embed=512,
        n_layer=6,
        n_head=8,
        d_head=64,
        d_inner=2048,
        mem_len=MEMORY,
        clamp_len=-1,
        same_length=False,
        dropout=0.0,
    )
    model = TransfoXLLMHeadModel(config).train()
    if "compiled" in setting:
        model.compile(dynamic=False)
        warmup = max(warmup, COMPILING_STEPS)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, fused=True)
    memory, seconds = None, []
    for _ in range(warmup + steps):
        tokens = torch.randint(SYMBOLS, (BATCH, SEGMENT + 1))
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16) if "bf16" in setting else nullcontext():
            out = model(tokens[:, :-1], mems=memory)
        # With labels the release shifts within the segment, and autocast breaks its loss.
        scores = out.prediction_scores.float().flatten(0, 1)
        nll_loss(scores, tokens[:, 1:].flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()
        memory = out.mems
        seconds.append(time.perf_counter() - start)
    return seconds[warmup:]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--setting", choices=SETTINGS, help="this one only, not the fastest")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.filterwarnings("ignore")

    rates: dict[str, list[float]] = {}
    for setting in [arguments.setting] if arguments.setting else SETTINGS:
        seconds = step_seconds(setting, arguments.steps, arguments.warmup)
        rates[setting] = [BATCH * SEGMENT / s for s in seconds]
    medians = {setting: statistics.median(found) for setting, found in rates.items()}
    best = max(medians, key=medians.__getitem__)
    report = {
        "name": "transformers TransfoXL",
        "setting": best,
        "tokens_per_second": round(medians[best], 1),
        "spread": [round(min(rates[best]), 1), round(max(rates[best]), 1)],
        "dtype": SETTINGS[best],
        "versions": {"transformers": transformers.__version__, "torch": torch.__version__},
        "tried": {setting: round(median, 1) for setting, median in medians.items()},
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
