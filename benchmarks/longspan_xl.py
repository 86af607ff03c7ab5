"""One training step of longspan's own Transformer-XL, the same as the peers' (`README.md`).

The real thing: the trainer's optimizer (float32 weights behind a bfloat16 model), clipping, AdamW,
memory carried from step to step. Prints one line of JSON, as the peers do.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch

from longspan import XL, Decoder, DecoderConfig, Recent, Segments
from longspan.machine import DTYPES, versions
from longspan.training.optimizer import Optimizer
from longspan.training.recipe import TrainConfig

BATCH, SEGMENT, MEMORY, SYMBOLS = 2, 512, 512, 256


def main() -> None:
    """Times `--steps` steps after `--warmup`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    config = DecoderConfig(
        width=512,
        layers=6,
        heads=8,
        feed_forward=2048,
        position=XL(),
        pattern=Segments(SEGMENT, MEMORY),
        memory=Recent(MEMORY),
    )
    model = Decoder(config, SYMBOLS)
    train = TrainConfig(steps=10_000, batch=BATCH)
    optimizer = Optimizer(model, train, DTYPES[options.dtype])
    model.train()
    state, speeds = None, []
    for step in range(options.warmup + options.steps):
        tokens = torch.randint(0, SYMBOLS, (BATCH, SEGMENT + 1))
        begun = time.perf_counter()
        h, state = model.hidden(tokens[:, :-1], state)
        state = state.detach()
        model.head.nll(h.flatten(0, 1), tokens[:, 1:].flatten()).mean().backward()
        optimizer.gather()
        optimizer.clip()
        optimizer.step(step)
        if step >= options.warmup:
            speeds.append(BATCH * SEGMENT / (time.perf_counter() - begun))
    result = {
        "name": "longspan",
        "setting": "xl, segments, recent, kernel auto",
        "tokens_per_second": round(statistics.median(speeds), 1),
        "spread": [round(min(speeds), 1), round(max(speeds), 1)],
        "dtype": f"float32 weights, {options.dtype} model",
        "versions": versions(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
