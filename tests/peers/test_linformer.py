"""Linformer beside the package `linformer` on the same weights, in float64: outputs and gradients.

Its E and F lie transposed (length, rank) and are shared by the heads. Its answers have a bias,
which is zero here. Where it shares keys and values it shares the tokens' maps as well, not E and F
alone as the paper does: there our two maps are the same, and their gradients are added.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from longspan import Encoder, EncoderConfig, Learned, Linformer
from longspan.slots import Places

pytest.importorskip("linformer", reason="the peer is in the extra 'dev'")

from linformer import LinformerLM, LinformerSelfAttention

DIM, HEADS, LENGTH, RANK = 24, 4, 20, 6
EXACT = {"atol": 1e-10, "rtol": 0.0}


def random_weights(module: nn.Module) -> None:
    torch.manual_seed(1)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)


def encoder(layers: int, size: int | None = None, **changes: Any) -> Encoder:
    config = EncoderConfig(
        width=DIM,
        layers=layers,
        heads=HEADS,
        feed_forward=4 * DIM,
        final_norm=False,
        **changes,
    )
    return Encoder(config, size).double()


def load(mine: Any, theirs: LinformerSelfAttention) -> None:
    theirs.to_out.bias.data.zero_()
    mine.q.weight.data.copy_(theirs.to_q.weight)
    mine.k.weight.data.copy_(theirs.to_k.weight)
    mine.v.weight.data.copy_((theirs.to_k if theirs.share_kv else theirs.to_v).weight)
    mine.o.weight.data.copy_(theirs.to_out.weight)
    mine.e.data.copy_(theirs.proj_k.T)
    if not theirs.share_kv:
        mine.f.data.copy_(theirs.proj_v.T)


@pytest.mark.parametrize("length", [LENGTH, 13])
@pytest.mark.parametrize("one_head", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_attention(shared: bool, one_head: bool, length: int) -> None:
    theirs = LinformerSelfAttention(
        DIM, LENGTH, RANK, HEADS, one_kv_head=one_head, share_kv=shared
    ).double()
    random_weights(theirs)
    mixer = Linformer(LENGTH, RANK, "kv" if shared else "heads")
    (block,) = encoder(1, mixer=mixer, kv_heads=1 if one_head else HEADS).blocks()
    mine: Any = block.mixer
    mine.norm = None
    load(mine, theirs)
    x = torch.randn(2, length, DIM, generator=torch.Generator().manual_seed(0)).double()
    places, _ = Places.of(torch.zeros(2, dtype=torch.long), length)
    made, _ = mine.mix(x, mine.begin(2, x), places, None)
    expected = theirs(x)
    torch.testing.assert_close(made, expected, **EXACT)
    made.sin().sum().backward()
    expected.sin().sum().backward()
    torch.testing.assert_close(mine.q.weight.grad, theirs.to_q.weight.grad, **EXACT)
    torch.testing.assert_close(mine.o.weight.grad, theirs.to_out.weight.grad, **EXACT)
    torch.testing.assert_close(mine.e.grad[0], theirs.proj_k.grad.T, **EXACT)
    if shared:
        added = mine.k.weight.grad + mine.v.weight.grad
        torch.testing.assert_close(added, theirs.to_k.weight.grad, **EXACT)
    else:
        torch.testing.assert_close(mine.k.weight.grad, theirs.to_k.weight.grad, **EXACT)
        torch.testing.assert_close(mine.v.weight.grad, theirs.to_v.weight.grad, **EXACT)
        torch.testing.assert_close(mine.f.grad[0], theirs.proj_v.grad.T, **EXACT)


def test_language_model() -> None:
    """The whole model up to its output, with learned positions; ours scales its rows by √C."""
    theirs = LinformerLM(31, DIM, LENGTH, depth=2, k=RANK, heads=HEADS).double()
    random_weights(theirs)
    theirs.to_logits = nn.Identity()
    mine = encoder(2, 31, mixer=Linformer(LENGTH, RANK), position=Learned(LENGTH))
    same: list[tuple[Tensor, Tensor]] = [(mine.entry.table, theirs.pos_emb.weight)]
    for block, (first, second) in zip(mine.blocks(), theirs.linformer.net.layers, strict=True):
        load(block.mixer, first.fn)
        for a, b in (
            (block.mixer.norm, first.norm),
            (block.feed_forward_norm, second.norm),
            (block.feed_forward.inner, second.fn.w1),
            (block.feed_forward.outer, second.fn.w2),
        ):
            same += [(a.weight, b.weight), (a.bias, b.bias)]
    for parameter, weight in same:
        parameter.data.copy_(weight)
    table = mine.embedding.tables[0]
    table.data.copy_(theirs.token_emb.weight / DIM**0.5)
    tokens = torch.randint(0, 31, (2, 17), generator=torch.Generator().manual_seed(2))
    made, expected = mine(tokens), theirs(tokens)
    torch.testing.assert_close(made, expected, **EXACT)
    made.sin().sum().backward()
    expected.sin().sum().backward()
    for parameter, weight in same:
        torch.testing.assert_close(parameter.grad, weight.grad, **EXACT)
    torch.testing.assert_close(table.grad, theirs.token_emb.weight.grad * DIM**0.5, **EXACT)
