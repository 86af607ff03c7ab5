"""The pointer: against loops of the paper's equations, in pieces, in beams, and learnt."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from longspan import (
    Cache,
    DecoderConfig,
    EncoderConfig,
    EncoderDecoder,
    EncoderDecoderConfig,
    Learned,
    Sinusoidal,
    decode,
)
from longspan.decoding.decode import Decoding
from longspan.decoding.strategies.beam import Beam
from longspan.decoding.strategies.contrastive import Contrastive
from longspan.errors import ConfigError, InputError, StateError
from longspan.models.stepping import Stepping, prepared

SIZES: dict[str, Any] = {"width": 8, "layers": 2, "heads": 2, "feed_forward": 12}
CONFIG = EncoderDecoderConfig(
    encoder=EncoderConfig(**SIZES, position=Sinusoidal()),
    decoder=DecoderConfig(**SIZES, position=Sinusoidal(), memory=Cache()),
    shared=True,
    pointer=True,
)
VOCABULARY = 12
LENGTHS = [(7, 4), (3, 5), (1, 2)]


@pytest.fixture
def model() -> EncoderDecoder:
    torch.manual_seed(3)
    made = EncoderDecoder(CONFIG, VOCABULARY, VOCABULARY).double().eval()
    for parameter in made.pointer.parameters():
        torch.nn.init.normal_(parameter)
    return made


@pytest.fixture
def batch() -> dict[str, Tensor]:
    torch.manual_seed(4)
    read, written = (torch.tensor(side)[:, None] for side in zip(*LENGTHS, strict=True))
    # few symbols, so that a token stands in a source more than once
    return {
        "source": torch.randint(6, (3, 7)),
        "target": torch.randint(9, (3, 5)),
        "source_valid": torch.arange(7) < read,
        "valid": torch.arange(5) < written,
    }


def by_hand(model: EncoderDecoder, source: list[int], target: list[int]) -> Tensor:
    """P(w) for each place of the target (equations 1, 2, 8 and 9 of 1704.04368), by loops."""
    pointer = model.pointer
    encoded = model.encoder(torch.tensor([source]))[0]
    state = model.encode(torch.tensor([source]))
    plain = replace(state, sources=state.sources[:-1])
    hidden, _ = model.decoder.hidden(torch.tensor([target]), plain)
    rows = []
    for h in hidden[0]:
        asked = pointer.q.weight @ h
        scores = [float(asked @ (pointer.k.weight @ each)) / 8**0.5 for each in encoded]
        powers = torch.tensor(scores).double().exp()
        a = powers / powers.sum()
        gate = torch.sigmoid(pointer.gate.weight @ h + pointer.gate.bias)
        row = gate * model.decoder.head(h).softmax(-1)
        for place, token in enumerate(source):
            row[token] += (1 - gate[0]) * a[place]
        rows.append(row)
    return torch.stack(rows)


@torch.no_grad()
def test_as_the_paper_writes_it(model: EncoderDecoder, batch: dict[str, Tensor]) -> None:
    given = {name: batch[name] for name in ("source_valid", "valid")}
    found, _ = model(batch["source"], batch["target"], **given)
    for row, (s, t) in enumerate(LENGTHS):
        source, target = batch["source"][row, :s].tolist(), batch["target"][row, :t].tolist()
        expected = by_hand(model, source, target)
        torch.testing.assert_close(found[row, :t].exp(), expected, rtol=0, atol=1e-6)
        assert float(found[row, :t].exp().sum(-1).sub(1).abs().max()) < 1e-12


def test_losses_are_those_of_the_probabilities(
    model: EncoderDecoder, batch: dict[str, Tensor]
) -> None:
    """And so are their gradients, though (B, T, V) is never made."""
    targets = batch["target"].roll(-1, 1)
    real, given = batch["valid"], {name: batch[name] for name in ("source_valid", "valid")}
    whole, _ = model(batch["source"], batch["target"], **given)
    expected = -whole.gather(-1, targets[..., None])[..., 0][real]
    found = model.nll(batch["source"], batch["target"], targets, **given)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    parameters = list(model.parameters())
    slopes = [torch.autograd.grad(loss.sum(), parameters) for loss in (found, expected)]
    for one, other in zip(*slopes, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


def test_pieces_and_chosen_rows(model: EncoderDecoder, batch: dict[str, Tensor]) -> None:
    source, target = batch["source"], batch["target"]
    whole, _ = model(source, target)
    state = model.encode(source).select(torch.tensor([2, 0, 0]))
    parts = []
    step = prepared(model.step)
    assert isinstance(step.decoder, Stepping)
    for place in range(target.shape[1]):
        part, state = step(target[[2, 0, 0], place : place + 1], state)
        parts.append(part)
    torch.testing.assert_close(torch.cat(parts, 1), whole[[2, 0, 0]], rtol=0, atol=1e-12)


@pytest.mark.parametrize("penalty", [0.0, 0.5], ids=["", "covering"])
def test_beams_point_as_they_do_one_by_one(
    model: EncoderDecoder, batch: dict[str, Tensor], penalty: float
) -> None:
    class Plain:
        """The step without anything prepared."""

        def __call__(self, *given: Any, **more: Any) -> Any:
            return model.decode(*given, **more)

        def align(self, *given: Any, **more: Any) -> Any:
            return model.align(*given, **more)

    state = model.encode(batch["source"], batch["source_valid"])
    strategy = Beam(beams=3, n_best=3, coverage_penalty=penalty)
    decoding, prompts = Decoding(strategy=strategy, max_tokens=8), [[1], [2, 3], [4]]
    mine, theirs = (
        decode(step, prompts, state, decoding=decoding, end=0) for step in (model.step, Plain())
    )
    for ours, others in zip(mine, theirs, strict=True):
        assert [text.tokens for text in ours] == [text.tokens for text in others]
        assert [text.score for text in ours] == pytest.approx([text.score for text in others])


def test_beams_ask_their_source_together(model: EncoderDecoder) -> None:
    """What beams write and how they are scored is what the model says of them, one by one."""
    source = torch.tensor([[1, 2, 3, 2], [4, 4, 5, 1], [3, 1, 5, 5]])
    beams = Decoding(strategy=Beam(beams=3), max_tokens=5)
    for row, texts in enumerate(
        decode(model.step, [[0]] * 3, model.encode(source), decoding=beams)
    ):
        for text in texts:
            chances, _ = model(source[row, None], torch.tensor([[0, *text.tokens[:-1]]]))
            expected = chances[0].gather(1, torch.tensor(text.tokens)[:, None])[:, 0]
            torch.testing.assert_close(torch.tensor(text.log_probs).double(), expected)


def test_alignment_is_where_it_points(model: EncoderDecoder, batch: dict[str, Tensor]) -> None:
    state = model.encode(batch["source"], batch["source_valid"])
    logits, _, made = model.align(batch["target"], state)
    torch.testing.assert_close(logits, model.decode(batch["target"], state)[0])
    (weights,) = made.weights
    assert weights.shape == (3, 1, 5, 7)
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 1, 5).double())
    assert not bool(weights.masked_select(~batch["source_valid"][:, None, None]).any())


def test_it_learns_to_copy_symbols_that_it_never_wrote() -> None:
    """Half of them whole, at least; no target of training held one."""
    torch.manual_seed(5)
    side: dict[str, Any] = {**SIZES, "width": 32, "position": Learned(8)}
    parts = EncoderConfig(**side), DecoderConfig(**side, memory=Cache())
    model = EncoderDecoder(replace(CONFIG, encoder=parts[0], decoder=parts[1]), 40, 40).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    edge = torch.zeros(32, 1, dtype=torch.long)
    for _ in range(160):
        source = torch.randint(1, 30, (32, 5))
        inputs, targets = torch.cat([edge, source], 1), torch.cat([source, edge], 1)
        optimizer.zero_grad()
        model.nll(source, inputs, targets).mean().backward()
        optimizer.step()
    model.eval()
    source = torch.randint(30, 40, (32, 5))
    beams = Decoding(strategy=Beam(beams=2), max_tokens=6)
    found = decode(model.step, [[0]] * 32, model.encode(source), decoding=beams, end=0)
    texts = [best.tokens for best, *_ in found]
    right = [text == tuple(row) for text, row in zip(texts, source.tolist(), strict=True)]
    assert sum(right) >= 16


def test_contrastive_search_is_refused(model: EncoderDecoder) -> None:
    state = model.encode(torch.tensor([[1, 2]]))
    with pytest.raises(InputError, match=r"with a pointer, .* take another strategy"):
        decode(model.step, [[0]], state, decoding=Decoding(strategy=Contrastive()))


def test_refused(model: EncoderDecoder) -> None:
    with pytest.raises(ConfigError, match="a pointer copies within one vocabulary"):
        EncoderDecoder(replace(CONFIG, shared=False), 12, 13)
    plain = EncoderDecoder(replace(CONFIG, pointer=False), 12, 12).double()
    tokens = torch.zeros(1, 1, dtype=torch.long)
    with pytest.raises(StateError, match="nothing to point at, and this model points"):
        model.decode(tokens, plain.encode(tokens))
    with pytest.raises(StateError, match="nothing to point at"):
        model.decode(tokens, model.decoder.start(1))
