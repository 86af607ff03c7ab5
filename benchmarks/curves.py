"""Time and peak memory against length, of every pattern and mixer: measured, fitted, drawn.

    python benchmarks/curves.py run
    python benchmarks/curves.py show

One layer of width 128 with four heads of 32, one row, float32, forward and backward over one call
from an empty state; each length in a process of its own, so that memory is the layer's. Dense ones
are measured from 2,048 to 16,384 tokens, the others from 8,192 to 65,536. The allocator keeps what
it was given (glibc would hand tensors of 32 MiB and more back, and their pages be made anew in
every round). Writes `benchmarks/curves.json`; `show` prints the table and draws `docs/curves.png`.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from longspan.config import build
from longspan.machine import hardware, versions
from longspan.measure.crossover import built, timed
from longspan.models.stack import StackConfig

HERE = Path(__file__).parent
RESULTS = HERE / "curves.json"
DENSE = (2048, 4096, 8192, 16384)
LONG = (8192, 16384, 32768, 65536)
SHORT = (256, 512, 1024, 2048, 4096)
"""Beside the others, to find where the lines cross."""
KEEPS = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**40), "MALLOC_TRIM_THRESHOLD_": str(2**40)}
"""Surroundings of a process that keeps the memory that it was given."""


def pattern(name: str, **settings: Any) -> Callable[[int], dict[str, Any]]:
    """Softmax attention under a pattern; a setting may depend on the length."""

    def at(length: int) -> dict[str, Any]:
        given = {k: v(length) if callable(v) else v for k, v in settings.items()}
        return {"pattern": {"name": name, **given}, "exact": False}

    return at


def mixer(name: str, both_ways: bool = False, **settings: Any) -> Callable[[int], dict[str, Any]]:
    """A mixer with a state of its own, or an encoder's."""

    def at(length: int) -> dict[str, Any]:
        given = {k: v(length) if callable(v) else v for k, v in settings.items()}
        direction = {"pattern": "full"} if both_ways else {}
        return {"mixer": {"name": name, **given}, **direction}

    return at


def root(length: int) -> int:
    """√n, the stride with which the Sparse Transformer's cost is n √n."""
    return math.isqrt(length)


DENSE_CASES = {"causal": pattern("causal"), "full": pattern("full")}
CASES: dict[str, Callable[[int], dict[str, Any]]] = {
    **DENSE_CASES,
    "segments": pattern("segments", length=256, memory=256),
    "window": pattern("window", width=256),
    "window, dilated": pattern("window", width=256, dilation=2),
    "sinks": pattern("sinks", width=256),
    "blocks": pattern("blocks", length=256),
    "longformer": pattern("longformer", width=256, positions=[0]),
    "bigbird": pattern("bigbird", block=64),
    "strided": pattern("strided", stride=root),
    "fixed": pattern("fixed", length=root),
    "linear": mixer("linear"),
    "favor": mixer("favor", features=64),
    "linformer": mixer("linformer", both_ways=True, length=lambda n: n, rank=256),
    "nystrom": mixer("nystrom", both_ways=True, landmarks=64),
    "rnn": mixer("rnn"),
    "lstm": mixer("lstm"),
    "gru": mixer("gru"),
    "convolution": mixer("convolution"),
}


def one(name: str, length: int, rounds: int) -> dict[str, float]:
    """Seconds (the median) and peak bytes of one case at one length."""
    sizes = {"width": 128, "layers": 1, "heads": 4, "feed_forward": 128}
    config = build(StackConfig, {**sizes, **CASES[name](length)}, name)
    mixing = built(config.mixers()[0], config.layer(0), torch.float32)
    timed(mixing, 128)
    mixing.zero_grad()
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = resident("VmRSS")
    first = timed(mixing, length)
    peak = resident("VmHWM") - before
    again = [timed(mixing, length) for _ in range(rounds - 1 if first < 20 else 0)]
    times = again or [first]
    spread = {"lowest": min(times), "highest": max(times)}
    return {"seconds": statistics.median(times), "bytes": peak, **spread}


def resident(field: str) -> int:
    """Bytes of this process in memory: now (VmRSS), or at most since the mark was reset (VmHWM)."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"/proc/self/status has no {field}")


def run(names: list[str], rounds: int, threads: int) -> None:
    """Measures every case at every length, one process each."""
    known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    cases = known.get("cases", {})
    for name in names or CASES:
        own = SHORT + (DENSE[2:] if name in DENSE_CASES else LONG)
        cases[name] = {}
        for length in sorted({*own, *(DENSE if name in DENSE_CASES else ())}):
            command = [sys.executable, __file__, "one", name, "--length", str(length)]
            command += ["--rounds", str(rounds), "--threads", str(threads)]
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=KEEPS)
            if done.returncode:
                said = done.stderr.strip().splitlines()
                print(f"{name} at {length:,}: {said[-1] if said else done.returncode}", flush=True)
                break
            cases[name][str(length)] = json.loads(done.stdout.splitlines()[-1])
            print(f"{name} at {length:,}: {done.stdout.splitlines()[-1]}", flush=True)
        about = {"hardware": hardware(torch.device("cpu")), "versions": versions()}
        result = {"about": about, "threads": threads, "rounds": rounds, "cases": cases}
        RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def exponent(points: dict[int, float]) -> float:
    """Slope of the least-squares line through the logarithms."""
    x = [math.log(length) for length in points]
    y = [math.log(value) for value in points.values()]
    return statistics.linear_regression(x, y).slope


def crossing(plain: dict[int, float], own: dict[int, float]) -> str:
    """Length from which on `own` is the faster one, on the straight lines between lengths."""
    both = [(n, math.log(own[n] / plain[n])) for n in sorted(set(plain) & set(own))]
    if not both or both[-1][1] >= 0:
        return "not reached"
    for (low, above), (high, below) in zip(both[-2::-1], both[:0:-1], strict=True):
        if above >= 0:
            share = above / (above - below)
            return f"{round(math.exp(math.log(low) + share * math.log(high / low))):,}"
    return f"below {both[0][0]:,}"


def show() -> None:
    """Prints the table and draws the curves."""
    from matplotlib.figure import Figure

    result = json.loads(RESULTS.read_text(encoding="utf-8"))
    cases = result["cases"]
    about = result["about"]
    print(f"{about['hardware']}, {result['threads']} threads, torch {about['versions']['torch']}\n")
    print("| | time ~ n^ | memory ~ n^ | at the longest | faster than causal from |")
    print("|---|--:|--:|--:|--:|")
    figure = Figure((11, 5), layout="constrained")
    panels = figure.subplots(1, 2)
    plain = {int(n): v["seconds"] for n, v in cases["causal"].items()}
    for number, (name, lengths) in enumerate(cases.items()):
        fitted = DENSE if name in DENSE_CASES else LONG
        own = {int(n): v["seconds"] for n, v in lengths.items()}
        memory = {int(n): v["bytes"] for n, v in lengths.items()}
        if not set(fitted) <= set(own):
            print(f"| {name} | unmeasured | | | |")
            continue
        time_slope = exponent({n: own[n] for n in fitted})
        memory_slope = exponent({n: memory[n] for n in fitted})
        last = max(own)
        cross = "" if name in DENSE_CASES else crossing(plain, own)
        print(
            f"| {name} | {time_slope:.2f} | {memory_slope:.2f} | {last:,}: {own[last]:.2f} s, "
            f"{memory[last] / 2**20:,.0f} MiB | {cross} |"
        )
        style = ("-", "--", ":")[number // 10 % 3]
        for axes, values in zip(panels, (own, memory), strict=True):
            axes.loglog(list(values), list(values.values()), style, marker=".", label=name)
    panels[0].set(xlabel="tokens in a call", ylabel="seconds, forward and backward")
    panels[1].set(xlabel="tokens in a call", ylabel="peak memory, bytes")
    panels[1].legend(fontsize=7, ncols=2, handlelength=3.5)
    for axes in panels:
        axes.grid(alpha=0.3)
    figure.savefig(HERE.parent / "docs" / "curves.png", dpi=120)


def main() -> None:
    """Measures, or shows what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("verb", choices=("run", "show", "one"))
    parser.add_argument("cases", nargs="*")
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.verb == "run":
        run(options.cases, options.rounds, options.threads)
    elif options.verb == "show":
        show()
    else:
        print(json.dumps(one(options.cases[0], options.length, options.rounds)))


if __name__ == "__main__":
    main()
