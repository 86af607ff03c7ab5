"""Write a small oracle of linear attention with its authors' own package (2006.16236).

`pytorch-fast-transformers` compiles itself when it is installed, so the tests read what it answered
once. Run this in an environment of its own, with a C++ compiler and without nvcc on the path:

    pip install torch==2.13.0 setuptools
    pip install --no-build-isolation pytorch-fast-transformers==0.4.0
    python tests/oracles/make_linear_attention.py [FILE]

FILE is `linear_attention.safetensors` beside this script unless given. One layer of random weights
(biases are 0, epsilons too), two rows of 11 tokens, the second with 7 real ones in `full`:

    x                     (2, 11, C) float64
    q, k, v, o            (H D, C), and (C, H D) for o: weights
    full, recurrent       (2, 11, C) float64: every token over all, and over those up to its own
    causal                (2, 11, C) float32: the same by the package's C++ product
    S, z                  (2, H, D, D) and (2, H, D): what the recurrent form carries at the end
    NAME.x, NAME.q, …     gradients of the sum of sin(NAME) over real tokens, for full and recurrent
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from fast_transformers.attention.causal_linear_attention import CausalLinearAttention
from fast_transformers.attention.linear_attention import LinearAttention
from fast_transformers.masking import FullMask, LengthMask, TriangularCausalMask
from fast_transformers.recurrent.attention.self_attention.linear_attention import (
    RecurrentLinearAttention,
)
from safetensors.torch import save_file
from torch import Tensor

WIDTH, HEADS, HEAD_DIM, LENGTH = 12, 3, 5, 11
LENGTHS = torch.tensor([11, 7])


def main(path: Path) -> None:
    """Asks the three forms and keeps what they answered."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        made = torch.randn(shape, generator=generator, dtype=torch.float64)
        return made.requires_grad_()

    inner = HEADS * HEAD_DIM
    x = draw(2, LENGTH, WIDTH)
    weights = {"q": draw(inner, WIDTH), "k": draw(inner, WIDTH), "v": draw(inner, WIDTH)}
    weights["o"] = draw(WIDTH, inner)
    every = LengthMask(torch.tensor([LENGTH, LENGTH]))

    def split(name: str) -> Tensor:
        return (x @ weights[name].mT).view(2, LENGTH, HEADS, HEAD_DIM)

    def joined(out: Tensor) -> Tensor:
        return out.reshape(2, LENGTH, inner).to(x.dtype) @ weights["o"].mT

    q, k, v = split("q"), split("k"), split("v")
    answers = {}
    full = LinearAttention(HEAD_DIM, eps=0.0)
    real = LengthMask(LENGTHS)
    answers["full"] = joined(full(q, k, v, FullMask(LENGTH), every, real))
    recurrent, state, steps = RecurrentLinearAttention(HEAD_DIM, eps=0.0), None, []
    for t in range(LENGTH):
        step, state = recurrent(q[:, t], k[:, t], v[:, t], state)
        steps.append(step)
    answers["recurrent"] = joined(torch.stack(steps, 1))
    causal = CausalLinearAttention(HEAD_DIM, eps=0.0)
    single = causal(q.float(), k.float(), v.float(), TriangularCausalMask(LENGTH), every, every)
    answers["causal"] = joined(single).float()

    kept = {"x": x, **weights, **answers, "S": state[0], "z": state[1]}
    leaves = {"x": x, **weights}
    counted = {"full": real.bool_matrix, "recurrent": every.bool_matrix}
    for form, mask in counted.items():
        loss = answers[form].sin().sum(-1)[mask].sum()
        gradients = torch.autograd.grad(loss, list(leaves.values()), retain_graph=True)
        kept |= {f"{form}.{n}": g for n, g in zip(leaves, gradients, strict=True)}
    save_file({name: tensor.detach().contiguous() for name, tensor in kept.items()}, path)


if __name__ == "__main__":
    beside = Path(__file__).with_name("linear_attention.safetensors")
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else beside)
