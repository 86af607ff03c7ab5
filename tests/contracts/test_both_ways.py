"""What every position and every pattern that looks both ways must hold in an encoder."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor, nn

from longspan import Encoder, EncoderConfig, tiles
from tests.contracts.samples import PATTERNS, POSITIONS, VOCABULARY, tokens

EXACT = {"atol": 1e-10, "rtol": 0.0}
CONFIGS = [
    EncoderConfig(
        width=10, layers=2, heads=3, head_dim=4, feed_forward=12, position=position, pattern=pattern
    )
    for position, pattern in product(POSITIONS, [p for p in PATTERNS if not p.causal])
]
every = pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.position.name}-{c.pattern!r}")


def encoder(config: EncoderConfig) -> Encoder:
    torch.manual_seed(0)
    model = Encoder(config, VOCABULARY).double().train()
    for name, parameter in model.named_parameters():
        scale = 0.1 if "norm" in name else 0.4
        nn.init.normal_(parameter, 1.0 if name.endswith("norm.weight") else 0.0, scale)
    return model


def gradients(model: Encoder) -> dict[str, Tensor]:
    result = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return result


@every
def test_a_document_is_as_if_read_alone(
    config: EncoderConfig, request: pytest.FixtureRequest
) -> None:
    """Padded, beside others, behind another; whole, and in tiles: output and gradient."""
    model, inputs = encoder(config), tokens(3, 34)
    valid = torch.arange(34) < torch.tensor([34, 27, 0])[:, None]
    starts = torch.zeros(3, 34, dtype=torch.bool)
    starts[0, 21] = True
    alone = [(0, 0, 21), (0, 21, 34), (1, 0, 27)]
    whole = model(inputs, valid=valid, starts=starts)
    assert whole.isfinite().all()
    (whole * valid[..., None]).sin().sum().backward()
    expected = gradients(model)
    for row, low, high in alone:
        own = model(inputs[row : row + 1, low:high])
        torch.testing.assert_close(whole[row : row + 1, low:high], own, **EXACT)
        own.sin().sum().backward()
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, expected[name], **EXACT, msg=name)

    made = request.getfixturevalue("small_tiles")
    cut = model(inputs, valid=valid, starts=starts)
    assert bool(made) == bool(config.pattern.near())
    torch.testing.assert_close(cut[valid], whole[valid], **EXACT)
    (cut * valid[..., None]).sin().sum().backward()
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, expected[name], **EXACT, msg=name)


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> list[tiles.Tiling]:
    """From now on calls are cut into tiles of a few queries; what they were cut into."""
    every: list[tiles.Tiling] = []
    cut = tiles.tiling

    def note(*arguments) -> tiles.Tiling | None:
        made = cut(*arguments)
        every.extend([] if made is None else [made])
        return made

    for name, value in {"LEAST": 1, "SAVED": -9.0, "GROUP": 300, "FEWEST": 3, "MOST": 5}.items():
        monkeypatch.setattr(tiles, name, value)
    monkeypatch.setattr("longspan.mixers.softmax.tiling", note)
    return every
