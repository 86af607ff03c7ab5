"""Our Transformer-XL against a naive one, written from the paper (`tests/naive.py`)."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from longspan import XL, Decoder, DecoderConfig, Recent, Segments
from longspan.kernels.reference import Reference
from longspan.models.vocabulary import VocabularyConfig
from tests.contracts.samples import decoder, tokens
from tests.naive import Naive

SEGMENT, MEMORY, LENGTH = 4, 6, 12

POST = DecoderConfig(
    width=8,
    layers=2,
    heads=2,
    head_dim=3,
    feed_forward=9,
    position=XL(),
    pattern=Segments(SEGMENT, MEMORY),
    memory=Recent(MEMORY),
    kernel=Reference(),
    placement="post",
    final_norm=False,
    activation="relu",
)
MODELS = {
    "the paper's": POST,
    "short memory, rows of its own for the output": replace(
        POST,
        pattern=Segments(SEGMENT, 2),
        memory=Recent(2),
        vocabulary=VocabularyConfig(tied=False),
    ),
    "no memory": replace(POST, pattern=Segments(SEGMENT, 0), memory=Recent(0)),
    "one u and v for all layers": replace(POST, position=XL(shared=True)),
    "clamped": replace(POST, position=XL(clamp=3)),
    "norms first": replace(POST, placement="pre", final_norm=True),
}
every = pytest.mark.parametrize("config", MODELS.values(), ids=MODELS)


def naive(config: DecoderConfig) -> Naive:
    return Naive(
        layers=config.layers,
        heads=config.heads,
        width=config.width,
        segment=config.pattern.segment,
        memory=config.pattern.reach or 0,
        clamp=config.position.clamp if isinstance(config.position, XL) else None,
        pre_norm=config.placement == "pre",
    )


def leaves(model: Decoder) -> dict[str, Tensor]:
    """A copy of each parameter under all of its names: tied ones stay one tensor."""
    copies = {id(p): p.detach().clone().requires_grad_() for p in model.parameters()}
    named = model.named_parameters(remove_duplicate=False)
    return {name: copies[id(p)] for name, p in named}


@every
def test_logits(config: DecoderConfig) -> None:
    model, inputs = decoder(config), tokens(2, LENGTH + 2)
    weights = model.state_dict()
    with torch.no_grad():
        logits, _ = model(inputs)
        expected = [naive(config).logits(weights, row) for row in inputs.tolist()]
    torch.testing.assert_close(logits, torch.stack(expected), atol=1e-10, rtol=0)


@every
def test_gradient_of_training_over_three_segments(config: DecoderConfig) -> None:
    """The gradient stops at the memory, but reaches the projections that read it today."""
    model, inputs, targets = decoder(config).train(), tokens(2, LENGTH), tokens(2, LENGTH, seed=2)
    state, loss = None, torch.zeros((), dtype=torch.float64)
    for piece, wanted in zip(inputs.split(SEGMENT, 1), targets.split(SEGMENT, 1), strict=True):
        logits, state = model(piece, state)
        loss = loss + torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), wanted.flatten(), reduction="sum"
        )
        state = state.detach()
    loss.backward()

    weights, total = leaves(model), torch.zeros((), dtype=torch.float64)
    for row, wanted in zip(inputs.tolist(), targets.tolist(), strict=True):
        logits = naive(config).trained(weights, row)
        for scores, target in zip(logits, wanted, strict=True):
            total = total - scores.log_softmax(0)[target]
    total.backward()

    torch.testing.assert_close(loss, total, atol=1e-9, rtol=0)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        torch.testing.assert_close(parameter.grad, weights[name].grad, atol=1e-9, rtol=0, msg=name)


def test_stopping_the_gradient_at_the_memory_matters() -> None:
    """So the test above can tell: with the gradient through the memory it would fail."""
    weights = leaves(decoder(POST))
    row = tokens(1, LENGTH)[0].tolist()
    gradients = []
    for answer in (naive(POST).trained, naive(POST).logits):
        (gradient,) = torch.autograd.grad(
            answer(weights, row).square().sum(), weights["layers.0.mixer.v.weight"]
        )
        gradients.append(gradient)
    assert (gradients[0] - gradients[1]).abs().max() > 1e-3
