"""Times the kernels on one layer's attention, forward and backward: what `auto` chooses by.

    python benchmarks/kernels.py --threads 2

For each shape, dtype and position it alternates the kernels and prints the median seconds of a
call; the fastest is marked, and what `auto` takes.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from rich.console import Console
from rich.table import Table

from longspan import XL, Alibi, Attention, Recent, Rotary, Segments
from longspan.kernels.auto import choose
from longspan.machine import hardware
from longspan.slots import Kernel, Position

SHAPES = [(2, 512, 512, 8, 64), (8, 256, 256, 4, 64), (1, 512, 512, 8, 64), (1, 1, 1023, 8, 64)]
NAMES = ("reference", "blocked", "sdpa")


def main() -> None:
    """Times every case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    table = Table(title=f"milliseconds a call; {hardware(torch.device('cpu'))}")
    for column in ("B, T, M, H, D", "dtype", "position", "gradient", *NAMES, "auto"):
        table.add_column(column)
    positions: list[Position] = [XL(), Rotary(), Alibi()]
    for shape in SHAPES:
        for dtype in (torch.float32, torch.bfloat16):
            for position in positions:
                for training in (True, False):
                    if training and shape[1] == 1:
                        continue
                    times = measure(shape, dtype, position, training, options.repeat)
                    best = min(times, key=lambda name: times[name])
                    cells = [
                        f"[bold]{times[n]:.1f}[/bold]" if n == best else f"{times[n]:.1f}"
                        for n in NAMES
                    ]
                    query = torch.empty(shape[0], shape[3], shape[1], shape[4], dtype=dtype)
                    table.add_row(
                        ", ".join(map(str, shape)),
                        str(dtype).removeprefix("torch."),
                        position.name,
                        "yes" if training else "no",
                        *cells,
                        choose(query, whole=False, biased=position.name != "rotary"),
                    )
    Console(width=120).print(table)


def measure(
    shape: tuple[int, ...], dtype: torch.dtype, position: Position, training: bool, repeat: int
) -> dict[str, float]:
    """Median milliseconds of each kernel, in turn, on one layer with a full memory."""
    b, t, m, h, d = shape
    torch.manual_seed(0)
    layers = {}
    for name in NAMES:
        layer = Attention(
            h * d,
            h,
            head_dim=d,
            position=position,
            pattern=Segments(max(t, 2), m),
            memory=Recent(m),
            kernel=Kernel.find(name)(),
        )
        layers[name] = layer.to(dtype).train(training)
    x = torch.randn(b, m + t, h * d, dtype=dtype)
    times: dict[str, list[float]] = {name: [] for name in NAMES}
    with torch.set_grad_enabled(training):
        states = {name: layers[name](x[:, :m])[1].detach() for name in NAMES}
        for _ in range(repeat + 2):
            for name in NAMES:
                begun = time.perf_counter()
                y, _ = layers[name](x[:, m:], states[name])
                if training:
                    y.sum().backward()
                times[name].append(1000 * (time.perf_counter() - begun))
    return {name: statistics.median(values[2:]) for name, values in times.items()}


if __name__ == "__main__":
    main()
