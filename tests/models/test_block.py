"""One layer, written out."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from longspan import Attention, Causal, NoPosition, Recent, Window
from longspan.models.block import NORMS, Block, FeedForward
from longspan.slots import Places


@pytest.mark.parametrize("placement", ["pre", "post"])
@pytest.mark.parametrize("kind", ["layer", "rms"])
@torch.no_grad()
def test_residuals_and_norms(placement: str, kind: str) -> None:
    torch.manual_seed(0)
    norms = NORMS[kind](6), NORMS[kind](6)
    attention = Attention(
        6,
        2,
        position=NoPosition(),
        pattern=Window(3),
        memory=Recent(2),
        norm=norms[0] if placement == "pre" else None,
    )
    feed_forward = FeedForward(6, 9, "gelu", 0.0)
    block = Block(attention, feed_forward, norms, placement, 0.0).double()
    for parameter in block.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(2, 4, 6).double()
    carried = attention.start(2, x).layers[0]
    places, _ = Places.of(torch.zeros(2, dtype=torch.long), 4)
    made, _ = block(x, carried, places, attention.pairs(carried, places))
    attended, _ = attention(x)
    if placement == "pre":
        middle = x + attended
        expected = middle + feed_forward(norms[1](middle))
    else:
        middle = norms[0](x + attended)
        expected = norms[1](middle + feed_forward(middle))
    torch.testing.assert_close(made, expected)
    # each norm is there once
    assert sum(isinstance(m, nn.LayerNorm | nn.RMSNorm) for m in block.modules()) == 2


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_feed_forward_is_two_maps_around_an_activation(activation: str) -> None:
    network = FeedForward(4, 7, activation, 0.0)
    x = torch.randn(3, 4)
    inner = getattr(torch.nn.functional, activation)(
        x @ network.inner.weight.T + network.inner.bias
    )
    torch.testing.assert_close(network(x), inner @ network.outer.weight.T + network.outer.bias)


def test_dropout_acts_on_both_sublayers_in_training_only() -> None:
    torch.manual_seed(0)
    attention = Attention(6, 2, pattern=Causal(), memory=Recent(2), exact=False)
    norms = nn.LayerNorm(6), nn.LayerNorm(6)
    block = Block(attention, FeedForward(6, 9, "relu", 0.5), norms, "post", 0.5)
    assert block.dropout.probability == 0.5
    assert block.feed_forward.dropout.probability == 0.5
    x = torch.randn(1, 4, 6)
    carried = attention.start(1, x).layers[0]
    places, _ = Places.of(torch.zeros(1, dtype=torch.long), 4)

    def made() -> torch.Tensor:
        return block(x, carried, places, attention.pairs(carried, places))[0]

    assert not torch.equal(made(), made())
    block.eval()
    assert torch.equal(made(), made())
