"""Encoders beside those of a current transformers, on the same weights: outputs and gradients.

Their maps of queries, keys, values and answers have biases, which are zero here.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from longspan import XL, Attention, Encoder, EncoderConfig, Full, Nystrom
from longspan.mixing import Mixing
from longspan.models.block import Block
from longspan.slots import Places

pytest.importorskip("transformers", reason="the peer is in the extra 'dev'")

from transformers import BertConfig, BertModel, NystromformerConfig, XLNetConfig, XLNetModel
from transformers.models.nystromformer.modeling_nystromformer import (
    NystromformerLayer,
    NystromformerSelfAttention,
)
from transformers.models.xlnet.modeling_xlnet import XLNetRelativeAttention

DIM, HEADS, HEAD_DIM, LENGTH, INNER = 24, 4, 6, 20, 36
EXACT = {"atol": 1e-10, "rtol": 0.0}
SINGLE = {"atol": 1e-5, "rtol": 0.0}
VALID = torch.arange(LENGTH) < torch.tensor([[LENGTH], [7]])
Same = list[tuple[Tensor, Tensor]]


def numbers(rows: int = 2, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    made = torch.randn(rows, LENGTH, DIM, generator=generator, dtype=torch.float64)
    return made.requires_grad_()


def random_weights(module: nn.Module) -> None:
    torch.manual_seed(1)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)


def encoder(layers: int, **changes: Any) -> Encoder:
    config = EncoderConfig(
        width=DIM,
        layers=layers,
        heads=HEADS,
        feed_forward=INNER,
        placement="post",
        final_norm=False,
        **changes,
    )
    model = Encoder(config).double()
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            # theirs, where ours has 1e-5
            module.eps = 1e-12
    return model


def both(mine: Any, theirs: Any) -> Same:
    return [(mine.weight, theirs.weight), (mine.bias, theirs.bias)]


def as_in_bert(block: Block, other: Any) -> Same:
    """What stands beside each other in a layer of BERT, which others have taken over."""
    attention: Any = block.mixer
    inner = other.attention.self
    projections = [(inner.query, "q"), (inner.key, "k"), (inner.value, "v")]
    projections.append((other.attention.output.dense, "o"))
    same = []
    for theirs, name in projections:
        theirs.bias.data.zero_()
        same.append((getattr(attention, name).weight, theirs.weight))
    return [
        *same,
        *both(block.mixer_norm, other.attention.output.LayerNorm),
        *both(block.feed_forward.inner, other.intermediate.dense),
        *both(block.feed_forward.outer, other.output.dense),
        *both(block.feed_forward_norm, other.output.LayerNorm),
    ]


def load(same: Same) -> None:
    for parameter, weight in same:
        parameter.data.copy_(weight.detach().view_as(parameter))


def assert_same(made: Tensor, expected: Tensor, same: Same, near: dict[str, float]) -> None:
    """Outputs, and the gradients of what stands beside each other."""
    torch.testing.assert_close(made, expected, **near)
    mine = torch.autograd.grad(made.sin().sum(), [a for a, _ in same], retain_graph=True)
    theirs = torch.autograd.grad(expected.sin().sum(), [b for _, b in same], retain_graph=True)
    for a, b in zip(mine, theirs, strict=True):
        assert a.abs().max() > 1e-6
        torch.testing.assert_close(a, b.view_as(a), **near)


# -- BERT -----------------------------------------------------------------------------------------


def test_bert() -> None:
    """A whole encoder with padding. Its embeddings are normalised, which ours are not."""
    config = BertConfig(
        vocab_size=31,
        hidden_size=DIM,
        num_hidden_layers=3,
        num_attention_heads=HEADS,
        intermediate_size=INNER,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        max_position_embeddings=LENGTH,
    )
    theirs = BertModel(config, add_pooling_layer=False).double()
    random_weights(theirs)
    mine = encoder(3)
    same: Same = []
    for block, other in zip(mine.blocks(), theirs.encoder.layer, strict=True):
        same += as_in_bert(block, other)
    load(same)
    tokens = torch.randint(0, 31, (2, LENGTH), generator=torch.Generator().manual_seed(2))
    made = mine.encode(theirs.embeddings(tokens), valid=VALID)
    expected = theirs(tokens, attention_mask=VALID.long()).last_hidden_state
    table = theirs.embeddings.position_embeddings.weight
    assert_same(made[VALID], expected[VALID], [*same, (table, table)], EXACT)


# -- Nyströmformer --------------------------------------------------------------------------------


def nystromformer(landmarks: int, convolution: int) -> NystromformerConfig:
    return NystromformerConfig(
        hidden_size=DIM,
        num_attention_heads=HEADS,
        intermediate_size=INNER,
        hidden_act="gelu",
        num_landmarks=landmarks,
        segment_means_seq_len=LENGTH,
        conv_kernel_size=convolution,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        layer_norm_eps=1e-12,
    )


@pytest.mark.parametrize("start", ["exact", "original"])
@pytest.mark.parametrize("convolution", [0, 1, 5])
@pytest.mark.parametrize("landmarks", [1, 4, 10])
def test_nystromformers_attention(landmarks: int, convolution: int, start: Any) -> None:
    """Their "original" takes the largest sum of the whole batch, so there it is of one row."""
    theirs = NystromformerSelfAttention(nystromformer(landmarks, convolution or 1)).double()
    # no setting of transformers 5.23 reaches the exact one, or leaves the convolution out
    theirs.init_option = start
    if not convolution:
        theirs.conv_kernel_size = None
    random_weights(theirs)
    mixer = Nystrom(landmarks, start=start, convolution=convolution)
    attention: Any = next(encoder(1, mixer=mixer).blocks()).mixer
    attention.o.weight.data.copy_(torch.eye(DIM))
    names = (("q", theirs.query), ("k", theirs.key), ("v", theirs.value))
    same: Same = []
    for name, other in names:
        other.bias.data.zero_()
        same.append((getattr(attention, name).weight, other.weight))
    if convolution:
        same.append((attention.near.weight, theirs.conv.weight))
    load(same)
    for rows in (1, 2) if start == "exact" else (1,):
        x = numbers(rows)
        assert_same(mixed(attention, x), theirs(x)[0], [(x, x), *same[2:]], EXACT)
    if landmarks > 1:
        # a single landmark has one weight, so queries and keys mean nothing to it
        x = numbers(1)
        assert_same(mixed(attention, x), theirs(x)[0], same[:2], EXACT)


def mixed(attention: Mixing, x: Tensor) -> Tensor:
    places, _ = Places.of(torch.zeros(len(x), dtype=torch.long), x.shape[1])
    return attention.mix(x, attention.begin(len(x), x), places, None)[0]


def test_nystromformers_layers() -> None:
    config = nystromformer(5, 3)
    theirs = nn.ModuleList([NystromformerLayer(config) for _ in range(2)]).double()
    random_weights(theirs)
    mine = encoder(2, mixer=Nystrom(5, start="original", convolution=3))
    same: Same = []
    for block, other in zip(mine.blocks(), theirs, strict=True):
        same += as_in_bert(block, other)
        same.append((block.mixer.near.weight, other.attention.self.conv.weight))
    load(same)
    x = numbers(1)
    expected = x
    for layer in theirs:
        expected = layer(expected)[0]
    assert_same(mine.encode(x), expected, [(x, x), *same], EXACT)


# -- XLNet's relative attention: Transformer-XL's, both ways --------------------------------------


def xlnet() -> XLNetConfig:
    return XLNetConfig(
        vocab_size=31,
        d_model=DIM,
        n_layer=2,
        n_head=HEADS,
        d_inner=INNER,
        ff_activation="gelu",
        dropout=0.0,
        use_mems_eval=False,
        use_mems_train=False,
    )


def as_in_xlnet(attention: Any, other: Any) -> Same:
    """Their maps are (C, H, D); the answer's stands the same way round."""
    order = attention.order
    same: Same = [(order.u, other.r_w_bias), (order.v, other.r_r_bias)]
    for parameter, weight in (
        (attention.q.weight, other.q),
        (attention.k.weight, other.k),
        (attention.v.weight, other.v),
        (order.r.weight, other.r),
    ):
        parameter.data.copy_(weight.detach().flatten(1).T)
    attention.o.weight.data.copy_(other.o.detach().flatten(1))
    return same


@pytest.mark.parametrize("clamp", [None, 4])
def test_xlnets_relative_attention(clamp: int | None) -> None:
    """With padding; without segments, whose term (q + r_s_bias)·seg_embed ours does not have."""
    theirs = XLNetRelativeAttention(xlnet()).double()
    random_weights(theirs)
    layer = Attention(DIM, HEADS, position=XL(clamp=clamp), pattern=Full()).double()
    same = as_in_xlnet(layer, theirs)
    load(same)
    # R as they make it, but in float64
    distances = torch.arange(LENGTH, -LENGTH, -1).double()
    if clamp is not None:
        distances = distances.clamp(-clamp, clamp)
    frequency = 10000 ** -(torch.arange(0, DIM, 2).double() / DIM)
    r = XLNetModel.positional_embedding(distances, frequency, 2)
    x = numbers()
    hidden = (~VALID).double().T[None, :, :, None].expand(LENGTH, -1, -1, HEADS)
    answer = theirs(x.transpose(0, 1), None, hidden, None, r, None)[0].transpose(0, 1)
    made, _ = layer(x, valid=VALID)
    expected = nn.functional.layer_norm(made + x, [DIM], *theirs.layer_norm.parameters(), 1e-12)
    assert_same(expected[VALID], answer[VALID], [(x, x), *same], EXACT)
    pairs = [
        (layer.q, theirs.q),
        (layer.k, theirs.k),
        (layer.v, theirs.v),
        (layer.order.r, theirs.r),
    ]
    for mine, other in pairs:
        (a,) = torch.autograd.grad(expected[VALID].sin().sum(), [mine.weight], retain_graph=True)
        (b,) = torch.autograd.grad(answer[VALID].sin().sum(), [other], retain_graph=True)
        torch.testing.assert_close(a, b.flatten(1).T, **EXACT)


def test_xlnet() -> None:
    """The whole model, whose R is of float32."""
    theirs = XLNetModel(xlnet()).double()
    random_weights(theirs)
    mine = encoder(2, position=XL())
    same: Same = []
    for block, other in zip(mine.blocks(), theirs.layer, strict=True):
        same += as_in_xlnet(block.mixer, other.rel_attn)
        same += both(block.mixer_norm, other.rel_attn.layer_norm)
        same += both(block.feed_forward.inner, other.ff.layer_1)
        same += both(block.feed_forward.outer, other.ff.layer_2)
        same += both(block.feed_forward_norm, other.ff.layer_norm)
    load(same)
    x = numbers()
    expected = theirs(inputs_embeds=x, attention_mask=VALID.double()).last_hidden_state
    made = mine.encode(x, valid=VALID)
    assert_same(made[VALID], expected[VALID], [(x, x), *same], SINGLE)
