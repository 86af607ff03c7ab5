"""What a text has not looked at of its source counts against it (1609.08144, equation 14)."""

from __future__ import annotations

import math
from functools import cache
from itertools import product

import pytest
import torch

from longspan import (
    Beam,
    Cache,
    Decoder,
    DecoderConfig,
    Decoding,
    EncoderConfig,
    EncoderDecoder,
    EncoderDecoderConfig,
    Rotary,
    Segments,
    Tokens,
    decode,
)
from longspan.errors import ConfigError, InputError
from tests.decoding.table import Table

VOCABULARY, END, LONGEST = 5, 0, 3
SIZES = {"width": 16, "heads": 2, "feed_forward": 24}
SOURCE = torch.tensor([[1, 2, 3, 4, 1, 2], [4, 3, 1, 0, 0, 0], [2, 0, 0, 0, 0, 0]])
VALID = torch.arange(6) < torch.tensor([6, 3, 1])[:, None]
PROMPTS = [[END], [END, 2], [END, 3, 1]]


@cache
def translator() -> EncoderDecoder:
    torch.manual_seed(6)
    config = EncoderDecoderConfig(
        encoder=EncoderConfig(**SIZES, layers=1),
        decoder=DecoderConfig(**SIZES, layers=2, position=Rotary(), memory=Cache()),
    )
    model = EncoderDecoder(config, VOCABULARY, VOCABULARY).double().eval()
    for cross in model.decoder.crosses():
        # sharp enough to leave some of the source out
        cross.q.weight.data.mul_(6)
    return model


@torch.no_grad()
def best_of_all(row: int, beta: float, power: float) -> tuple[float, tuple[int, ...]]:
    """Of every text the one with the highest score, each read as a whole."""
    model, prompt = translator(), PROMPTS[row]
    length = int(VALID[row].sum())
    scores = {}
    for count in range(LONGEST + 1):
        for text in product(range(1, VOCABULARY), repeat=count):
            whole = (*text, END) if count < LONGEST else text
            given = torch.tensor([[*prompt, *whole[:-1]]])
            state = model.encode(SOURCE[row : row + 1, :length])
            logits, _, alignment = model.align(given, state)
            first = len(prompt) - 1
            total = covered = 0.0
            for place, token in enumerate(whole):
                total += float(logits[0, first + place].log_softmax(-1)[token])
            for i in range(length):
                looked = sum(
                    float(alignment.weights[-1][0, head, first + place, i]) / 2
                    for head in range(2)
                    for place in range(len(whole))
                )
                covered += math.log(min(looked, 1))
            scores[text] = total / len(whole) ** power + beta * covered
    text = max(scores, key=lambda text: scores[text])
    return scores[text], text


@pytest.mark.parametrize(("beta", "power"), [(0.0, 1.0), (0.3, 1.0), (2.0, 0.0)])
def test_the_best_text_is_that_of_the_definition(beta: float, power: float) -> None:
    how = Decoding(
        strategy=Beam(
            beams=70, length_penalty=power, early_stopping="never", coverage_penalty=beta
        ),
        max_tokens=LONGEST,
    )
    model = translator()
    state = model.encode(SOURCE, VALID)
    found = decode(model.decoder, PROMPTS, state, decoding=how, end=END)
    for row, (best,) in enumerate(found):
        score, text = best_of_all(row, beta, power)
        assert best.tokens == text
        assert best.score == pytest.approx(score, abs=1e-6)


def test_coverage_decides_something() -> None:
    assert len({best_of_all(0, beta, 1.0)[1] for beta in (0.0, 0.3, 2.0)}) > 1


def test_a_long_prompt_counts_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its attention is no part of the text's, in however many pieces it is read."""
    how = Decoding(strategy=Beam(beams=3, coverage_penalty=1.0), max_tokens=4)
    model = translator()
    state = model.encode(SOURCE, VALID)
    whole = decode(model.decoder, PROMPTS, state, decoding=how, end=END)
    monkeypatch.setattr("longspan.decoding.step.PIECE", 1)
    pieces = decode(model.decoder, PROMPTS, state, decoding=how, end=END)
    assert [text.tokens for (text,) in pieces] == [text.tokens for (text,) in whole]
    assert [text.score for (text,) in pieces] == pytest.approx([t.score for (t,) in whole])


def test_alignment_in_pieces_is_that_of_one_call() -> None:
    model = translator()
    target = torch.randint(1, VOCABULARY, (3, 7), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits, _, alignment = model.align(target, model.encode(SOURCE, VALID))
        plain, _ = model.decode(target, model.encode(SOURCE, VALID))
        state, parts = model.encode(SOURCE, VALID), []
        for piece in target.split(2, 1):
            _, state, part = model.align(piece, state)
            parts.append(part.weights)
    assert torch.equal(logits, plain)
    assert torch.equal(alignment.valid, VALID)
    for layer, whole in enumerate(alignment.weights):
        assert whole.shape == (3, 2, 7, 6)
        torch.testing.assert_close(torch.cat([part[layer] for part in parts], 2), whole)
        torch.testing.assert_close(whole.sum(-1), torch.ones(3, 2, 7).double())
        assert not whole.masked_select(~VALID[:, None, None]).any()


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="coverage_penalty must be 0 or more, not -1"):
        Beam(coverage_penalty=-1)
    how = Decoding(strategy=Beam(coverage_penalty=1.0))
    with pytest.raises(InputError, match="attention to a source, which this step does not tell"):
        decode(Table.drawn(4, 1), [[1]], decoding=how)
    alone = Decoder(DecoderConfig(**SIZES, layers=1, memory=Cache()), 4).eval()
    with pytest.raises(InputError, match="reads no other sequence, with which it could be aligned"):
        decode(alone, [[1]], decoding=how)
    torch.manual_seed(0)
    config = EncoderDecoderConfig(
        encoder=EncoderConfig(**SIZES, layers=1),
        decoder=DecoderConfig(**SIZES, layers=1, pattern=Segments(2, 0), memory=Tokens(2)),
    )
    around = EncoderDecoder(config, VOCABULARY, VOCABULARY).eval()
    with pytest.raises(InputError, match="memory 'tokens' puts tokens of its own"):
        around.align(torch.ones(1, 1, dtype=torch.int64), around.encode(SOURCE[:1]))
