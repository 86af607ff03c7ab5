"""The decoder as a whole: what it takes, what it shares, and what it computes in."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from longspan import (
    LSTM,
    XL,
    Alibi,
    Cache,
    Causal,
    ConfigError,
    Convolution,
    Decoder,
    DecoderConfig,
    NoMemory,
    NoPosition,
    Recent,
    Rotary,
    Segments,
    Sinusoidal,
    Window,
)
from longspan.errors import InputError
from longspan.models import decoder as module
from longspan.models.stack import Different
from longspan.models.vocabulary import VocabularyConfig
from longspan.slots import Position
from tests.contracts.samples import VOCABULARY, decoder, tokens
from tests.dispatch import Made

BASE = DecoderConfig(
    width=12,
    layers=2,
    heads=3,
    feed_forward=16,
    position=XL(),
    pattern=Segments(8, 6),
    memory=Recent(6),
)
EXACT = {"atol": 1e-10, "rtol": 0.0}
FLOATS = {torch.float64, torch.float32, torch.bfloat16, torch.float16}


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (torch.zeros(4, dtype=torch.long), r"tokens must be \(B, T\) with T ≥ 1, not \(4,\)"),
        (torch.zeros(2, 0, dtype=torch.long), r"with T ≥ 1, not \(2, 0\)"),
        (torch.zeros(2, 3, dtype=torch.int32), r"int64, not torch\.int32; use tokens\.long\(\)"),
        (torch.tensor([[0, VOCABULARY]]), r"tokens must lie in 0 \.\. 22; found 0 \.\. 23"),
        (torch.tensor([[5, -1]]), r"tokens must lie in 0 \.\. 22; found -1 \.\. 5"),
    ],
)
def test_tokens_that_cannot_be_are_refused(inputs: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        decoder(BASE)(inputs)


@pytest.mark.parametrize(
    ("settings", "problems"),
    [
        ({"width": 0}, ["model.width must be 1 or more, not 0"]),
        (
            {"layers": 0, "heads": -1, "dropout": 1.0},
            [
                "model.layers must be 1 or more, not 0",
                "model.heads must be 1 or more, not -1",
                "model.dropout must be at least 0 and below 1, not 1.0",
            ],
        ),
        (
            {"heads": 5},
            ["model.width=12 does not divide into model.heads=5; set model.head_dim as well"],
        ),
    ],
)
def test_settings_that_cannot_be_are_refused_all_at_once(
    settings: dict, problems: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        replace(BASE, **settings)
    assert caught.value.problems == problems


@torch.no_grad()
def test_logits_are_the_head_of_the_hidden_states() -> None:
    model = decoder(BASE)
    h, state = model.hidden(tokens(2, 9))
    logits, other = model(tokens(2, 9))
    assert logits.shape == (2, 9, VOCABULARY)
    assert torch.equal(model.head(h), logits)
    assert torch.equal(state.next, other.next)


@torch.no_grad()
def test_a_long_call_is_cut_at_segments() -> None:
    """So that a call costs what its segments cost, not the square of its length."""
    model = decoder(BASE)
    seen = []
    for block in model.blocks():
        block.register_forward_hook(lambda _module, args, _out: seen.append(args[0].shape[1]))
    model(tokens(1, 19))
    assert seen == [8, 8, 8, 8, 3, 3]
    seen.clear()
    model.train()(tokens(1, 19))
    assert seen == [19, 19]


@torch.no_grad()
def test_without_segments_it_is_cut_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PIECE", 5)
    model, inputs = decoder(replace(BASE, pattern=Causal(), memory=Cache())), tokens(1, 12)
    seen = []
    model.layers[0].register_forward_hook(lambda _module, args, _out: seen.append(args[0].shape[1]))
    logits, _ = model(inputs)
    assert seen == [5, 5, 2]
    monkeypatch.setattr(module, "PIECE", 100)
    torch.testing.assert_close(logits, model(inputs)[0], **EXACT)


def test_zero_filled_memory_begins_documents_between_segments_of_training() -> None:
    """In evaluation a call is cut there; in training one call is one segment, for every row."""
    model = decoder(replace(BASE, memory=Recent(6, init="zeros"))).train()
    inputs, starts = tokens(2, 8), torch.zeros(2, 8, dtype=torch.bool)
    starts[0, 5] = True
    with pytest.raises(InputError, match="in the middle of a segment of training; use memory"):
        model(inputs, starts=starts)
    model(inputs, starts=starts.roll(3, 1))
    model.eval()(inputs, starts=starts)


@torch.no_grad()
def test_a_position_of_the_input_is_added_once() -> None:
    model = decoder(replace(BASE, position=Sinusoidal()))
    seen = []
    model.layers[0].register_forward_hook(lambda _module, args, _out: seen.append(args[0]))
    inputs = tokens(2, 5)
    model(inputs)
    added = Sinusoidal().entry(12)(torch.arange(5)[None], torch.float64)
    torch.testing.assert_close(seen[0], model.embedding(inputs) + added, **EXACT)
    assert all(block.mixer.position == NoPosition() for block in model.blocks())


def test_a_norm_before_the_output_is_a_choice() -> None:
    assert decoder(replace(BASE, final_norm=False)).norm is None
    assert isinstance(decoder(replace(BASE, norm="rms")).norm, nn.RMSNorm)


def test_dropout_is_of_training() -> None:
    model, inputs = decoder(replace(BASE, dropout=0.3)), tokens(2, 8)
    assert torch.equal(model(inputs)[0], model(inputs)[0])
    model.train()
    assert not torch.equal(model(inputs)[0], model(inputs)[0])


# Reshaping.


@pytest.mark.parametrize(
    "config",
    [
        BASE,
        replace(BASE, position=XL(shared=True), placement="post", final_norm=False),
        replace(BASE, vocabulary=VocabularyConfig(cutoffs=(5, 10), div=2)),
        replace(BASE, vocabulary=VocabularyConfig(tied=False)),
    ],
    ids=["base", "shared u and v", "adaptive", "untied"],
)
@torch.no_grad()
def test_reshaping_shares_every_parameter_and_changes_nothing_by_itself(
    config: DecoderConfig,
) -> None:
    model, inputs = decoder(config), tokens(2, 21)
    expected, _ = model(inputs)
    other = model.remembering(6)
    assert other is not model
    assert other.config == model.config
    assert torch.equal(other(inputs)[0], expected)
    mine = dict(model.named_parameters(remove_duplicate=False))
    theirs = dict(other.named_parameters(remove_duplicate=False))
    assert mine.keys() == theirs.keys()
    assert all(mine[name] is theirs[name] for name in mine)
    assert [n for n, _ in model.named_parameters()] == [n for n, _ in other.named_parameters()]
    assert torch.equal(model(inputs)[0], expected)


@pytest.mark.parametrize("needs", [True, False])
def test_reshaping_leaves_the_first_model_as_it_was(needs: bool) -> None:
    """Gradients wanted or not, training or not, and no random number drawn."""
    model = decoder(BASE).requires_grad_(needs).train()
    model.layers[0].eval()
    torch.manual_seed(7)
    other = model.remembering(12, 16)
    drawn = torch.rand(1)
    torch.manual_seed(7)
    assert torch.equal(torch.rand(1), drawn)
    assert all(p.requires_grad == needs for p in model.parameters())
    modes = [m.training for m in model.modules()]
    assert modes == [m.training for m in other.modules()]
    assert not all(modes)
    assert (model.config.pattern, model.config.memory) == (Segments(8, 6), Recent(6))
    assert model.layers[0].mixer.pattern == Segments(8, 6)


@torch.no_grad()
def test_more_memory_is_another_pattern_and_another_memory() -> None:
    model, inputs = decoder(BASE), tokens(1, 30)
    other = model.remembering(20, 4)
    assert other.config == replace(BASE, pattern=Segments(4, 20), memory=Recent(20))
    direct = decoder(other.config)
    assert torch.equal(other(inputs)[0], direct(inputs)[0])
    first = slice(0, 4)
    torch.testing.assert_close(other(inputs)[0][:, first], model(inputs)[0][:, first], **EXACT)
    assert not torch.allclose(other(inputs)[0][:, 20:], model(inputs)[0][:, 20:])


MIXED = DecoderConfig(
    width=12,
    layers=4,
    heads=3,
    feed_forward=16,
    position=XL(),
    stack=(
        Different(mixer=LSTM(hidden=7)),
        Different(pattern=Segments(8, 6), memory=Recent(6)),
        Different(mixer=Convolution(3)),
        Different(pattern=Segments(8, 4), memory=Recent(9)),
    ),
)


@torch.no_grad()
def test_layers_that_take_a_memory_change_and_the_others_stay() -> None:
    """What the model itself says, and no layer takes, is not asked."""
    model, inputs = decoder(MIXED), tokens(2, 30)
    changed = {
        (Segments(4, 20), Recent(20)): model.remembering(20, 4),
        (Segments(8, 0), NoMemory()): model.reshaped(pattern=Segments(8, 0), memory=NoMemory()),
    }
    for (pattern, memory), other in changed.items():
        stack = tuple(
            replace(d, pattern=d.pattern and pattern, memory=d.memory and memory)
            for d in MIXED.stack
        )
        assert other.config == replace(MIXED, stack=stack)
        assert torch.equal(other(inputs)[0], decoder(other.config)(inputs)[0])
        mine = {p.data_ptr() for p in model.parameters()}
        assert {p.data_ptr() for p in other.parameters()} == mine
    other = model.segmented(4)
    assert [d.pattern for d in other.config.stack] == [None, Segments(4, 6), None, Segments(4, 4)]
    assert other.config.memories == MIXED.memories == [Recent(6), Recent(9)]
    assert not torch.allclose(other(inputs)[0], model(inputs)[0])


@torch.no_grad()
def test_a_stack_that_takes_no_memory_has_none_to_change() -> None:
    model = decoder(DecoderConfig(width=12, layers=2, heads=3, feed_forward=16, mixer=LSTM()))
    for change in (lambda: model.remembering(3), lambda: model.segmented(4)):
        with pytest.raises(ConfigError, match="no layer takes a memory or a pattern"):
            change()
    # to start from nothing needs no other model
    other = model.reshaped(pattern=Segments(8, 0), memory=NoMemory())
    assert other.config == model.config
    assert torch.equal(other(tokens(1, 20))[0], model(tokens(1, 20))[0])


def test_what_has_no_such_length_is_refused() -> None:
    windowed = decoder(replace(BASE, pattern=Window(7), memory=Recent(6)))
    assert windowed.remembering(9).config.pattern == Window(10)
    with pytest.raises(ConfigError, match="'window' cannot be evaluated with another"):
        windowed.remembering(9, 4)
    cached = decoder(replace(BASE, pattern=Causal(), memory=Cache()))
    with pytest.raises(ConfigError, match="'causal' cannot be evaluated with another"):
        cached.remembering(9)


@torch.no_grad()
def test_other_segments_are_another_pattern() -> None:
    config = replace(BASE, stack=(Different(pattern=Segments(8, 0)), Different()))
    model, inputs = decoder(config), tokens(1, 30)
    other = model.segmented(5)
    assert other.config.pattern == Segments(5, 6)
    assert other.config.stack[0].pattern == Segments(5, 0)
    assert torch.equal(other(inputs)[0], decoder(other.config)(inputs)[0])
    windowed = decoder(replace(BASE, pattern=Window(7), memory=Recent(6)))
    with pytest.raises(ConfigError, match="'window' cannot be evaluated with another"):
        windowed.segmented(5)


# What it computes in.

POSITIONS = [XL(clamp=4), Rotary(), Alibi(), Sinusoidal(), NoPosition()]
VOCABULARIES = [VocabularyConfig(), VocabularyConfig(cutoffs=(5, 10), div=2)]


@pytest.mark.parametrize("position", POSITIONS, ids=lambda p: p.name)
@pytest.mark.parametrize("vocabulary", VOCABULARIES, ids=["whole", "adaptive"])
def test_double_is_double_throughout(position: Position, vocabulary: VocabularyConfig) -> None:
    """Not one number of lower precision, in evaluation or training, forward or backward."""
    torch.manual_seed(0)
    model = Decoder(replace(BASE, position=position, vocabulary=vocabulary), VOCABULARY).double()
    inputs, starts = tokens(2, 8), torch.zeros(2, 8, dtype=torch.bool)
    starts[1, 3] = True
    for training in (False, True):
        model.train(training)
        with Made() as made:
            _, state = model(inputs)
            logits, state = model(inputs, state, starts=starts)
            h, _ = model.hidden(inputs, state, valid=torch.arange(8) < torch.tensor([[8], [5]]))
            loss = model.head.nll(h.flatten(0, 1), inputs.flatten())
            (loss.sum() + logits.sum()).backward()
        assert made.dtypes & FLOATS == {torch.float64}


@pytest.mark.parametrize("position", POSITIONS, ids=lambda p: p.name)
@torch.no_grad()
def test_bfloat16_stays_near(position: Position) -> None:
    config, inputs = replace(BASE, position=position), tokens(2, 80)
    torch.manual_seed(0)
    model = Decoder(config, VOCABULARY).eval()
    expected, _ = model(inputs)
    model.bfloat16()
    logits, state = model(inputs)
    assert logits.dtype == torch.bfloat16
    assert {t.dtype for t in state.layers[0].tensors().values()} == {torch.bfloat16, torch.long}
    assert (logits.float() - expected).abs().max() < 0.1
    assert logits.isfinite().all()


def test_bfloat16_trains_over_float32_weights() -> None:
    torch.manual_seed(0)
    model = Decoder(BASE, VOCABULARY).train()
    inputs, gradients = tokens(2, 16), []
    for low in (False, True):
        model.zero_grad()
        state = None
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            for piece in inputs.split(8, 1):
                h, state = model.hidden(piece, state)
                model.head.nll(h.flatten(0, 1), piece.flatten()).sum().backward()
                state = state.detach()
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        assert gradients[1][name].dtype == torch.float32
        assert (gradients[1][name] - gradient).norm() < 0.05 * gradient.norm() + 1e-3, name


@pytest.mark.parametrize("shared", [False, True])
def test_where_heads_begin_to_look_is_kept_by_sharing(shared: bool) -> None:
    made = Decoder(replace(BASE, position=XL(near=1.0, shared=shared)), VOCABULARY)
    first, second = (block.mixer.order.v for block in made.blocks())
    assert first.any(1).all()
    assert torch.equal(first, second) == shared
