"""BigBird and Longformer beside those of a current transformers, on the same weights.

Outputs and gradients. Their Longformer rounds its softmax to float32 whatever it computes in; here
it is handed one that does not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from longspan import Attention, BigBird, Full, Longformer, tiles
from longspan.slots import NOWHERE, Pattern, Places

pytest.importorskip("transformers", reason="the peer is in the extra 'dev'")

from transformers import BigBirdConfig, BigBirdModel, LongformerConfig
from transformers.models.big_bird.modeling_big_bird import (
    BigBirdBlockSparseAttention,
    BigBirdSelfAttention,
)
from transformers.models.longformer.modeling_longformer import LongformerSelfAttention

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


# -- Longformer -----------------------------------------------------------------------------------

SIDE = 4
"""Keys on either side; theirs counts both."""


@pytest.fixture
def exact_softmax(monkeypatch: pytest.MonkeyPatch) -> None:
    softmax = torch.nn.functional.softmax
    monkeypatch.setattr(
        torch.nn.functional, "softmax", lambda x, dim, dtype=None: softmax(x, dim=dim)
    )


@both
@pytest.mark.usefixtures("exact_softmax")
@pytest.mark.parametrize(
    "marks", [[(0, 0), (1, 0)], [(0, 3), (0, 17), (0, 39), (1, 20)], [(1, 5)], []], ids=str
)
@pytest.mark.parametrize("lengths", [(40, 40), (40, 29)], ids=["whole", "padded"])
def test_longformer(
    marks: list[tuple[int, int]],
    lengths: tuple[int, int],
    tiled: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = LongformerConfig(
        hidden_size=DIM,
        num_attention_heads=HEADS,
        attention_window=[2 * SIDE],
        attention_probs_dropout_prob=0.0,
    )
    theirs = LongformerSelfAttention(config, layer_id=0).double()
    random_weights(theirs)
    for name, parameter in theirs.named_parameters():
        if name.endswith("bias"):
            parameter.data.zero_()
    cut(monkeypatch, tiled)
    layer = ours(theirs, Longformer(SIDE + 1, (), causal=False), "query key value")
    assert layer.wide is not None
    names = list(zip("qkv", ("query", "key", "value"), strict=True))
    for mine, name in names:
        weight = getattr(theirs, f"{name}_global").weight
        getattr(layer.wide, mine).weight.data.copy_(weight)
    x, valid = numbers(40), torch.arange(40) < torch.tensor(lengths)[:, None]
    marked = torch.zeros(2, 40, dtype=torch.bool)
    for row, slot in marks:
        marked[row, slot] = True
    mask = torch.where(valid, 0.0, -10000.0) + 10000.0 * marked
    expected = theirs(x, mask, mask < 0, mask > 0, bool(marked.any()))[0]
    made, _ = layer(x, valid=valid, marked=marked)
    pairs = [(getattr(layer, a).weight, getattr(theirs, b).weight) for a, b in names]
    if marks:
        pairs += [
            (getattr(layer.wide, a).weight, getattr(theirs, f"{b}_global").weight) for a, b in names
        ]
    real = valid[..., None]
    compare(made * real, expected * real, x, pairs)
