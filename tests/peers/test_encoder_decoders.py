"""Cross-attention and whole encoder-decoders beside torch's and transformers', on the same weights.

Outputs and gradients, in float64; T5 rounds its norms to float32 whatever it computes in, and there
so does the comparison. Theirs have biases in the maps of queries, keys, values and answers; ours,
as 1706.03762, have none: they are zero there.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from longspan import (
    T5,
    Cache,
    Causal,
    CrossAttention,
    CrossConfig,
    DecoderConfig,
    Dot,
    EncoderConfig,
    EncoderDecoder,
    EncoderDecoderConfig,
    Scaled,
    Sinusoidal,
    Softmax,
)
from longspan.comparing import Score
from longspan.kernels.blocked import Blocked
from longspan.kernels.reference import Reference
from longspan.kernels.sdpa import SDPA
from longspan.models.block import Block
from longspan.models.vocabulary import VocabularyConfig
from longspan.positions.sinusoidal import SinusoidalEntry
from longspan.slots import Kernel

pytest.importorskip("transformers", reason="the peer is in the extra 'dev'")

from transformers import (
    BartConfig,
    MarianConfig,
    MarianMTModel,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.models.bart.modeling_bart import BartAttention

DIM, HEADS, HEAD_DIM, INNER = 24, 4, 6, 17
ROWS, LENGTH, SOURCE, VOCABULARY = 3, 9, 11, 31
EXACT = {"atol": 1e-10, "rtol": 0.0}
SINGLE = {"atol": 1e-5, "rtol": 0.0}
VALID = torch.arange(SOURCE) < torch.tensor([SOURCE, 4, 1])[:, None]
Same = list[tuple[Tensor, Tensor]]
"""Our parameters and theirs, for which they stand."""


def numbers(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def words(seed: int, length: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, VOCABULARY, (ROWS, length), generator=generator)


def random_weights(module: nn.Module) -> None:
    torch.manual_seed(1)
    for name, parameter in module.named_parameters():
        nn.init.normal_(parameter, std=0.3)
        maps = ("in_proj", "out_proj", "q_proj", "k_proj", "v_proj")
        if name.endswith("bias") and any(part in name for part in maps):
            nn.init.zeros_(parameter)


def take(same: Same) -> None:
    """Their numbers."""
    for mine, theirs in same:
        assert mine.shape == theirs.shape
        mine.data.copy_(theirs)


def assert_equal(
    made: Tensor, expected: Tensor, same: Same, tolerance: dict[str, float] = EXACT
) -> None:
    """Outputs, and the gradient of every parameter, none of which is nothing."""
    torch.testing.assert_close(made, expected, **tolerance)
    made.sin().sum().backward()
    expected.sin().sum().backward()
    for mine, theirs in same:
        assert mine.grad is not None
        assert theirs.grad is not None
        assert mine.grad.abs().max() > 1e-7
        torch.testing.assert_close(mine.grad, theirs.grad, **tolerance)


# -- torch ----------------------------------------------------------------------------------------


def thirds(attention: nn.MultiheadAttention) -> list[nn.Parameter]:
    """Weights of queries, keys and values, which torch may hold as one, each by itself."""
    if attention.in_proj_weight is None:
        parts = attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight
        return [part for part in parts if part is not None]
    parts = attention.in_proj_weight.detach().chunk(3)
    return [nn.Parameter(part.clone()) for part in parts]


@pytest.mark.parametrize("kernel", [Reference(), Blocked(), SDPA()], ids=lambda k: k.name)
@pytest.mark.parametrize("width", [DIM, 10])
def test_multihead_attention(kernel: Kernel, width: int) -> None:
    """With padded keys, and a source of another width."""
    theirs = nn.MultiheadAttention(
        DIM, HEADS, bias=False, kdim=width, vdim=width, batch_first=True
    ).double()
    random_weights(theirs)
    layer = CrossAttention(DIM, HEADS, source=width, kernel=kernel).double()
    x, encoded = numbers(2, ROWS, LENGTH, DIM), numbers(3, ROWS, SOURCE, width)
    mine = [layer.q.weight, layer.k.weight, layer.v.weight]
    same = [*zip(mine, thirds(theirs), strict=True), (layer.o.weight, theirs.out_proj.weight)]
    take(same)
    expected, weights = theirs(
        x, encoded, encoded, key_padding_mask=~VALID, average_attn_weights=False
    )
    source = layer.read(encoded, VALID)
    made = layer(x, source)
    pairs = layer.pairs(source, torch.arange(LENGTH).expand(ROWS, -1))
    torch.testing.assert_close(layer.weights(x, source, pairs), weights, **EXACT)
    if width == DIM:
        # one weight of three: its gradient is compared in thirds
        torch.testing.assert_close(made, expected, **EXACT)
        made.sin().sum().backward()
        expected.sin().sum().backward()
        gradients = torch.cat([weight.grad for weight in mine])
        torch.testing.assert_close(gradients, theirs.in_proj_weight.grad, **EXACT)
        torch.testing.assert_close(layer.o.weight.grad, theirs.out_proj.weight.grad, **EXACT)
    else:
        assert_equal(made, expected, same)


def torch_layer(block: Block, theirs: Any, pre: bool) -> Same:
    """What of one of our layers stands for what of torch's, but for the maps held as one."""
    attentions: list[tuple[Any, Any]] = [(block.mixer, theirs.self_attn)]
    norms: list[Any] = [block.mixer.norm if pre else block.mixer_norm]
    if block.cross is not None:
        attentions.append((block.cross, theirs.multihead_attn))
        norms.append(block.cross_norm)
    norms.append(block.feed_forward_norm)
    same: Same = []
    for mine, other in attentions:
        for part, weight in zip("qkv", thirds(other), strict=True):
            getattr(mine, part).weight.data.copy_(weight)
        same.append((mine.o.weight, other.out_proj.weight))
    for index, norm in enumerate(norms, 1):
        other = getattr(theirs, f"norm{index}")
        same += [(norm.weight, other.weight), (norm.bias, other.bias)]
    for linear, other in (
        (block.feed_forward.inner, theirs.linear1),
        (block.feed_forward.outer, theirs.linear2),
    ):
        same += [(linear.weight, other.weight), (linear.bias, other.bias)]
    return same


def torch_maps(block: Block, theirs: Any) -> list[tuple[Tensor, Tensor]]:
    """Gradients of the maps of queries, keys and values, ours behind each other and torch's."""
    pairs: list[tuple[Any, Any]] = [(block.mixer, theirs.self_attn)]
    if block.cross is not None:
        pairs.append((block.cross, theirs.multihead_attn))
    return [
        (torch.cat([getattr(m, part).weight.grad for part in "qkv"]), t.in_proj_weight.grad)
        for m, t in pairs
    ]


def configured(
    placement: Any, *, shared: bool = False, score: Score | None = None, **changes: Any
) -> EncoderDecoderConfig:
    """As torch's and Marian's, unless said otherwise: ReLU, LayerNorm."""
    score = score or Scaled()
    sizes: dict[str, Any] = {
        "width": DIM,
        "heads": HEADS,
        "feed_forward": INNER,
        "activation": "relu",
        "placement": placement,
        "vocabulary": VocabularyConfig(tied=shared),
        "mixer": Softmax(score=score),
        **changes,
    }
    return EncoderDecoderConfig(
        encoder=EncoderConfig(layers=2, **sizes),
        decoder=DecoderConfig(layers=3, pattern=Causal(), memory=Cache(), **sizes),
        cross=CrossConfig(score=score),
        shared=shared,
    )


@pytest.mark.parametrize("placement", ["pre", "post"])
@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_a_whole_transformer(placement: str) -> None:
    """nn.Transformer, norms before and after; every layer of it, and padded sources."""
    theirs = nn.Transformer(
        DIM,
        HEADS,
        num_encoder_layers=2,
        num_decoder_layers=3,
        dim_feedforward=INNER,
        dropout=0.0,
        batch_first=True,
        norm_first=placement == "pre",
    ).double()
    random_weights(theirs)
    mine = EncoderDecoder(configured(placement), None, VOCABULARY).double()
    assert mine.encoder.norm is not None
    assert mine.decoder.norm is not None
    blocks: list[tuple[Block, Any]] = [
        *zip(mine.encoder.blocks(), theirs.encoder.layers, strict=True),
        *zip(mine.decoder.blocks(), theirs.decoder.layers, strict=True),
    ]
    same: Same = []
    for block, layer in blocks:
        same += torch_layer(block, layer, placement == "pre")
    for side in ("encoder", "decoder"):
        norm, other = getattr(mine, side).norm, getattr(theirs, side).norm
        same += [(norm.weight, other.weight), (norm.bias, other.bias)]
    take(same)
    frames, target = numbers(2, ROWS, SOURCE, DIM), words(3, LENGTH)
    expected = theirs(
        frames,
        mine.decoder.embedding(target).detach(),
        tgt_mask=nn.Transformer.generate_square_subsequent_mask(LENGTH, dtype=torch.float64),
        src_key_padding_mask=~VALID,
        memory_key_padding_mask=~VALID,
        tgt_is_causal=True,
    )
    made, _ = mine.decoder.hidden(target, mine.encode(frames, VALID))
    assert_equal(made, expected, same)
    for block, layer in blocks:
        for ours, other in torch_maps(block, layer):
            torch.testing.assert_close(ours, other, **EXACT)
    # and from the state, a token at a time
    with torch.no_grad():
        state, parts = mine.eval().encode(frames, VALID), []
        for piece in target.split(1, 1):
            h, state = mine.decoder.hidden(piece, state)
            parts.append(h)
    torch.testing.assert_close(torch.cat(parts, 1), expected.detach(), **EXACT)


@pytest.mark.parametrize("placement", ["pre", "post"])
def test_a_decoder_layer(placement: str) -> None:
    """nn.TransformerDecoderLayer alone, and what it says to what it read."""
    theirs = nn.TransformerDecoderLayer(
        DIM, HEADS, INNER, dropout=0.0, batch_first=True, norm_first=placement == "pre"
    ).double()
    random_weights(theirs)
    mine = EncoderDecoder(configured(placement, final_norm=False), None, VOCABULARY).double()
    block = next(mine.decoder.blocks())
    mine.decoder.layers = nn.ModuleList([block])
    same = torch_layer(block, theirs, placement == "pre")
    take(same)
    target = words(3, LENGTH)
    encoded = [numbers(2, ROWS, SOURCE, DIM).requires_grad_() for _ in range(2)]
    expected = theirs(
        mine.decoder.embedding(target).detach(),
        encoded[0],
        tgt_mask=nn.Transformer.generate_square_subsequent_mask(LENGTH, dtype=torch.float64),
        memory_key_padding_mask=~VALID,
    )
    made, _ = mine.decoder.hidden(target, mine.decoder.reading(encoded[1], VALID))
    assert_equal(made, expected, [*same, (encoded[1], encoded[0])])
    for ours, other in torch_maps(block, theirs):
        torch.testing.assert_close(ours, other, **EXACT)


# -- transformers ---------------------------------------------------------------------------------


def test_bart() -> None:
    """Its cross-attention, as it is called in a decoder."""
    config = BartConfig(d_model=DIM, attn_implementation="eager")
    theirs = BartAttention(DIM, HEADS, is_decoder=True, config=config, layer_idx=0).double()
    random_weights(theirs)
    layer = CrossAttention(DIM, HEADS).double()
    names = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "out_proj"}
    same = [(getattr(layer, a).weight, getattr(theirs, b).weight) for a, b in names.items()]
    take(same)
    x, encoded = numbers(2, ROWS, LENGTH, DIM), numbers(3, ROWS, SOURCE, DIM)
    mask = torch.zeros(ROWS, 1, LENGTH, SOURCE).double()
    mask = mask.masked_fill(~VALID[:, None, None], torch.finfo().min)
    expected = theirs(x, key_value_states=encoded, attention_mask=mask)[0]
    assert_equal(layer(x, layer.read(encoded, VALID)), expected, same)


def huggingface_layer(block: Block, theirs: Any) -> Same:
    """What stands for what in a layer of the family of BART, norms after."""
    pairs: list[tuple[Any, Any]] = [(block.mixer, theirs.self_attn)]
    norms: list[tuple[Any, Any]] = [
        (block.mixer_norm, theirs.self_attn_layer_norm),
        (block.feed_forward_norm, theirs.final_layer_norm),
    ]
    if block.cross is not None:
        pairs.append((block.cross, theirs.encoder_attn))
        norms.append((block.cross_norm, theirs.encoder_attn_layer_norm))
    linears = [(block.feed_forward.inner, theirs.fc1), (block.feed_forward.outer, theirs.fc2)]
    names = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "out_proj"}
    same: Same = [
        (getattr(mine, a).weight, getattr(other, b).weight)
        for mine, other in pairs
        for a, b in names.items()
    ]
    for mine, other in norms + linears:
        same += [(mine.weight, other.weight), (mine.bias, other.bias)]
    return same


def test_marian() -> None:
    """The whole model, from tokens to logits: the Transformer of 1706.03762."""
    config = MarianConfig(
        vocab_size=VOCABULARY,
        d_model=DIM,
        encoder_layers=2,
        decoder_layers=3,
        encoder_attention_heads=HEADS,
        decoder_attention_heads=HEADS,
        encoder_ffn_dim=INNER,
        decoder_ffn_dim=INNER,
        activation_function="relu",
        dropout=0.0,
        scale_embedding=True,
        max_position_embeddings=32,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=2,
        share_encoder_decoder_embeddings=False,
        decoder_vocab_size=VOCABULARY,
        tie_word_embeddings=False,
        attn_implementation="eager",
    )
    theirs = MarianMTModel(config).double()
    mine = EncoderDecoder(
        configured("post", final_norm=False, position=Sinusoidal()), VOCABULARY, VOCABULARY
    ).double()
    body: Any = theirs.model
    # their table has the sines first and then the cosines, ours as the paper has them in turn
    places = SinusoidalEntry(10000.0, DIM)(torch.arange(32), torch.float64)
    table = body.encoder.embed_positions.weight
    apart = torch.cat([places[:, ::2], places[:, 1::2]], 1)
    torch.testing.assert_close(table.data, apart, atol=1e-6, rtol=0)
    random_weights(theirs)
    for side in (body.encoder, body.decoder):
        side.embed_positions.weight.data.copy_(places)
    same: Same = [
        (mine.encoder.embedding.tables[0], body.encoder.embed_tokens.weight),
        (mine.decoder.embedding.tables[0], body.decoder.embed_tokens.weight),
        (mine.decoder.head.tables[0], theirs.lm_head.weight),
    ]
    for block, layer in zip(mine.encoder.blocks(), body.encoder.layers, strict=True):
        same += huggingface_layer(block, layer)
    for block, layer in zip(mine.decoder.blocks(), body.decoder.layers, strict=True):
        same += huggingface_layer(block, layer)
    take(same)
    mine.decoder.head.bias.data.copy_(theirs.final_logits_bias[0])
    source, target = words(2, SOURCE), words(3, LENGTH)
    expected = theirs(
        input_ids=source, attention_mask=VALID.long(), decoder_input_ids=target, use_cache=False
    ).logits
    made, _ = mine(source, target, source_valid=VALID)
    assert_equal(made, expected, same)
    with torch.no_grad():
        state, parts = mine.eval().encode(source, VALID), []
        for piece in target.split(2, 1):
            logits, state = mine.decode(piece, state)
            parts.append(logits)
        attended = theirs(
            input_ids=source,
            attention_mask=VALID.long(),
            decoder_input_ids=target,
            use_cache=False,
            output_attentions=True,
        ).cross_attentions
        _, _, alignment = mine.align(target, mine.encode(source, VALID))
    torch.testing.assert_close(torch.cat(parts, 1), expected.detach(), **EXACT)
    assert len(alignment.weights) == 3
    for made, theirs_made in zip(alignment.weights, attended, strict=True):
        torch.testing.assert_close(made, theirs_made, **EXACT)


def test_t5() -> None:
    """The whole model: norms before, buckets in self-attention alone, products not scaled.

    And one table for all: the library leaves it as it is on the way in and divides by √C on the
    way out, ours the other way round.
    """
    config = T5Config(
        vocab_size=VOCABULARY,
        d_model=DIM,
        d_kv=HEAD_DIM,
        d_ff=INNER,
        num_layers=2,
        num_decoder_layers=3,
        num_heads=HEADS,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=16,
        dropout_rate=0.0,
        layer_norm_epsilon=1e-5,
        attn_implementation="eager",
    )
    theirs = T5ForConditionalGeneration(config).double()
    random_weights(theirs)
    mine = EncoderDecoder(
        configured("pre", norm="rms", position=T5(8, 16), score=Dot(), shared=True),
        VOCABULARY,
        VOCABULARY,
    ).double()
    same: Same = [
        (mine.encoder.norm.weight, theirs.encoder.final_layer_norm.weight),
        (mine.decoder.norm.weight, theirs.decoder.final_layer_norm.weight),
    ]
    for model, side in ((mine.encoder, theirs.encoder), (mine.decoder, theirs.decoder)):
        for block, layer in zip(model.blocks(), side.block, strict=True):
            pairs = [(block.mixer, layer.layer[0].SelfAttention)]
            same.append((block.mixer.norm.weight, layer.layer[0].layer_norm.weight))
            if block.cross is not None:
                pairs.append((block.cross, layer.layer[1].EncDecAttention))
                same.append((block.cross_norm.weight, layer.layer[1].layer_norm.weight))
            for attention, other in pairs:
                same += [(getattr(attention, n).weight, getattr(other, n).weight) for n in "qkvo"]
            forward = layer.layer[-1]
            same += [
                (block.feed_forward_norm.weight, forward.layer_norm.weight),
                (block.feed_forward.inner.weight, forward.DenseReluDense.wi.weight),
                (block.feed_forward.outer.weight, forward.DenseReluDense.wo.weight),
            ]
            for linear in (block.feed_forward.inner, block.feed_forward.outer):
                linear.bias.data.zero_()
        bias = side.block[0].layer[0].SelfAttention.relative_attention_bias.weight
        next(model.blocks()).mixer.order.table.data.copy_(bias.T)
    (table,) = mine.decoder.embedding.tables
    table.data.copy_(theirs.shared.weight / DIM**0.5)
    take(same)
    mine.decoder.head.bias.data.zero_()
    source, target = words(2, SOURCE), words(3, LENGTH)
    expected = theirs(
        input_ids=source, attention_mask=VALID.long(), decoder_input_ids=target, use_cache=False
    ).logits
    made, _ = mine(source, target, source_valid=VALID)
    assert_equal(made, expected, same, SINGLE)
    torch.testing.assert_close(table.grad, theirs.shared.weight.grad * DIM**0.5, **SINGLE)
    for model, side in ((mine.encoder, theirs.encoder), (mine.decoder, theirs.decoder)):
        bias = side.block[0].layer[0].SelfAttention.relative_attention_bias.weight.grad
        buckets = next(model.blocks()).mixer.order.table.grad
        torch.testing.assert_close(buckets, bias.T, **SINGLE)
