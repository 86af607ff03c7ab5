"""A prepared step gives what its model gives: logits and state, in any order of rows."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from longspan import (
    Beam,
    Cache,
    Decoder,
    DecoderConfig,
    Decoding,
    EncoderConfig,
    EncoderDecoder,
    EncoderDecoderConfig,
    Greedy,
    Learned,
    Recent,
    Rotary,
    Sinusoidal,
    State,
    Window,
    decode,
)
from longspan.errors import InputError, StateError
from longspan.kernels.reference import Reference
from longspan.models.branches import Branches
from longspan.models.stepping import LONG, Stepping, prepared
from longspan.models.vocabulary import VocabularyConfig

SIZE = 13
PLAIN = DecoderConfig(width=16, layers=2, heads=4, feed_forward=24, memory=Cache())
KINDS = {
    "pre": PLAIN,
    "post": replace(PLAIN, placement="post", final_norm=False, activation="relu"),
    "rms": replace(PLAIN, norm="rms", activation="swiglu"),
    "groups": replace(PLAIN, kv_heads=2, head_dim=6),
    "sines": replace(PLAIN, position=Sinusoidal()),
    "learned": replace(PLAIN, position=Learned(32)),
    "as BERT": replace(
        PLAIN,
        position=Learned(32),
        bias=True,
        epsilon=1e-3,
        placement="post",
        first_norm=True,
        final_norm=False,
        vocabulary=VocabularyConfig(scaled=False),
    ),
}
LEFT = {
    "turned": replace(PLAIN, position=Rotary()),
    "short": replace(PLAIN, pattern=Window(4), memory=Recent(4)),
    "bordered": replace(PLAIN, pattern=Window(4)),
    "named": replace(PLAIN, kernel=Reference()),
}


def decoder(config: DecoderConfig, dtype: torch.dtype = torch.float64) -> Decoder:
    torch.manual_seed(0)
    return spread(Decoder(config, SIZE)).to(dtype)


def reader(config: DecoderConfig) -> EncoderDecoder:
    torch.manual_seed(0)
    encoder = EncoderConfig(width=16, layers=1, heads=2, feed_forward=16)
    own = EncoderDecoderConfig(encoder=encoder, decoder=config)
    return spread(EncoderDecoder(own, SIZE, SIZE)).double()


def spread(model: Any) -> Any:
    """In evaluation mode, with biases that are not 0 and norms that do not multiply by 1."""
    for parameter in model.parameters():
        if parameter.dim() == 1:
            nn.init.normal_(parameter, 0.5, 0.3)
    return model.eval()


def same(mine: Any, others: State, tolerance: float) -> None:
    mine = mine.plain() if isinstance(mine, Branches) else mine
    mine_all, others_all = ((*s.layers, *s.sources) for s in (mine, others))
    assert torch.equal(mine.next, others.next)
    for own, other in zip(mine_all, others_all, strict=True):
        assert type(own) is type(other)
        # what a slot holds that holds nothing, nobody reads
        held, theirs = own.held(), other.held()
        for name in held:
            assert held[name].dtype == theirs[name].dtype
            torch.testing.assert_close(held[name], theirs[name], rtol=0, atol=tolerance)


@torch.no_grad()
def agree(step: Any, model: Decoder, state: State | None, tolerance: float = 1e-12) -> None:
    """Ragged prompts, then single tokens, the rows in another order each time."""
    torch.manual_seed(1)
    prompts = torch.randint(SIZE, (3, 5))
    valid = torch.arange(5) < torch.tensor([[5], [1], [3]])
    _, mine = step(prompts, state, valid=valid)
    theirs = mine
    for rows in ([0, 1, 2], [2, 2, 0], [1, 0, 2], [1, 2]):
        mine, theirs = (each.select(torch.tensor(rows)) for each in (mine, theirs))
        tokens = torch.randint(SIZE, (len(rows), 1))
        given, mine = step(tokens, mine)
        expected, theirs = model(tokens, theirs)
        torch.testing.assert_close(given, expected, rtol=0, atol=tolerance)
        same(mine, theirs, tolerance)


@pytest.mark.parametrize("config", KINDS.values(), ids=KINDS)
def test_a_step_is_the_models(config: DecoderConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    model = decoder(config)
    step = prepared(model)
    assert isinstance(step, Stepping)
    agree(step, model, None)
    # and it does not ask the model for single tokens
    _, state = model(torch.tensor([[1, 2]]))
    monkeypatch.setattr(model, "hidden", None)
    step(torch.tensor([[1]]), state)


@pytest.mark.parametrize("config", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("ragged", [False, True], ids=["whole", "ragged"])
def test_a_step_reads_a_source_as_the_model_does(config: DecoderConfig, ragged: bool) -> None:
    model = reader(config)
    valid = torch.arange(6) < torch.tensor([[6], [2], [4]]) if ragged else None
    state = model.encode(torch.randint(SIZE, (3, 6)), valid)
    step = prepared(model.decoder)
    assert isinstance(step, Stepping)
    agree(step, model.decoder, state)


def test_a_step_in_single_precision() -> None:
    model = decoder(KINDS["post"], torch.float32)
    agree(prepared(model), model, None, 1e-5)


def test_a_saved_state_goes_on_in_either(tmp_path: Any) -> None:
    model = decoder(KINDS["sines"])
    step, tokens = prepared(model), torch.tensor([[3], [4]])
    with torch.no_grad():
        _, state = step(tokens, model(tokens)[1])
        state = state.plain()
        state.save(tmp_path / "state")
        loaded = State.load(tmp_path / "state")
        torch.testing.assert_close(step(tokens, loaded)[0], model(tokens, state)[0])


@pytest.mark.parametrize("config", LEFT.values(), ids=LEFT)
def test_other_models_step_themselves(config: DecoderConfig) -> None:
    model = decoder(config)
    assert prepared(model) is model


def test_a_model_that_is_watched_or_trained_steps_itself() -> None:
    model = decoder(PLAIN)
    assert prepared(model.train()) is model
    handle = model.eval().layers[0].register_forward_hook(lambda *_: None)
    assert prepared(model) is model
    handle.remove()
    step = prepared(model)
    assert isinstance(step, Stepping)
    assert prepared(step) is step


def test_of_an_encoder_decoder_its_decoder_is_prepared() -> None:
    model = reader(PLAIN)
    step = prepared(model.decode)
    assert isinstance(step, Stepping)
    assert step.model is model.decoder
    # a function that only calls it may do more
    other = partial(model.decode)
    assert prepared(other) is other


def test_what_does_not_fit_is_refused_as_by_the_model() -> None:
    model = decoder(PLAIN)
    step, (_, state) = prepared(model), model(torch.tensor([[1]]))
    with pytest.raises(InputError, match=r"tokens must lie in 0 \.\. 12"):
        step(torch.tensor([[SIZE]]), state)
    with pytest.raises(StateError, match="1 rows, the input 2"):
        step(torch.tensor([[1], [1]]), state)
    other = decoder(replace(PLAIN, head_dim=5))
    with pytest.raises(StateError, match="another model's"):
        step(torch.tensor([[1]]), other(torch.tensor([[1]]))[1])


@torch.no_grad()
def test_what_goes_on_from_a_state_changes_no_other_that_does() -> None:
    model = decoder(KINDS["sines"])
    step = prepared(model)
    _, begun = model(torch.tensor([[1, 2], [3, 4]]))
    _, begun = step(torch.tensor([[5], [6]]), begun)
    rows = torch.tensor([0, 0, 1, 1])
    beams, others = begun.select(rows), begun.plain().select(rows)
    # both go on from one state, and then from a beam that both have seen
    first = step(torch.tensor([[1], [2], [3], [4]]), beams)[1]
    second = step(torch.tensor([[5], [6], [7], [8]]), beams)[1]
    assert first.room is not second.room
    for state, tokens in ((first, [1, 2, 3, 4]), (second, [5, 6, 7, 8])):
        same(state, model(torch.tensor(tokens)[:, None], others)[1], 1e-12)
    kept = first.select(torch.tensor([1, 1, 2, 3]))
    assert kept.room is first.room
    _, after = step(torch.tensor([[9], [1], [2], [3]]), kept)
    assert after.room is first.room
    same(first, model(torch.tensor([[1], [2], [3], [4]]), others)[1], 1e-12)


@pytest.mark.parametrize("kind", ["post", "sines", "groups"])
@pytest.mark.parametrize("strategy", [Greedy(), Beam(beams=3, n_best=2)], ids=["greedy", "beam"])
def test_decoding_prepares_and_writes_the_same(strategy: Any, kind: str) -> None:
    model = reader(KINDS[kind])
    valid = torch.arange(6) < torch.tensor([[6], [2], [4]])
    state = model.encode(torch.randint(SIZE, (3, 6)), valid)
    decoding, prompts = Decoding(strategy=strategy, max_tokens=LONG), [[1], [1, 2], [3]]

    def plain(
        tokens: Tensor, state: Any, /, *, valid: Tensor | None = None
    ) -> tuple[Tensor, State]:
        return model.decoder(tokens, state, valid=valid)

    found, expected = (
        decode(step, prompts, state, decoding=decoding, end=0) for step in (model.decoder, plain)
    )
    for mine, theirs in zip(found, expected, strict=True):
        assert [text.tokens for text in mine] == [text.tokens for text in theirs]
        assert [text.score for text in mine] == pytest.approx([text.score for text in theirs])
