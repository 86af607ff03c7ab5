"""The matrix products of one Transformer-XL training step, and nothing else: the ceiling.

Six layers of width 512, 8 heads of 64, feed-forward 2048, batch 2, segment 512, memory 512, 256
symbols, all in bfloat16. No softmax, norm, loss, optimizer or copy: an implementation that forms
every score cannot be faster than this on the same machine unless its products are.

What a step has to multiply, forward once and backward twice (for the left operand and for the
right one), except that nobody needs the gradient of the stored memory or of the sinusoids. Nothing
is skipped for causality: the scores of the segment and of the distances are full rectangles.

Operands are independent of each other, so each product may have the layout (either operand
transposed, either product order, batched or in a loop) that is measured to be fastest here.
Prints one line of JSON. Environment: torch alone, as in `x.txt`.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from functools import cache, partial
from itertools import product

import torch

BATCH, SEGMENT, MEMORY, SYMBOLS = 2, 512, 512, 256
LAYERS, WIDTH, HEADS, HEAD, INNER = 6, 512, 8, 64, 2048

Shape = tuple[int, int, int, int]  # (batch, m, k, n): batch products of (m, k) by (k, n)


def products() -> list[Shape]:
    """All products of one step."""
    rows, keys = BATCH * SEGMENT, SEGMENT + MEMORY
    layer: list[Shape] = []

    def weight(rows: int, into: int, out: int, learnt_rows: int) -> None:
        """`learnt_rows` of the rows pass a gradient on to what is below."""
        layer.append((1, rows, into, out))
        layer.append((1, into, rows, out))
        if learnt_rows:
            layer.append((1, learnt_rows, out, into))

    def pair(batch: int, m: int, k: int, n: int) -> None:
        layer.extend([(batch, m, k, n), (batch, m, n, k), (batch, k, m, n)])

    weight(rows, WIDTH, HEADS * HEAD, rows)  # queries
    weight(BATCH * keys, WIDTH, 2 * HEADS * HEAD, rows)  # keys and values, the memory's too
    weight(keys, WIDTH, HEADS * HEAD, 0)  # distances
    weight(rows, HEADS * HEAD, WIDTH, rows)  # output
    weight(rows, WIDTH, INNER, rows)
    weight(rows, INNER, WIDTH, rows)
    pair(BATCH * HEADS, SEGMENT, HEAD, keys)  # queries by keys
    pair(HEADS, rows, HEAD, keys)  # queries by distances: these are the same for the whole batch
    pair(BATCH * HEADS, SEGMENT, keys, HEAD)  # probabilities by values
    head = [(1, rows, WIDTH, SYMBOLS), (1, WIDTH, rows, SYMBOLS), (1, rows, SYMBOLS, WIDTH)]
    return layer * LAYERS + head


def operand(batch: int, rows: int, columns: int, transposed: bool) -> torch.Tensor:
    if transposed:
        return operand(batch, columns, rows, False).transpose(1, 2)
    return torch.randn(batch, rows, columns).bfloat16()


def ways(shape: Shape) -> list[Callable[[], Callable[[], object]]]:
    """Makers of a call that computes this product once, a maker for each way to do it."""
    batch, m, k, n = shape

    def maker(a_transposed: bool, b_transposed: bool, swapped: bool, loop: bool):
        a, b = operand(batch, m, k, a_transposed), operand(batch, k, n, b_transposed)
        if swapped:
            a, b = b.transpose(1, 2), a.transpose(1, 2)
        out = torch.empty(batch, a.size(1), b.size(2), dtype=a.dtype)
        if not loop:
            return partial(torch.bmm, a, b, out=out)
        each = [partial(torch.mm, *one[:2], out=one[2]) for one in zip(a, b, out, strict=True)]
        return each[0] if batch == 1 else lambda: [call() for call in each]

    loops = [True] if batch == 1 else [False, True]
    return [partial(maker, *way) for way in product(*[(False, True)] * 3, loops)]


def seconds_of(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


@cache
def fastest_way(shape: Shape) -> Callable[[], Callable[[], object]]:
    def cost(make: Callable[[], Callable[[], object]]) -> float:
        call = make()
        call()
        return min(seconds_of(call) for _ in range(5))

    return min(ways(shape), key=cost)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)

    shapes = products()
    # Operands of their own for each product: shared ones would stay in the processor's caches.
    calls = [fastest_way(shape)() for shape in shapes]
    seconds = []
    for _ in range(arguments.warmup + arguments.steps):
        seconds.append(seconds_of(lambda: [call() for call in calls]))
    rates = [BATCH * SEGMENT / s for s in seconds[arguments.warmup :]]
    median = statistics.median(rates)
    work = sum(2 * math.prod(shape) for shape in shapes)
    report = {
        "name": "bare matrix products",
        "setting": "forward and backward products only, each in its fastest layout",
        "tokens_per_second": round(median, 1),
        "spread": [round(min(rates), 1), round(max(rates), 1)],
        "dtype": "bfloat16",
        "versions": {"torch": torch.__version__},
        "gflop_per_step": round(work / 1e9, 1),
        "gflop_per_second": round(work / 1e9 * median / (BATCH * SEGMENT), 1),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
