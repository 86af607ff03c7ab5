"""Encoder and decoder: pieces equal one pass, a row is as if alone, and what both share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from longspan import (
    GRU,
    LSTM,
    RNN,
    T5,
    XL,
    Additive,
    Cache,
    Causal,
    Concat,
    ConfigError,
    CrossConfig,
    Decoder,
    DecoderConfig,
    Dot,
    EncoderConfig,
    EncoderDecoder,
    EncoderDecoderConfig,
    Full,
    General,
    IncompatibleConfig,
    NoMemory,
    NoPosition,
    Recent,
    Rotary,
    Segments,
    Sinusoidal,
    State,
)
from longspan.comparing import Score
from longspan.errors import InputError, StateError
from longspan.mixing import Mixer
from longspan.models.vocabulary import VocabularyConfig
from longspan.slots import Position
from tests.contracts.samples import COVER, POSITIONS, VOCABULARY, named, tokens

EXACT = {"atol": 1e-10, "rtol": 0.0}
SOURCE = 17
LENGTHS, TARGETS = [6, 1, 4], [19, 7, 12]
ENCODER = EncoderConfig(width=8, layers=2, heads=2, feed_forward=9, position=Sinusoidal())
DECODER = DecoderConfig(
    width=10,
    layers=2,
    heads=3,
    head_dim=4,
    feed_forward=12,
    position=XL(),
    pattern=Segments(4, 5),
    memory=Recent(5),
)
MASK = torch.arange(6) < torch.tensor(LENGTHS)[:, None]


def model(
    decoder: DecoderConfig = DECODER, cross: CrossConfig | None = None, **changes: Any
) -> EncoderDecoder:
    """In float64 and evaluation mode, every parameter random and of a size that matters."""
    torch.manual_seed(0)
    config = EncoderDecoderConfig(encoder=ENCODER, decoder=decoder, cross=cross or CrossConfig())
    made = EncoderDecoder(replace(config, **changes), SOURCE, VOCABULARY).double().eval()
    for name, parameter in made.named_parameters():
        scale = 0.1 if "norm" in name else 0.4
        nn.init.normal_(parameter, 1.0 if name.endswith("norm.weight") else 0.0, scale)
    return made


def sources(rows: int = 3, length: int = 6, seed: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, SOURCE, (rows, length), generator=generator)


def in_pieces(made: EncoderDecoder, target: Tensor, state: State, size: int) -> Tensor:
    parts = []
    for piece in target.split(size, 1):
        logits, state = made.decode(piece, state)
        parts.append(logits)
    return torch.cat(parts, 1)


def assert_pieces_equal_one_pass(made: EncoderDecoder) -> None:
    """And rows of lengths of their own equal the row alone."""
    source, target = sources(), tokens(3, 19)
    valid = torch.arange(19) < torch.tensor(TARGETS)[:, None]
    with torch.no_grad():
        whole, after = made(source, target, source_valid=MASK)
        for size in (1, 7):
            pieces = in_pieces(made, target, made.encode(source, MASK), size)
            torch.testing.assert_close(pieces, whole, **EXACT)
        padded, ragged = made(source, target, source_valid=MASK, valid=valid)
        more, following = made.decode(target[:, :3], after)[0], tokens(3, 3, seed=9)
        assert more.isfinite().all()
        continued = made.decode(following, ragged)[0]
        for row, (length, count) in enumerate(zip(LENGTHS, TARGETS, strict=True)):
            alone, own = made(source[row : row + 1, :length], target[row : row + 1, :count])
            torch.testing.assert_close(whole[row : row + 1, :count], alone, **EXACT)
            torch.testing.assert_close(padded[row : row + 1, :count], alone, **EXACT)
            expected = made.decode(following[row : row + 1], own)[0]
            torch.testing.assert_close(continued[row : row + 1], expected, **EXACT)


@pytest.mark.parametrize("config", COVER[::2], ids=named)
def test_pieces_equal_one_pass(config: DecoderConfig) -> None:
    """With every position and every causal pattern and memory."""
    assert_pieces_equal_one_pass(model(config))


def test_the_sample_misses_nothing() -> None:
    for slot in ("position", "pattern", "memory"):
        every, some = ({getattr(c, slot).name for c in configs} for configs in (COVER, COVER[::2]))
        assert some == every


LISTENERS: list[Mixer] = [RNN(), LSTM(), GRU()]
SCORES: list[Score] = [Dot(), General(), Concat(), Additive(5)]


@pytest.mark.parametrize("mixer", LISTENERS, ids=lambda m: m.name)
@pytest.mark.parametrize("score", SCORES, ids=lambda s: s.name)
def test_recurrent_layers_ask_as_bahdanau_and_luong_did(mixer: Mixer, score: Score) -> None:
    """A recurrent encoder both ways, a recurrent decoder, one alignment between them."""
    sizes = {"layers": 1, "heads": 1, "feed_forward": 8, "mixer": mixer}
    made = model(
        DecoderConfig(width=10, **sizes),
        CrossConfig(score=score),
        encoder=EncoderConfig(width=8, **sizes),
    )
    assert_pieces_equal_one_pass(made)
    assert made.decoder.crosses()[0].score == score


@pytest.mark.parametrize("score", [Concat(), Additive(5)], ids=lambda s: s.name)
@pytest.mark.parametrize("position", [T5(8, 12), XL(), NoPosition()], ids=lambda p: p.name)
def test_what_lies_between_may_be_anything(score: Score, position: Position) -> None:
    cross = CrossConfig(score=score, position=position, heads=5, head_dim=4, kv_heads=1)
    made = model(cross=cross)
    assert_pieces_equal_one_pass(made)
    first, second = made.decoder.crosses()
    assert first.kv_heads == 1
    if isinstance(position, T5):
        # one table for all layers, as in self-attention
        assert first.order.table is second.order.table


@torch.no_grad()
def test_what_is_seen() -> None:
    """All of the source, and of the target what came before."""
    made, source, target = model(), sources(), tokens(3, 9)
    logits, _ = made(source, target)
    changed = source.clone()
    changed[:, -1] = (changed[:, -1] + 1) % SOURCE
    other, _ = made(changed, target)
    assert (logits - other).abs().amax((0, 2)).min() > 1e-6
    later = target.clone()
    later[:, 5:] = (later[:, 5:] + 1) % VOCABULARY
    other, _ = made(source, later)
    torch.testing.assert_close(logits[:, :5], other[:, :5], **EXACT)
    assert not torch.allclose(logits[:, 5:], other[:, 5:])


@torch.no_grad()
def test_a_state_takes_its_sources_along(tmp_path: Any) -> None:
    """Beams are chosen anew, a file is written and read, a row writes another target."""
    made, target, following = model(), tokens(3, 9), tokens(3, 4, seed=2)
    _, state = made(sources(), target, source_valid=MASK)
    expected, _ = made.decode(following, state)
    rows = torch.tensor([2, 2, 0, 1])
    beams, _ = made.decode(following[rows], state.select(rows))
    torch.testing.assert_close(beams, expected[rows], **EXACT)
    state.save(tmp_path / "state.safetensors")
    loaded = State.load(tmp_path / "state.safetensors")
    assert torch.equal(made.decode(following, loaded)[0], expected)
    afresh, _ = made.decode(following, state.reset(torch.tensor([False, True, False])))
    torch.testing.assert_close(afresh[::2], expected[::2], **EXACT)
    first, _ = made(sources()[1:2], following[1:2], source_valid=MASK[1:2])
    torch.testing.assert_close(afresh[1:2], first, **EXACT)


def test_a_source_may_be_vectors() -> None:
    torch.manual_seed(0)
    config = EncoderDecoderConfig(encoder=ENCODER, decoder=DECODER)
    made = EncoderDecoder(config, None, VOCABULARY).double().eval()
    frames = torch.randn(2, 5, 8).double().requires_grad_()
    logits, state = made(frames, tokens(2, 3))
    logits.sum().backward()
    assert logits.shape == (2, 3, VOCABULARY)
    assert frames.grad is not None
    assert frames.grad.abs().amax((0, 2)).min() > 0
    assert len(state.sources) == 2


@torch.no_grad()
def test_another_memory_reads_the_same_source() -> None:
    made, source, target = model(), sources(), tokens(3, 19)
    _, state = made(source, target[:, :3])
    other = made.decoder.remembering(9)
    assert other.cross == made.decoder.cross
    again, _ = other(target, other.reading(made.encoder(source)))
    torch.testing.assert_close(again[:, :4], made(source, target)[0][:, :4], **EXACT)
    assert not torch.allclose(again, made(source, target)[0])
    assert other(target[:, 3:], state)[0].isfinite().all()


# -- learning -------------------------------------------------------------------------------------


@pytest.mark.parametrize("placement", ["pre", "post"])
def test_every_weight_has_a_gradient(placement: Any) -> None:
    made = model(replace(DECODER, placement=placement), CrossConfig(score=Additive(3))).train()
    logits, _ = made(sources(), tokens(3, 4), source_valid=MASK)
    logits.sin().sum().backward()
    idle = [n for n, p in made.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


def test_learning_starts_with_branches_that_shrink_with_depth() -> None:
    torch.manual_seed(0)
    config = replace(DECODER, width=64, heads=4, head_dim=None, layers=6)
    made = Decoder(config, VOCABULARY, cross=CrossConfig())
    for block in made.blocks():
        assert block.cross is not None
        for last in (block.mixer.o, block.cross.o):
            # 18 branches, each a share of the variance
            assert float(last.weight.detach().std()) == pytest.approx(64**-0.5 / 18**0.5, rel=0.05)


def test_dropout_is_of_training() -> None:
    made = model(replace(DECODER, dropout=0.3))
    assert torch.equal(made(sources(), tokens(3, 4))[0], made(sources(), tokens(3, 4))[0])
    made.train()
    assert not torch.equal(made(sources(), tokens(3, 4))[0], made(sources(), tokens(3, 4))[0])


def test_shared_embeddings_are_one() -> None:
    encoder = replace(ENCODER, width=10, heads=2)
    config = EncoderDecoderConfig(encoder=encoder, decoder=DECODER, shared=True)
    made = EncoderDecoder(config, VOCABULARY, VOCABULARY)
    (table,) = made.decoder.embedding.tables
    assert made.encoder.embedding is made.decoder.embedding
    assert made.decoder.head.tables[0] is table
    apart = EncoderDecoder(replace(config, shared=False), VOCABULARY, VOCABULARY)
    fewer = sum(p.numel() for p in apart.parameters()) - sum(p.numel() for p in made.parameters())
    assert fewer == table.numel()
    with pytest.raises(ConfigError, match="not source=5 and target=23"):
        EncoderDecoder(config, 5, VOCABULARY)


# -- what it refuses ------------------------------------------------------------------------------


def test_settings_that_cannot_be_are_refused_all_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        EncoderDecoderConfig(
            encoder=replace(ENCODER, vocabulary=VocabularyConfig(tied=False)),
            decoder=DECODER,
            cross=CrossConfig(source=3),
            shared=True,
        )
    assert caught.value.problems == [
        "cross.source=3 is not encoder.width=8; leave it out",
        "shared embeddings need one width, not encoder.width=8 and decoder.width=10",
        "shared embeddings need one vocabulary; make encoder.vocabulary equal to "
        "decoder.vocabulary",
    ]


def test_choices_that_exclude_each_other_say_where() -> None:
    with pytest.raises(IncompatibleConfig) as caught:
        model(
            replace(DECODER, pattern=Full(), memory=NoMemory()),
            CrossConfig(score=Additive(), position=Rotary()),
            encoder=replace(ENCODER, pattern=Causal(), memory=Cache()),
        )
    found = [(c.rule, c.reason.partition(":")[0]) for c in caught.value.conflicts]
    assert found == [("E1", "encoder"), ("D1", "decoder"), ("C1", "cross")]


def test_a_state_without_a_source_is_refused() -> None:
    made, target = model(), tokens(3, 4)
    message = "the state has no source, and this model reads one; begin with what encode"
    with pytest.raises(StateError, match=message):
        made.decoder(target)
    with pytest.raises(StateError, match=message):
        made.decode(target, made.decoder.start(3))
    state = made.encode(sources())
    with pytest.raises(StateError, match=r"source has 3 rows, the input 2; use state\.select"):
        made.decode(target[:2], state)
    with pytest.raises(StateError, match="sources of 1 layers, the model reads 2"):
        made.decode(target, replace(state, sources=state.sources[:1]))
    plain = Decoder(DECODER, VOCABULARY).double()
    with pytest.raises(StateError, match="the state has a source, and this model reads none"):
        plain(target, state)
    with pytest.raises(InputError, match="reads no other sequence; make it with cross=CrossConfig"):
        plain.reading(torch.zeros(1, 2, 8).double())


def test_sources_that_cannot_be_are_refused() -> None:
    made = model()
    with pytest.raises(InputError, match=r"source must be \(B, S\) tokens or \(B, S, C\) vectors"):
        made.encode(torch.zeros(4, dtype=torch.long))
    with pytest.raises(InputError, match=r"tokens must lie in 0 \.\. 16; found 99 \.\. 99"):
        made.encode(torch.full((1, 2), 99))
    with pytest.raises(InputError, match="row 1 of the source has no real token"):
        made.encode(sources(), MASK & (torch.arange(3) != 1)[:, None])


@pytest.mark.filterwarnings("ignore")
@torch.no_grad()
def test_compiling_gives_the_same() -> None:
    torch._dynamo.reset()
    made, target = model(replace(DECODER, layers=1)), tokens(3, 8)
    compiled = torch.compile(made.decoder, backend="aot_eager")
    expected, _ = made(sources(), target, source_valid=MASK)
    state, parts = made.encode(sources(), MASK), []
    for piece in target.split(4, 1):
        logits, state = compiled(piece, state)
        parts.append(logits)
    torch.testing.assert_close(torch.cat(parts, 1), expected, **EXACT)


def test_positions_of_both_kinds_enter() -> None:
    """What the samples call positions is all that there are."""
    assert {type(c.position) for c in COVER} == {type(p) for p in POSITIONS}
