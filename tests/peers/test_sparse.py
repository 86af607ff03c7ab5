"""BigBird beside that of a current transformers, on the same weights, outputs and gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from longspan import Attention, BigBird, Full, tiles
from longspan.slots import NOWHERE, Pattern, Places

pytest.importorskip("transformers", reason="the peer is in the extra 'dev'")

from transformers import BigBirdConfig, BigBirdModel
from transformers.models.big_bird.modeling_big_bird import (
    BigBirdBlockSparseAttention,
    BigBirdSelfAttention,
)

DIM, HEADS, HEAD_DIM = 24, 4, 6
EXACT = {"atol": 1e-10, "rtol": 0.0}
SMALL = {"LEAST": 1, "SAVED": -9.0, "GROUP": 3000, "FEWEST": 5, "MOST": 16}


def numbers(length: int, rows: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(rows, length, DIM, generator=generator).double().requires_grad_()


def random_weights(module: nn.Module) -> None:
    torch.manual_seed(1)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)


def ours(theirs: nn.Module, pattern: Pattern, names: str, heads: slice = slice(None)) -> Attention:
    """A layer with (some heads of) their weights; what it answers is the heads' own."""
    count = len(range(HEADS)[heads])
    layer = Attention(DIM, count, head_dim=HEAD_DIM, pattern=pattern, exact=False).double()
    for mine, name in zip("qkv", names.split(), strict=True):
        rows = getattr(theirs, name).weight.unflatten(0, (HEADS, HEAD_DIM))[heads].flatten(0, 1)
        getattr(layer, mine).weight.data.copy_(rows.data)
    inner = count * HEAD_DIM
    layer.o = nn.Linear(inner, inner, bias=False).double()
    layer.o.weight.data.copy_(torch.eye(inner))
    return layer


def compare(made: Tensor, expected: Tensor, x: Tensor, pairs: list[tuple[Tensor, Tensor]]) -> None:
    """Answers, and the gradients of the input and of pairs of weights."""
    torch.testing.assert_close(made, expected, **EXACT)
    mine = torch.autograd.grad(made.sin().sum(), [x, *(a for a, _ in pairs)], retain_graph=True)
    theirs = torch.autograd.grad(
        expected.sin().sum(), [x, *(b for _, b in pairs)], retain_graph=True
    )
    for one, other in zip(mine, theirs, strict=True):
        assert other.abs().max() > 1e-3
        torch.testing.assert_close(one, other, **EXACT)


def cut(monkeypatch: pytest.MonkeyPatch, tiled: bool) -> None:
    for name, value in SMALL.items() if tiled else ():
        monkeypatch.setattr(tiles, name, value)


# -- BigBird --------------------------------------------------------------------------------------

BLOCK, COUNT, RANDOM = 4, 13, 2
LENGTH = BLOCK * COUNT
both = pytest.mark.parametrize("tiled", [True, False], ids=["tiles", "whole"])


def big_bird(kind: type) -> Any:
    config = BigBirdConfig(
        hidden_size=DIM,
        num_attention_heads=HEADS,
        block_size=BLOCK,
        num_random_blocks=RANDOM,
        attention_probs_dropout_prob=0.0,
        use_bias=False,
    )
    theirs = kind(config).double().train()
    random_weights(theirs)
    return theirs


def sparse(theirs: Any, x: Tensor) -> Tensor:
    ones = torch.ones(x.shape[:2]).double()
    blocked, band, of_q, of_k = BigBirdModel.create_masks_for_block_sparse_attn(ones, BLOCK)
    return theirs(x, band, of_q, of_k, blocked, blocked)[0]


@both
def test_block_sparse_with_their_random_blocks(
    tiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of their heads draws blocks of its own: a layer of ours apiece."""
    theirs, x, plans = big_bird(BigBirdBlockSparseAttention), numbers(LENGTH), []
    draw = theirs._bigbird_block_rand_mask_with_head

    def noted(**sizes: Any) -> list[np.ndarray]:
        plans.extend(draw(**sizes))
        return plans

    monkeypatch.setattr(theirs, "_bigbird_block_rand_mask_with_head", noted)
    expected = sparse(theirs, x)
    assert len(plans) == HEADS
    assert len({plan.tobytes() for plan in plans}) == HEADS
    cut(monkeypatch, tiled)
    layers, answers = [], []
    for head, plan in enumerate(plans):
        # theirs says nothing of the first and the last block, which see all
        of_blocks = torch.full((COUNT, RANDOM), NOWHERE)
        of_blocks[1:-1] = torch.from_numpy(plan).long() * BLOCK
        given = of_blocks.repeat_interleave(BLOCK, 0).expand(len(x), -1, -1)
        monkeypatch.setattr(BigBird, "chosen", giving(given))
        pattern = BigBird(BLOCK, 3, 1, RANDOM, causal=False)
        layer = ours(theirs, pattern, "query key value", slice(head, head + 1))
        answers.append(layer(x)[0])
        layers.append(layer)
    made = torch.cat(answers, 2)
    compare(made, expected, x, [])
    made.sin().sum().backward()
    expected.sin().sum().backward()
    for mine, name in zip("qkv", ("query", "key", "value"), strict=True):
        gradient = torch.cat([getattr(layer, mine).weight.grad for layer in layers])
        torch.testing.assert_close(gradient, getattr(theirs, name).weight.grad, **EXACT)


def giving(chosen: Tensor) -> Callable[[BigBird, Places], Tensor]:
    return lambda pattern, places: chosen


@both
def test_block_sparse_with_our_random_blocks(tiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, x = big_bird(BigBirdBlockSparseAttention), numbers(LENGTH)
    pattern = BigBird(BLOCK, 3, 1, RANDOM, seed=3, causal=False)
    places, _ = Places.of(torch.zeros(1, dtype=torch.long), LENGTH)
    chosen = pattern.chosen(places)
    assert chosen is not None
    plan = chosen[0, ::BLOCK] // BLOCK
    assert (plan[1:-1] < COUNT).all()
    every = [plan[1:-1].numpy()] * HEADS
    monkeypatch.setattr(theirs, "_bigbird_block_rand_mask_with_head", lambda **sizes: every)
    cut(monkeypatch, tiled)
    layer = ours(theirs, pattern, "query key value")
    names = zip("qkv", ("query", "key", "value"), strict=True)
    pairs = [(getattr(layer, a).weight, getattr(theirs, b).weight) for a, b in names]
    compare(layer(x)[0], sparse(theirs, x), x, pairs)


def test_original_full() -> None:
    theirs, x = big_bird(BigBirdSelfAttention), numbers(LENGTH)
    layer = ours(theirs, Full(), "query key value")
    names = zip("qkv", ("query", "key", "value"), strict=True)
    pairs = [(getattr(layer, a).weight, getattr(theirs, b).weight) for a, b in names]
    compare(layer(x)[0], theirs(x)[0], x, pairs)
