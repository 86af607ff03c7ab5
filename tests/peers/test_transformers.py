"""Positions and heads beside those of a current transformers, on the same weights.

Outputs and gradients of one attention layer, or of a whole model. The library rounds angles and
softmax to float32 in some models whatever they compute in: there so does the comparison.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from longspan import (
    NTK,
    T5,
    Alibi,
    Attention,
    Causal,
    Decoder,
    DecoderConfig,
    Full,
    Interpolated,
    Learned,
    NoMemory,
    Rotary,
    YaRN,
)
from longspan.models.block import FeedForward
from longspan.models.vocabulary import VocabularyConfig
from longspan.rotation import Rotation
from longspan.slots import Pairs, Pattern, Places, Position

pytest.importorskip("transformers", reason="the peer is in the extra 'dev'")

from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, T5Config
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.llama.modeling_llama import (
    LlamaAttention,
    LlamaMLP,
    LlamaRotaryEmbedding,
)
from transformers.models.t5.modeling_t5 import T5Attention

DIM, HEADS, HEAD_DIM, LENGTH = 24, 4, 6, 20
EXACT = {"atol": 1e-10, "rtol": 0.0}
SINGLE = {"atol": 1e-5, "rtol": 0.0}


def ours(position: Position, pattern: Pattern, kv_heads: int = HEADS) -> Attention:
    layer = Attention(
        DIM,
        HEADS,
        head_dim=HEAD_DIM,
        kv_heads=kv_heads,
        position=position,
        pattern=pattern,
        memory=NoMemory(),
        exact=False,
    )
    return layer.double().train()


def numbers(seed: int = 0, length: int = LENGTH) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, length, DIM, generator=generator).double()


def random_weights(module: nn.Module) -> None:
    torch.manual_seed(1)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)


def causal(length: int) -> Tensor:
    """(1, 1, T, T): 0 where a key may be seen, else lowest."""
    hidden = torch.ones(length, length, dtype=torch.bool).triu(1)
    return torch.zeros(length, length).double().masked_fill(hidden, torch.finfo().min)[None, None]


# -- rotary, its scalings, and shared keys and values ---------------------------------------------

ROTATIONS: list[tuple[Rotation, dict[str, Any]]] = [
    (Rotary(), {"rope_type": "default"}),
    (Rotary(base=500.0), {"rope_type": "default", "rope_theta": 500.0}),
    (Interpolated(factor=4), {"rope_type": "linear", "factor": 4.0}),
    (YaRN(factor=4, trained=8), {"rope_type": "yarn", "factor": 4.0}),
]


def llama(kv_heads: int, **rope: Any) -> LlamaConfig:
    return LlamaConfig(
        hidden_size=DIM,
        num_attention_heads=HEADS,
        num_key_value_heads=kv_heads,
        head_dim=HEAD_DIM,
        max_position_embeddings=32,
        rope_parameters={"rope_theta": 10000.0, "original_max_position_embeddings": 8, **rope},
        attn_implementation="sdpa",
    )


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize(("position", "rope"), ROTATIONS, ids=lambda v: getattr(v, "name", ""))
def test_llama(position: Rotation, rope: dict[str, Any], kv_heads: int) -> None:
    config = llama(kv_heads, **rope)
    theirs = LlamaAttention(config, layer_idx=0).double()
    random_weights(theirs)
    layer = ours(position, Causal(), kv_heads)
    pairs = [(getattr(layer, n), getattr(theirs, f"{n}_proj")) for n in "qkvo"]
    for mine, other in pairs:
        mine.weight.data.copy_(other.weight)
    x = numbers()
    angles = LlamaRotaryEmbedding(config)(x, torch.arange(LENGTH)[None])
    expected = theirs(x, angles, causal(LENGTH))[0]
    made, _ = layer(x)
    torch.testing.assert_close(made, expected, **SINGLE)
    made.sin().sum().backward()
    expected.sin().sum().backward()
    for mine, other in pairs:
        torch.testing.assert_close(mine.weight.grad, other.weight.grad, **SINGLE)


def test_llamas_gated_feed_forward() -> None:
    config = llama(HEADS)
    config.intermediate_size = 17
    theirs = LlamaMLP(config).double()
    random_weights(theirs)
    mine = FeedForward(DIM, 17, "swiglu", 0.0).double()
    mine.inner.weight.data.copy_(torch.cat([theirs.gate_proj.weight, theirs.up_proj.weight]))
    mine.outer.weight.data.copy_(theirs.down_proj.weight)
    mine.inner.bias.data.zero_()
    mine.outer.bias.data.zero_()
    x = numbers()
    made, expected = mine(x), theirs(x)
    torch.testing.assert_close(made, expected, **EXACT)
    made.sin().sum().backward()
    expected.sin().sum().backward()
    both = torch.cat([theirs.gate_proj.weight.grad, theirs.up_proj.weight.grad])
    torch.testing.assert_close(mine.inner.weight.grad, both, **EXACT)
    torch.testing.assert_close(mine.outer.weight.grad, theirs.down_proj.weight.grad, **EXACT)


def test_llamas_dynamic_scaling_is_ours_at_the_length_that_it_grew_to() -> None:
    """With factor 1 the library's base grows by the length beyond training, 5 times here."""
    config = llama(HEADS, rope_type="dynamic", factor=1.0)
    config.max_position_embeddings = 4
    rotary = LlamaRotaryEmbedding(config)
    rotary(numbers(), torch.arange(20)[None])
    mine = NTK(factor=5).speeds(HEAD_DIM, torch.device("cpu"))
    torch.testing.assert_close(rotary.inv_freq.double(), mine, rtol=1e-6, atol=0)


# -- T5's buckets ---------------------------------------------------------------------------------


@pytest.mark.parametrize("decoder", [True, False], ids=["decoder", "encoder"])
def test_t5(decoder: bool) -> None:
    config = T5Config(
        d_model=DIM,
        d_kv=HEAD_DIM,
        num_heads=HEADS,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=16,
        dropout_rate=0.0,
        is_decoder=decoder,
        attn_implementation="eager",
    )
    theirs = T5Attention(config, has_relative_attention_bias=True, layer_idx=0).double()
    random_weights(theirs)
    layer = ours(T5(8, 16), Causal() if decoder else Full())
    for name in "qkvo":
        getattr(layer, name).weight.data.copy_(getattr(theirs, name).weight)
    # the library leaves the scores unscaled
    layer.q.weight.data.mul_(HEAD_DIM**0.5)
    layer.order.table.data.copy_(theirs.relative_attention_bias.weight.T)
    x = numbers()
    expected = theirs(x, mask=causal(LENGTH) if decoder else None)[0]
    made, _ = layer(x)
    torch.testing.assert_close(made, expected, **SINGLE)
    made.sin().sum().backward()
    expected.sin().sum().backward()
    table = theirs.relative_attention_bias.weight.grad
    torch.testing.assert_close(layer.order.table.grad, table.T, **SINGLE)
    torch.testing.assert_close(layer.k.weight.grad, theirs.k.weight.grad, **SINGLE)


# -- ALiBi ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("heads", [1, 4, 6, 8, 12])
def test_bloom(heads: int) -> None:
    """The library adds slope times the key's place: ours but for a number that a row shares."""
    theirs = build_alibi_tensor(torch.ones(1, LENGTH), heads, torch.float64).view(heads, 1, LENGTH)
    places, _ = Places.of(torch.zeros(1, dtype=torch.long), LENGTH)
    pairs = Pairs.of(places, torch.empty(1, 0, dtype=torch.long), Causal(), consecutive=True)
    bias = Alibi().build(12, heads, 2).bias(torch.zeros(1, heads, LENGTH, 2).double(), pairs)
    assert bias is not None
    same = bias.dense(heads)[0] - theirs
    shared = same.diagonal(dim1=1, dim2=2)[..., None]
    assert ((same - shared) * pairs.visible).abs().max() < 1e-6


# -- learned positions: a whole GPT-2 -------------------------------------------------------------


def test_gpt2() -> None:
    """Every weight, logits and gradients to 1e-10; biases that we do not have are zero there."""
    config = GPT2Config(
        vocab_size=31,
        n_positions=LENGTH,
        n_embd=DIM,
        n_layer=2,
        n_head=HEADS,
        activation_function="gelu",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        tie_word_embeddings=False,
        attn_implementation="sdpa",
    )
    theirs = GPT2LMHeadModel(config).double()
    random_weights(theirs)
    mine = Decoder(
        DecoderConfig(
            width=DIM,
            layers=2,
            heads=HEADS,
            feed_forward=4 * DIM,
            position=Learned(LENGTH),
            pattern=Causal(),
            memory=NoMemory(),
            exact=False,
            vocabulary=VocabularyConfig(tied=False),
        ),
        31,
    ).double()
    body = theirs.transformer
    same: list[tuple[Tensor, Tensor]] = [
        (mine.entry.table, body.wpe.weight),
        (mine.head.tables[0], theirs.lm_head.weight),
        (mine.norm.weight, body.ln_f.weight),
        (mine.norm.bias, body.ln_f.bias),
    ]
    for block, other in zip(mine.blocks(), body.h, strict=True):
        # their linear maps are stored transposed, queries, keys and values in one
        other.attn.c_attn.bias.data.zero_()
        other.attn.c_proj.bias.data.zero_()
        attention, forward = block.mixer, block.feed_forward
        for part, weight in zip("qkv", other.attn.c_attn.weight.chunk(3, 1), strict=True):
            getattr(attention, part).weight.data.copy_(weight.T)
        attention.o.weight.data.copy_(other.attn.c_proj.weight.T)
        forward.inner.weight.data.copy_(other.mlp.c_fc.weight.T)
        forward.outer.weight.data.copy_(other.mlp.c_proj.weight.T)
        same += [
            (forward.inner.bias, other.mlp.c_fc.bias),
            (forward.outer.bias, other.mlp.c_proj.bias),
            (attention.norm.weight, other.ln_1.weight),
            (attention.norm.bias, other.ln_1.bias),
            (block.feed_forward_norm.weight, other.ln_2.weight),
            (block.feed_forward_norm.bias, other.ln_2.bias),
        ]
    for parameter, weight in same:
        parameter.data.copy_(weight)
    # ours scales rows by √C on the way in
    mine.embedding.tables[0].data.copy_(body.wte.weight / DIM**0.5)
    mine.head.bias.data.zero_()
    tokens = torch.randint(0, 31, (2, LENGTH), generator=torch.Generator().manual_seed(2))
    made, expected = mine(tokens)[0], theirs(tokens).logits
    torch.testing.assert_close(made, expected, **EXACT)
    made.sin().sum().backward()
    expected.sin().sum().backward()
    for parameter, weight in same:
        torch.testing.assert_close(parameter.grad, weight.grad, **EXACT)
    first = body.h[0].attn.c_attn.weight.grad.chunk(3, 1)
    attention = next(mine.blocks()).mixer
    for part, gradient in zip("qkv", first, strict=True):
        torch.testing.assert_close(getattr(attention, part).weight.grad, gradient.T, **EXACT)
