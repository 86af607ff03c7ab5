"""Pooled hidden states, compared with loops; a decoder in pieces, compared with one in one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from longspan.errors import ConfigError, IncompatibleConfig, InputError
from longspan.memories.cache import Cache
from longspan.memories.recent import Recent
from longspan.memories.tokens import Tokens
from longspan.mixers.lstm import LSTM
from longspan.models import pooling
from longspan.models.classifier import CarriedConfig, Classifier, WholeConfig, config_of
from longspan.models.decoder import Decoder, DecoderConfig
from longspan.models.encoder import Encoder, EncoderConfig
from longspan.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from longspan.models.pooling import Pool, pooled, reader, weights
from longspan.models.prefix import Prefix
from longspan.patterns.causal import Causal
from longspan.patterns.segments import Segments
from longspan.positions.rotary import Rotary

SIZES: dict[str, Any] = {"width": 16, "layers": 2, "heads": 2, "feed_forward": 16}
VALID = torch.arange(9) < torch.tensor([9, 4, 1])[:, None]
TOKENS = torch.randint(0, 12, (3, 9), generator=torch.Generator().manual_seed(0))
POOLS: tuple[Pool, ...] = ("mean", "first", "last")


def by_loop(h: Tensor, valid: Tensor, pool: Pool) -> Tensor:
    rows = []
    for states, real in zip(h, valid, strict=True):
        own = [state for state, is_real in zip(states, real, strict=True) if is_real]
        chosen = {"mean": own, "first": own[:1], "last": own[-1:]}[pool]
        rows.append(sum(chosen, torch.zeros_like(own[0])) / len(chosen))
    return torch.stack(rows)


def encoder() -> Encoder:
    torch.manual_seed(1)
    return Encoder(EncoderConfig(**SIZES, position=Rotary()), 12).double().eval()


def decoder(**choice: Any) -> Decoder:
    torch.manual_seed(1)
    return Decoder(DecoderConfig(**SIZES, **choice), 12).double().eval()


DECODERS: dict[str, dict[str, Any]] = {
    "segments": {"pattern": Segments(4, 4), "memory": Recent(4), "position": Rotary()},
    "no memory": {"pattern": Segments(4, 0), "position": Rotary()},
    "wrapped": {"pattern": Segments(4, 0), "memory": Tokens(2), "position": Rotary()},
    "recurrent": {"mixer": LSTM()},
}


@pytest.mark.parametrize("pool", POOLS)
def test_an_encoders_vector_is_that_of_a_loop(pool: Pool) -> None:
    model = encoder()
    expected = by_loop(model(TOKENS, valid=VALID), VALID, pool)
    torch.testing.assert_close(pooled(model, TOKENS, VALID, pool), expected)
    assert weights(pool, VALID).sum(1).tolist() == pytest.approx([1, 1, 1])
    alone = pooled(model, TOKENS[1:2, :4], None, pool)
    torch.testing.assert_close(alone, expected[1:2])


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("pool", ["mean", "last"])
def test_a_decoders_vector_is_that_of_a_loop(pool: Pool, name: str) -> None:
    model = decoder(**DECODERS[name])
    expected = by_loop(model.hidden(TOKENS, valid=VALID)[0], VALID, pool)
    torch.testing.assert_close(pooled(model, TOKENS, VALID, pool), expected)
    model.train()
    torch.testing.assert_close(pooled(model, TOKENS, VALID, pool), expected)


def test_a_long_document_is_read_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the pattern has no segments; and no call sees more than a piece."""
    seen: list[int] = []
    step = Decoder.hidden

    def hidden(self: Decoder, tokens: Tensor, *more: Any, **named: Any) -> Any:
        seen.append(tokens.shape[1])
        return step(self, tokens, *more, **named)

    for choice, piece in (({"mixer": LSTM()}, 5), (DECODERS["segments"], 4)):
        model = decoder(**choice)
        whole = model.hidden(TOKENS)[0].mean(1)
        seen.clear()
        with monkeypatch.context() as patch:
            patch.setattr(Decoder, "hidden", hidden)
            patch.setattr(pooling, "PIECE", 5)
            torch.testing.assert_close(pooled(model, TOKENS, None, "mean"), whole)
        assert max(seen) == piece
        assert sum(seen) == 9


def test_the_gradient_flows_through_all_segments() -> None:
    model = decoder(**DECODERS["segments"]).train()
    model.embedding.tables[0].grad = None
    tokens = torch.tensor([[1, 2, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5]])
    pooled(model, tokens, None, "last")[0, 0].backward()
    grad = model.embedding.tables[0].grad
    assert grad is not None
    assert bool(grad[1].abs().sum() > 0), "the first token, two segments back, by two layers"


def test_a_row_without_a_token_has_no_vector() -> None:
    with pytest.raises(InputError, match="every sequence must have a token or more"):
        pooled(encoder(), TOKENS, VALID & torch.tensor([[True], [False], [True]]), "mean")
    with pytest.raises(InputError, match="every sequence must have a token or more"):
        pooled(encoder(), TOKENS[:, :0], None, "last")


def test_what_reads_is_found_in_every_model() -> None:
    one, other = EncoderConfig(**SIZES), DecoderConfig(**SIZES, memory=Cache())
    both = EncoderDecoder(EncoderDecoderConfig(encoder=one, decoder=other), 5, 5)
    assert reader(both) is both.encoder
    prefix = Prefix(other, 5)
    assert reader(prefix) is prefix.decoder
    model = Decoder(other, 5)
    assert reader(model) is model
    for config in (WholeConfig(encoder=one), CarriedConfig(decoder=other)):
        classifier = Classifier(config, 3, 5)
        assert reader(classifier) is classifier.stack
    with pytest.raises(InputError, match="a Linear has neither an encoder nor a decoder"):
        reader(torch.nn.Linear(1, 1))


# -- the classifier -------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", POOLS)
def test_scores_are_linear_in_the_vector(pool: Pool) -> None:
    config = WholeConfig(encoder=EncoderConfig(**SIZES), pool=pool, dropout=0.5)
    model = Classifier(config, 4, 12).eval()
    scores = model(TOKENS, valid=VALID)
    vector = by_loop(model.stack(TOKENS, valid=VALID), VALID, pool)
    torch.testing.assert_close(scores, vector @ model.head.weight.T + model.head.bias)
    assert not torch.equal(model.train()(TOKENS, valid=VALID), scores), "dropout"


def test_vectors_are_projected_to_the_models_width() -> None:
    config = WholeConfig(encoder=EncoderConfig(**SIZES, position=Rotary()))
    model = Classifier(config, 4, None, 5).eval()
    x = torch.randn(3, 9, 5)
    scores = model(x, valid=VALID)
    assert scores.shape == (3, 4)
    other = x.masked_fill(~VALID[:, :, None], 7.0)
    torch.testing.assert_close(model(other, valid=VALID), scores)
    assert model.project is not None
    h = model.stack.encode(model.project(x), valid=VALID)  # type: ignore[union-attr]
    torch.testing.assert_close(scores, model.head(by_loop(h, VALID, "mean")))


def test_scores_of_half_precision_are_float32() -> None:
    model = Classifier(WholeConfig(encoder=EncoderConfig(**SIZES)), 4, 12).eval().bfloat16()
    assert model(TOKENS, valid=VALID).dtype == torch.float32


def test_the_recipe_says_what_reads() -> None:
    assert config_of({"encoder": {}}) is WholeConfig
    assert config_of({"decoder": {}}) is CarriedConfig
    assert config_of(None) is WholeConfig


def test_choices_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.pool must be 'mean', 'first' or 'last'"):
        WholeConfig(encoder=EncoderConfig(**SIZES), pool="max")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"model\.dropout must be at least 0 and below 1"):
        WholeConfig(encoder=EncoderConfig(**SIZES), dropout=1.0)
    config = CarriedConfig(decoder=DecoderConfig(**SIZES, memory=Cache()), pool="first")
    (conflict,) = config.conflicts()
    assert conflict.rule == "H1"
    with pytest.raises(IncompatibleConfig):
        Classifier(WholeConfig(encoder=EncoderConfig(**SIZES, pattern=Causal())), 4, 12)
    with pytest.raises(ConfigError, match=r"give vectors to model\.encoder"):
        Classifier(CarriedConfig(decoder=DecoderConfig(**SIZES, memory=Cache())), 4, None, 5)
