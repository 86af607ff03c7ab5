"""Why attention: how gradients reach back, and how speed depends on length.

    python benchmarks/gradients.py reach --runs runs/recall
    python benchmarks/gradients.py speed
    python benchmarks/gradients.py draw

`reach`: the norm of the gradient of one late loss with respect to the input of every layer, by
distance, of the models of `benchmarks/recall.py`: as they begin, as they begin with recurrent
weights that are four times as large, and as they are trained. `speed`: training tokens a second
against the length of a call, 8,192 tokens an update. Both write
`benchmarks/gradients.json`; `draw` makes `docs/gradients.png` of it.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from recall import VOCABULARY, episodes, equal
from safetensors.torch import load_model
from torch import Tensor
from torch.nn.functional import cross_entropy

from longspan import Decoder
from longspan.machine import hardware, versions

HERE = Path(__file__).parent
RESULTS = HERE / "gradients.json"
MODELS = ("rnn", "lstm", "gru", "everything")
NAMES = {"everything": "Transformer"}
ROWS, LENGTH = 16, 256
GAIN = 4.0
LENGTHS = (64, 128, 256, 512, 1024, 2048, 4096)


def influence(model: Decoder) -> list[list[float | None]]:
    """Mean norm of d loss / d input at each distance (0 … 255) of each layer, first layer first.

    None where it is more than float32 holds.
    """
    model.eval()
    inputs: list[Tensor] = []

    def keep(module: torch.nn.Module, given: tuple[Any, ...]) -> None:
        given[0].retain_grad()
        inputs.append(given[0])

    hooks = [block.register_forward_pre_hook(keep) for block in model.blocks()]
    tokens, _ = episodes("copy", LENGTH, ROWS, torch.Generator().manual_seed(5))
    tokens = tokens[:, -LENGTH - 1 :]
    logits, _ = model(tokens[:, :-1])
    cross_entropy(logits[:, -1], tokens[:, -1], reduction="sum").backward()
    for hook in hooks:
        hook.remove()
    grads = [x.grad for x in inputs]
    assert all(grad is not None for grad in grads)
    norms = [grad.norm(dim=2).mean(0).flip(0).tolist() for grad in grads if grad is not None]
    return [[float(f"{n:.3g}") if math.isfinite(n) else None for n in layer] for layer in norms]


def reach(runs: Path) -> dict[str, Any]:
    """The influence in every model: fresh, with large recurrent weights, and trained."""
    result: dict[str, Any] = {}
    for name in MODELS:
        torch.manual_seed(1)
        model = Decoder(equal(name), VOCABULARY)
        result[name] = {"fresh": influence(model)}
        with torch.no_grad():
            for weight in (p for n, p in model.named_parameters() if "weight_hh" in n):
                weight.mul_(GAIN)
        result[name]["large"] = influence(model)
        path = runs / f"{name}.safetensors"
        if path.is_file():
            load_model(model, str(path))
            result[name]["trained"] = influence(model)
        else:
            print(f"{path} is not there: {name} unmeasured as trained")
    return result


def speed(rounds: int) -> dict[str, Any]:
    """Tokens a second of training, 8,192 tokens an update, by the length of a call."""
    result: dict[str, Any] = {}
    for name in MODELS:
        result[name] = {}
        for length in LENGTHS:
            torch.manual_seed(1)
            model = Decoder(equal(name), VOCABULARY).train()
            rows = max(1, 8192 // length)
            tokens = torch.randint(VOCABULARY, (rows, length + 1))
            times = []
            for _ in range(rounds + 1):
                begun = time.perf_counter()
                logits, _ = model(tokens[:, :-1])
                cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
                model.zero_grad()
                times.append(time.perf_counter() - begun)
            each = [rows * length / t for t in times[1:]]
            result[name][length] = {
                "median": statistics.median(each),
                "lowest": min(each),
                "highest": max(each),
            }
            print(name, length, round(result[name][length]["median"]), flush=True)
    return result


def draw() -> None:
    """The picture: influence by distance, fresh and trained, and speed by length."""
    from matplotlib.figure import Figure

    result = json.loads(RESULTS.read_text(encoding="utf-8"))
    figure = Figure((12, 8), layout="constrained")
    panels = figure.subplots(2, 3)
    shown = (
        (panels[0][0], "fresh", 0, "fresh"),
        (panels[0][1], "fresh", 3, "fresh"),
        (panels[1][0], "trained", 0, "trained"),
        (panels[1][1], "trained", 3, "trained"),
        (panels[1][2], "large", 0, f"recurrent weights x {GAIN:g}"),
    )
    for axes, which, layer, said in shown:
        for name in MODELS:
            norms = result["reach"].get(name, {}).get(which)
            if norms is not None:
                values = [math.nan if norm is None else norm for norm in norms[layer]]
                axes.semilogy(values, label=NAMES.get(name, name), linewidth=1)
        axes.set(
            title=f"{said}: input of layer {layer + 1} of 4",
            xlabel="distance from the loss, tokens",
            ylabel="norm of d loss / d input",
        )
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    axes = panels[0][2]
    for name in MODELS:
        rates = result.get("speed", {}).get(name, {})
        axes.loglog(
            [int(n) for n in rates],
            [v["median"] for v in rates.values()],
            marker=".",
            label=NAMES.get(name, name),
        )
    axes.set(
        title="training, 8,192 tokens an update",
        xlabel="tokens in a call",
        ylabel="tokens a second",
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(HERE.parent / "docs" / "gradients.png", dpi=120)


def main() -> None:
    """Measures, or draws what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("verb", choices=("reach", "speed", "draw"))
    parser.add_argument("--runs", type=Path, default=Path("runs/recall"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.verb == "draw":
        draw()
        return
    known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    known["about"] = {"hardware": hardware(torch.device("cpu")), "versions": versions()}
    if options.verb == "speed":
        known["threads"] = options.threads
    known[options.verb] = reach(options.runs) if options.verb == "reach" else speed(options.rounds)
    RESULTS.write_text(json.dumps(known) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
