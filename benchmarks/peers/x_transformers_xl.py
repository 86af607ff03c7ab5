"""One training step of x-transformers with a Transformer-XL memory.

Six layers of width 512, memory of 512 carried from step to step, 256 symbols. x-transformers has
the memory of Transformer-XL but not its positions, so the cheaper ones that it does have are timed
in its favour. Prints one line of JSON for the fastest setting of the shortlist below, or of all of
them with `--all`, which takes about half an hour. Environment: `x.txt`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from contextlib import nullcontext
from importlib.metadata import version
from itertools import product

import torch
from torch.nn.functional import cross_entropy
from x_transformers import Decoder, TransformerWrapper

BATCH, SEGMENT, MEMORY, SYMBOLS = 2, 512, 512, 256
POSITIONS = {
    "rotary": {"rotary_pos_emb": True},
    "alibi": {"alibi_pos_bias": True},
    "rel_pos_bias": {"rel_pos_bias": True},
}
DTYPES = {
    "float32": "float32",
    "bf16 autocast": "float32 parameters, bfloat16 products",
    "bf16 parameters": "bfloat16",
}
SETTINGS = [
    f"{position}, {kernel}, {dtype}, {way}"
    for way, position, kernel, dtype in product(
        ("eager", "compiled"), POSITIONS, ("flash", "einsum"), DTYPES
    )
    if (position, kernel) != ("rel_pos_bias", "flash")  # which it refuses
]
# The fastest known on a processor with AVX512-BF16.
SHORTLIST = [
    "rotary, einsum, bf16 autocast, eager",
    "rotary, einsum, bf16 autocast, compiled",
    "rotary, einsum, bf16 parameters, compiled",
    "alibi, einsum, bf16 parameters, compiled",
]
# The memory is absent, then fresh, then a concatenation: each of them compiles anew.
COMPILING_STEPS = 4


def step_seconds(setting: str, steps: int, warmup: int) -> list[float]:
    position, kernel, dtype, way = setting.split(", ")
    torch.manual_seed(0)
    model = TransformerWrapper(
        num_tokens=SYMBOLS,
        max_seq_len=SEGMENT,
        max_mem_len=MEMORY,
        use_abs_pos_emb=False,
        attn_layers=Decoder(
            dim=512,
            depth=6,
            heads=8,
            attn_dim_head=64,
            ff_mult=4,
            attn_flash=kernel == "flash",
            **POSITIONS[position],
        ),
    ).train()
    if dtype == "bf16 parameters":
        model.bfloat16()
    if way == "compiled":
        torch.compiler.reset()  # or the settings before this one use up the recompilations
        model.compile(dynamic=False)
        warmup = max(warmup, COMPILING_STEPS)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, fused=True)
    memory, seconds = None, []
    for _ in range(warmup + steps):
        tokens = torch.randint(SYMBOLS, (BATCH, SEGMENT + 1))
        start = time.perf_counter()
        low = dtype == "bf16 autocast"
        with torch.autocast("cpu", torch.bfloat16) if low else nullcontext():
            logits, memory = model(tokens[:, :-1], mems=memory, return_mems=True)
        loss = cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - start)
    # The first step has no memory yet and is cheaper, so it never counts.
    return seconds[max(warmup, 1) :]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--setting", choices=SETTINGS, help="this one only, not the fastest")
    parser.add_argument("--all", action="store_true", help="try all settings, not the shortlist")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.filterwarnings("ignore")

    rates: dict[str, list[float]] = {}
    failed: dict[str, str] = {}
    settings = SETTINGS if arguments.all else SHORTLIST
    for setting in [arguments.setting] if arguments.setting else settings:
        try:
            seconds = step_seconds(setting, arguments.steps, arguments.warmup)
        except RuntimeError as error:
            failed[setting] = str(error).partition("\n")[0]
        else:
            rates[setting] = [BATCH * SEGMENT / s for s in seconds]
    medians = {setting: statistics.median(found) for setting, found in rates.items()}
    best = max(medians, key=medians.__getitem__)
    report = {
        "name": "x-transformers with max_mem_len",
        "setting": best,
        "tokens_per_second": round(medians[best], 1),
        "spread": [round(min(rates[best]), 1), round(max(rates[best]), 1)],
        "dtype": DTYPES[best.split(", ")[2]],
        "versions": {"x-transformers": version("x-transformers"), "torch": torch.__version__},
        "tried": {setting: round(median, 1) for setting, median in medians.items()},
        "failed": failed,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
