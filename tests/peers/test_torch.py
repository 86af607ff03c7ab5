"""Beside torch's own attention and encoder on the same weights, in float64: outputs and gradients.

Theirs have biases in the maps of queries, keys, values and answers; ours, like the paper, have
none: they are left out or zero there.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from longspan import Attention, Auto, Causal, Encoder, EncoderConfig, Full
from longspan.kernels.blocked import Blocked
from longspan.kernels.reference import Reference
from longspan.kernels.sdpa import SDPA
from longspan.slots import Kernel

DIM, HEADS, HEAD_DIM, LENGTH = 24, 4, 6, 15
EXACT = {"atol": 1e-10, "rtol": 0.0}
KERNELS: list[Kernel] = [Reference(), Blocked(), SDPA(), Auto()]
VALID = torch.arange(LENGTH) < torch.tensor([[LENGTH], [6], [1]])


def numbers(seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, LENGTH, DIM, generator=generator, dtype=torch.float64)


def random_weights(module: nn.Module) -> None:
    torch.manual_seed(1)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)


def same_gradients(made: Tensor, expected: Tensor, same: list[tuple[Tensor, Tensor]]) -> None:
    """Of the parameters that stand beside each other, and that none of them is nothing."""
    mine = torch.autograd.grad(made.sin().sum(), [a for a, _ in same], retain_graph=True)
    theirs = torch.autograd.grad(expected.sin().sum(), [b for _, b in same], retain_graph=True)
    for a, b in zip(mine, theirs, strict=True):
        assert a.abs().max() > 1e-6
        torch.testing.assert_close(a, b, **EXACT)


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: k.name)
@pytest.mark.parametrize("kv_heads", [1, 2, HEADS])
@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
def test_scaled_dot_product_attention(causal: bool, kv_heads: int, kernel: Kernel) -> None:
    """Also where keys and values are shared by groups of queries."""
    layer = Attention(
        DIM,
        HEADS,
        kv_heads=kv_heads,
        pattern=Causal() if causal else Full(),
        kernel=kernel,
        exact=False,
    ).double()
    random_weights(layer)
    x = numbers().requires_grad_()
    q, k, v = (
        w(x).unflatten(2, (-1, HEAD_DIM)).transpose(1, 2) for w in (layer.q, layer.k, layer.v)
    )
    out = scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=True)
    made, expected = layer(x)[0], layer.o(out.transpose(1, 2).flatten(2))
    torch.testing.assert_close(made, expected, **EXACT)
    same_gradients(made, expected, [(p, p) for p in (x, *layer.parameters())])


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: k.name)
def test_multihead_attention(kernel: Kernel) -> None:
    theirs = nn.MultiheadAttention(DIM, HEADS, bias=False, batch_first=True).double()
    random_weights(theirs)
    layer = Attention(DIM, HEADS, pattern=Full(), kernel=kernel).double()
    load(layer, theirs)
    x = numbers().requires_grad_()
    made = layer(x, valid=VALID)[0][VALID]
    expected = theirs(x, x, x, key_padding_mask=~VALID, need_weights=False)[0][VALID]
    torch.testing.assert_close(made, expected, **EXACT)
    same_gradients(made, expected, [(x, x), (layer.o.weight, theirs.out_proj.weight)])
    mine = torch.autograd.grad(made.sin().sum(), [layer.q.weight, layer.k.weight, layer.v.weight])
    (whole,) = torch.autograd.grad(expected.sin().sum(), [theirs.in_proj_weight])
    torch.testing.assert_close(torch.cat(mine), whole, **EXACT)


def load(layer: Any, theirs: nn.MultiheadAttention) -> None:
    for mine, part in zip((layer.q, layer.k, layer.v), theirs.in_proj_weight.chunk(3), strict=True):
        mine.weight.data.copy_(part)
    layer.o.weight.data.copy_(theirs.out_proj.weight)


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("placement", ["pre", "post"])
@pytest.mark.parametrize("final", [False, True], ids=["", "final norm"])
def test_transformer_encoder(final: bool, placement: Any, activation: Any) -> None:
    """The whole stack, with padding."""
    one = nn.TransformerEncoderLayer(
        DIM,
        HEADS,
        40,
        dropout=0.0,
        activation=activation,
        batch_first=True,
        norm_first=placement == "pre",
    )
    norm = nn.LayerNorm(DIM) if final else None
    theirs = nn.TransformerEncoder(one, 3, norm, enable_nested_tensor=False).double()
    random_weights(theirs)
    config = EncoderConfig(
        width=DIM,
        layers=3,
        heads=HEADS,
        feed_forward=40,
        placement=placement,
        activation=activation,
        final_norm=final,
    )
    mine = Encoder(config).double()
    same: list[tuple[Tensor, Tensor]] = []
    for block, other in zip(mine.blocks(), theirs.layers, strict=True):
        assert isinstance(block.mixer, Attention)
        other.self_attn.in_proj_bias.data.zero_()
        other.self_attn.out_proj.bias.data.zero_()
        load(block.mixer, other.self_attn)
        first = block.mixer.norm if placement == "pre" else block.mixer_norm
        modules = [
            (first, other.norm1),
            (block.feed_forward_norm, other.norm2),
            (block.feed_forward.inner, other.linear1),
            (block.feed_forward.outer, other.linear2),
        ]
        same += [(getattr(a, n), getattr(b, n)) for a, b in modules for n in ("weight", "bias")]
        same.append((block.mixer.o.weight, other.self_attn.out_proj.weight))
    if final:
        same += [(mine.norm.weight, theirs.norm.weight), (mine.norm.bias, theirs.norm.bias)]
    for parameter, weight in same:
        parameter.data.copy_(weight)
    x = numbers().requires_grad_()
    made = mine.encode(x, valid=VALID)[VALID]
    expected = theirs(x, src_key_padding_mask=~VALID)[VALID]
    torch.testing.assert_close(made, expected, **EXACT)
    same_gradients(made, expected, [(x, x), *same])
    # queries, keys and values have one matrix there
    for block, other in zip(mine.blocks(), theirs.layers, strict=True):
        parts = [getattr(block.mixer, name).weight for name in "qkv"]
        mixed = torch.cat(torch.autograd.grad(made.sin().sum(), parts, retain_graph=True))
        (whole,) = torch.autograd.grad(
            expected.sin().sum(), [other.self_attn.in_proj_weight], retain_graph=True
        )
        torch.testing.assert_close(mixed, whole, **EXACT)
