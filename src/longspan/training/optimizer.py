"""AdamW (1711.05101) or Muon (2502.16982) with warm-up and decay, and float32 weights behind a
bfloat16 model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from longspan.errors import CheckpointError
from longspan.training.config import TrainConfig


def learning_rate(config: TrainConfig, step: int) -> float:
    """Rate of update `step` (0 is the first): linear warm-up, then what `config.schedule` says."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    if config.schedule == "inverse_sqrt":
        # 1706.03762, equation 3, whose highest rate is reached when the warm-up ends
        return config.learning_rate * (max(1, config.warmup) / (step + 1)) ** 0.5
    span = max(1, config.steps - config.warmup)
    done = min(1.0, (step - config.warmup + 1) / span)
    share = config.final + (1 - config.final) * 0.5 * (1 + math.cos(math.pi * done))
    return config.learning_rate * share


class Optimizer:
    """Holds the weights that learn.

    Where the model computes in bfloat16, an update would often be smaller than half the distance
    to the next number and be lost; so the optimizer keeps float32 weights and gives the model
    rounded copies after every update.

    With optimizer "muon" the matrices of linear maps take orthogonalised steps, as long as AdamW's
    would be, so that rate and decay mean the same; tables, biases and norms stay with AdamW.

    Beside the weights it may hold their moving average (1412.6980, section 7.2), which is what is
    evaluated and kept: the model that training gives.
    """

    def __init__(self, model: nn.Module, config: TrainConfig, dtype: torch.dtype) -> None:
        self.config = config
        named = dict(model.named_parameters())
        self.mixed = dtype == torch.bfloat16
        if self.mixed:
            masters = {n: nn.Parameter(p.detach().float().clone()) for n, p in named.items()}
            model.to(dtype)
        else:
            model.to(dtype)
            masters = dict(model.named_parameters())
        self.copies = list(model.parameters())
        self.weights: dict[str, nn.Parameter] = masters
        linear = {f"{n}.weight" for n, m in model.named_modules() if isinstance(m, nn.Linear)}
        apart = linear if config.optimizer == "muon" else set()
        rest = [p for n, p in masters.items() if n not in apart]
        adamw = torch.optim.AdamW(
            [
                {"params": [p for p in rest if p.dim() >= 2], "weight_decay": config.weight_decay},
                {"params": [p for p in rest if p.dim() < 2], "weight_decay": 0.0},
            ],
            lr=config.learning_rate,
            betas=config.betas,
            fused=True,
        )
        self.average: dict[str, Tensor] = {}
        if config.average:
            self.average = {n: w.detach().clone() for n, w in masters.items()}
        self.parts: list[torch.optim.Optimizer] = [adamw]
        if apart:
            muon = torch.optim.Muon(
                [p for n, p in masters.items() if n in apart],
                lr=config.learning_rate,
                weight_decay=config.weight_decay,
                adjust_lr_fn="match_rms_adamw",
            )
            self.parts.append(muon)

    def gather(self) -> None:
        """Adds the model's gradients to those of the weights."""
        if not self.mixed:
            return
        for weight, copy in zip(self.weights.values(), self.copies, strict=True):
            if copy.grad is None:
                continue
            if weight.grad is None:
                weight.grad = copy.grad.float()
            else:
                weight.grad += copy.grad
            copy.grad = None

    def clip(self) -> Tensor:
        """Scales the gradient to at most `clip` and gives its norm before, a scalar."""
        return nn.utils.clip_grad_norm_(self.weights.values(), self.config.clip)

    def step(self, number: int) -> None:
        """Update `number` (0 is the first)."""
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = learning_rate(self.config, number)
            part.step()
            part.zero_grad(set_to_none=True)
        if self.average:
            # a short past at first: what it began with is noise
            share = min(self.config.average, (1 + number) / (10 + number))
            weights = [weight.detach() for weight in self.weights.values()]
            torch._foreach_lerp_(list(self.average.values()), weights, 1 - share)
        self.publish()

    @torch.no_grad()
    def publish(self) -> None:
        """Gives the model the weights in its own dtype."""
        if self.mixed:
            for copy, weight in zip(self.copies, self.weights.values(), strict=True):
                copy.copy_(weight)

    @property
    def model(self) -> dict[str, Tensor]:
        """The weights of the model that training gives: the average, or those of the last step."""
        return self.average or {name: weight.detach() for name, weight in self.weights.items()}

    @contextmanager
    @torch.no_grad()
    def averaged(self) -> Iterator[None]:
        """Gives the model the average for a while."""
        if not self.average:
            yield
            return
        before = [copy.detach().clone() for copy in self.copies]
        for copy, mean in zip(self.copies, self.average.values(), strict=True):
            copy.copy_(mean)
        try:
            yield
        finally:
            for copy, old in zip(self.copies, before, strict=True):
                copy.copy_(old)

    def tensors(self) -> dict[str, Tensor]:
        """What the optimizer remembers of each weight, `NAME.exp_avg` and so on.

        Where the average is the model, the weights themselves are among it, `NAME.weight`.
        """
        remembered = {
            f"{name}.{key}": value
            for part, name, weight in self._each()
            for key, value in part.state.get(weight, {}).items()
        }
        if self.average:
            remembered |= {f"{n}.weight": w.detach() for n, w in self.weights.items()}
        return remembered

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Takes back what `tensors` gave.

        Raises:
            CheckpointError: a tensor is missing or of another shape.
        """
        for part, name, weight in self._each():
            part.state[weight] = _held(part, name, weight, tensors)
            if self.average:
                _take(weight, f"{name}.weight", tensors)
        self.publish()

    def _each(self) -> Iterator[tuple[torch.optim.Optimizer, str, Tensor]]:
        """Every weight by name, with the part that moves it."""
        names = {id(weight): name for name, weight in self.weights.items()}
        for part in self.parts:
            for group in part.param_groups:
                yield from ((part, names[id(weight)], weight) for weight in group["params"])


def _held(
    part: torch.optim.Optimizer, name: str, weight: Tensor, tensors: dict[str, Tensor]
) -> dict[str, Tensor]:
    shapes = {"momentum_buffer": weight.shape}
    if isinstance(part, torch.optim.AdamW):
        shapes = {"step": torch.Size(), "exp_avg": weight.shape, "exp_avg_sq": weight.shape}
    if not any(f"{name}.{key}" in tensors for key in shapes):
        # it has had no gradient yet: a cluster of the output that has not occurred
        return {}
    for key, shape in shapes.items():
        held = tensors.get(f"{name}.{key}")
        if held is None or held.shape != shape:
            what = "is missing" if held is None else f"is {tuple(held.shape)}"
            raise CheckpointError(f"{name}.{key} {what}, not {tuple(shape)}")
    # clones: the numbers of a file need not be aligned as those of the unbroken run are
    return {key: tensors[f"{name}.{key}"].clone() for key in shapes}


@torch.no_grad()
def _take(weight: Tensor, name: str, tensors: dict[str, Tensor]) -> None:
    held = tensors.get(name)
    if held is None or held.shape != weight.shape:
        what = "is missing" if held is None else f"is {tuple(held.shape)}"
        raise CheckpointError(f"{name} {what}, not {tuple(weight.shape)}")
    weight.copy_(held)
