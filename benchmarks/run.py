"""Times longspan beside its peers: alternating runs, medians of ratios, the machine written down.

    python benchmarks/run.py --hf HF/bin/python --x X/bin/python --rounds 3

A peer whose environment is not given is left out and said to be unmeasured. Writes
`benchmarks/results.json` and prints a table.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from longspan.machine import hardware, versions

HERE = Path(__file__).parent


def main() -> None:
    """Runs every case `--rounds` times, in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hf", help="python of the environment of peers/hf.txt")
    parser.add_argument("--x", help="python of the environment of peers/x.txt")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    ours = [str(HERE / "longspan_xl.py")]
    cases: dict[str, list[str] | None] = {
        "longspan, bfloat16": [sys.executable, *ours],
        "longspan, float32": [sys.executable, *ours, "--dtype", "float32"],
        "bare matrix products, bfloat16": [sys.executable, str(HERE / "peers/bare_products.py")],
    }
    hf = HERE / "peers/hf_transfo_xl.py"
    for setting in ("float32", "bf16 autocast", "bf16 autocast, compiled"):
        command = [options.hf, str(hf), "--setting", setting] if options.hf else None
        cases[f"transformers TransfoXL, {setting}"] = command
    peer = HERE / "peers/x_transformers_xl.py"
    cases["x-transformers, its fastest"] = [options.x, str(peer)] if options.x else None
    common = ["--steps", str(options.steps), "--warmup", str(options.warmup)]
    common += ["--threads", str(options.threads)]
    rounds: list[dict[str, Any]] = []
    for number in range(options.rounds):
        rounds.append({})
        for name, command in cases.items():
            if command is None:
                continue
            print(f"round {number + 1}: {name}", file=sys.stderr, flush=True)
            done = subprocess.run([*command, *common], capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"{name} failed:\n{done.stderr}")
            rounds[-1][name] = json.loads(done.stdout.splitlines()[-1])
    about = {"hardware": hardware(torch.device("cpu")), "versions": versions()}
    results = {"about": about, "threads": options.threads, "rounds": rounds}
    (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    show(rounds, list(cases), about)


def show(rounds: list[dict[str, Any]], names: list[str], about: dict[str, Any]) -> None:
    """Medians over the rounds, and the median of the ratios of each round."""
    table = Table(title=f"{about['hardware']}; torch {about['versions']['torch']}")
    for column in ("", "tokens/s", "lowest to highest step", "longspan bfloat16 is"):
        table.add_column(column, justify="left" if not column else "right")
    for name in names:
        if name not in rounds[0]:
            table.add_row(name, "unmeasured", "", "")
            continue
        speeds = [r[name]["tokens_per_second"] for r in rounds]
        low = min(r[name]["spread"][0] for r in rounds)
        high = max(r[name]["spread"][1] for r in rounds)
        mine = names[0]
        ratios = [r[mine]["tokens_per_second"] / r[name]["tokens_per_second"] for r in rounds]
        setting = rounds[0][name]["setting"] if "fastest" in name else ""
        table.add_row(
            name + (f" ({setting})" if setting else ""),
            f"{statistics.median(speeds):,.0f}",
            f"{low:,.0f} to {high:,.0f}",
            f"{statistics.median(ratios):.2f}x",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
