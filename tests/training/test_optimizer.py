"""AdamW and Muon as the formulas say, and float32 weights behind a bfloat16 model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from longspan.errors import CheckpointError
from longspan.training.config import TrainConfig
from longspan.training.optimizer import Optimizer, learning_rate

CONSTANT = {"steps": 100, "batch": 1, "learning_rate": 0.01, "warmup": 0, "final": 1.0}


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Parameter(torch.randn(7, 6))
        self.wide = nn.Linear(6, 9)
        self.tall = nn.Linear(9, 6, bias=False)
        self.norm = nn.LayerNorm(6)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.tall(self.wide(self.norm(self.table[tokens])))


def optimizer(model: nn.Module, dtype: torch.dtype = torch.float64, **changes: Any) -> Optimizer:
    return Optimizer(model, TrainConfig(**CONSTANT | changes), dtype)


def update(made: Optimizer, model: nn.Module, number: int) -> dict[str, Tensor]:
    """One step on a loss of its own; the gradients that the weights had."""
    generator = torch.Generator().manual_seed(number)
    model(torch.randint(0, 7, (4, 5), generator=generator)).square().sum().backward()
    made.gather()
    gradients = {n: w.grad.clone() for n, w in made.weights.items() if w.grad is not None}
    made.step(number)
    return gradients


def adamw(weight: Tensor, gradients: list[Tensor], decay: float) -> Tensor:
    """1711.05101, algorithm 2, with betas 0.9 and 0.95."""
    first, second = torch.zeros_like(weight), torch.zeros_like(weight)
    for count, gradient in enumerate(gradients, 1):
        first = 0.9 * first + 0.1 * gradient
        second = 0.95 * second + 0.05 * gradient**2
        root = (second / (1 - 0.95**count)).sqrt() + 1e-8
        weight = weight - 0.01 * (decay * weight + first / (1 - 0.9**count) / root)
    return weight


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_tables_biases_and_norms_follow_adamw(name: str) -> None:
    model = Model()
    made = optimizer(model, optimizer=name)
    begun = {n: w.detach().clone() for n, w in made.weights.items()}
    seen = [update(made, model, number) for number in range(4)]
    apart = {"wide.weight", "tall.weight"} if name == "muon" else set()
    for key in made.weights.keys() - apart:
        decay = 0.1 if begun[key].dim() > 1 else 0.0
        expected = adamw(begun[key], [gradients[key] for gradients in seen], decay)
        torch.testing.assert_close(made.weights[key].detach(), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("key", ["wide.weight", "tall.weight"])
def test_muon_steps_along_the_polar_factor_as_far_as_adamw_would(key: str) -> None:
    """2502.16982, equation 4: 0.2·√max(A, B) times the nearest orthogonal matrix, and decay.

    Newton and Schulz bring every singular value between 0.5 and 1.5, in bfloat16.
    """
    model = Model()
    made = optimizer(model, optimizer="muon")
    weight = made.weights[key]
    begun = weight.detach().clone()
    weight.grad = gradient = torch.randn(weight.shape, dtype=torch.float64)
    made.step(0)
    length = 0.01 * 0.2 * max(weight.shape) ** 0.5
    moved = (begun * (1 - 0.01 * 0.1) - weight.detach()) / length
    u, _, v = torch.linalg.svd(gradient, full_matrices=False)
    values = torch.diagonal(u.T @ moved @ v.T)
    assert ((values > 0.5) & (values < 1.5)).all()
    assert (moved - u @ torch.diag(values) @ v).abs().max() < 0.1


@pytest.mark.parametrize("name", ["adamw", "muon"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_it_remembers_is_all_that_it_needs(name: str, dtype: torch.dtype) -> None:
    model = Model()
    made = optimizer(model, dtype, optimizer=name)
    for number in range(3):
        update(made, model, number)
    held = {key: value.clone() for key, value in made.tensors().items()}
    weights = {key: value.detach().clone() for key, value in made.weights.items()}
    update(made, model, 3)

    other = Model()
    again = optimizer(other, dtype, optimizer=name)
    with torch.no_grad():
        for key, weight in again.weights.items():
            weight.copy_(weights[key])
    again.publish()
    again.restore(held)
    update(again, other, 3)
    for key, weight in made.weights.items():
        assert torch.equal(weight, again.weights[key]), key


def test_what_another_optimizer_remembered_is_refused() -> None:
    model = Model()
    made = optimizer(model)
    update(made, model, 0)
    held = made.tensors()
    del held["norm.bias.exp_avg"]
    with pytest.raises(CheckpointError, match=r"norm\.bias\.exp_avg is missing, not \(6,\)"):
        optimizer(Model()).restore(held)


def test_small_updates_are_not_lost_behind_bfloat16() -> None:
    model = Model()
    made = optimizer(model, torch.bfloat16, learning_rate=1e-5, weight_decay=0.0)
    begun = made.weights["table"].detach().clone()
    for number in range(20):
        update(made, model, number)
    moved = (made.weights["table"].detach() - begun).abs()
    assert model.table.dtype == torch.bfloat16
    assert 5e-5 < moved.max() < 3e-4
    assert torch.equal(model.table, made.weights["table"].bfloat16())


def test_the_rate_rises_and_falls_as_it_is_said_to() -> None:
    config = TrainConfig(steps=30, batch=1, learning_rate=2.0, warmup=10, final=0.25)
    rates = [learning_rate(config, step) for step in range(30)]
    assert rates[:10] == pytest.approx([0.2 * (step + 1) for step in range(10)])
    assert rates[19] == pytest.approx((2.0 + 0.5) / 2)
    assert rates[29] == pytest.approx(0.5)
    assert rates[10:] == sorted(rates[10:], reverse=True)
