"""Contrastive search against a loop that says what it means, without states.

Hugging Face has moved its own out of transformers (5 loads it from the Hub), so it is no peer here.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

import longspan
from longspan import (
    Cache,
    Contrastive,
    Decoder,
    DecoderConfig,
    Decoding,
    EncoderConfig,
    EncoderDecoder,
    EncoderDecoderConfig,
    Greedy,
    NoRepeat,
    Rotary,
    decode,
)
from longspan.decoding.search import Filter
from longspan.errors import ConfigError, DecodingError, InputError
from tests.decoding.table import Table, ragged

VOCABULARY, END, LONGEST = 13, 0, 14
SIZES = {"width": 16, "heads": 2, "feed_forward": 24}


@cache
def decoder() -> Decoder:
    torch.manual_seed(3)
    config = DecoderConfig(**SIZES, layers=2, position=Rotary(), memory=Cache())
    model = Decoder(config, VOCABULARY).double().eval()
    # so that candidates are near one another, and likeness decides
    model.head.bias.data.zero_()
    return model


@cache
def translator() -> EncoderDecoder:
    torch.manual_seed(4)
    config = EncoderDecoderConfig(
        encoder=EncoderConfig(**SIZES, layers=1),
        decoder=DecoderConfig(**SIZES, layers=2, position=Rotary(), memory=Cache()),
    )
    return EncoderDecoder(config, VOCABULARY, VOCABULARY).double().eval()


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / (a @ a).sqrt() / (b @ b).sqrt())


def naive(
    prompt: list[int],
    k: int,
    alpha: float,
    *,
    filters: tuple[Filter, ...] = (),
    source: Tensor | None = None,
) -> list[int]:
    """Equation 5 of 2202.06417, of one row, with a whole pass for every candidate."""

    def hidden(text: list[int]) -> Tensor:
        if source is None:
            return decoder().hidden(torch.tensor([text]))[0][0]
        state = translator().encode(source[None])
        return translator().decoder.hidden(torch.tensor([text]), state)[0][0]

    head = decoder().head if source is None else translator().decoder.head
    text = list(prompt)
    for _ in range(LONGEST):
        before = hidden(text)
        logits = head(before[-1:])
        for each in filters:
            logits = each(logits, torch.tensor([text]))
        probs = logits[0].softmax(-1)
        worth = {}
        for v in probs.argsort(descending=True)[:k].tolist():
            newest = hidden([*text, v])[-1]
            alike = max(cosine(newest, h) for h in before)
            worth[v] = (1 - alpha) * float(probs[v]) - alpha * alike
        best = max(worth, key=lambda v: worth[v])
        if best == END:
            break
        text.append(best)
    return text[len(prompt) :]


@torch.no_grad()
@pytest.mark.parametrize(("k", "alpha"), [(1, 0.6), (4, 0.6), (5, 0.2), (13, 0.9), (50, 1.0)])
def test_of_a_decoder_with_ragged_prompts(k: int, alpha: float) -> None:
    prompts = ragged(5, 6, VOCABULARY, seed=k)
    how = Decoding(strategy=Contrastive(candidates=k, alpha=alpha), max_tokens=LONGEST)
    found = decode(decoder(), prompts, decoding=how, end=END)
    assert [list(text.tokens) for (text,) in found] == [naive(p, k, alpha) for p in prompts]


@torch.no_grad()
def test_likeness_decides_something() -> None:
    """Else the comparison above would say little."""
    prompts = ragged(5, 6, VOCABULARY, seed=1)
    found = {
        alpha: [naive(prompt, 4, alpha) for prompt in prompts] for alpha in (0.0, 0.2, 0.6, 1.0)
    }
    greedy = decode(decoder(), prompts, decoding=Decoding(max_tokens=LONGEST), end=END)
    assert found[0.0] == [list(text.tokens) for (text,) in greedy]
    assert len({str(texts) for texts in found.values()}) >= 3


@torch.no_grad()
def test_of_an_encoder_decoder_under_a_filter() -> None:
    model, filters = translator(), (NoRepeat(2),)
    source = torch.randint(1, VOCABULARY, (3, 7), generator=torch.Generator().manual_seed(5))
    prompts = [[END], [END, 3, 4], [END, 7]]
    how = Decoding(strategy=Contrastive(candidates=3), filters=filters, max_tokens=LONGEST)
    found = decode(model.decoder, prompts, model.encode(source), decoding=how, end=END)
    for (text,), prompt, row in zip(found, prompts, source, strict=True):
        # an end token is no part of a text, as filters see it
        seen = [token for token in prompt if token != END]
        filtered = naive([END, *seen], 3, 0.6, filters=filters, source=row)
        assert list(text.tokens) == filtered


def test_a_long_prompt_is_read_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = ragged(4, 9, VOCABULARY, seed=2)
    how = Decoding(strategy=Contrastive(), max_tokens=6)
    whole = decode(decoder(), prompts, decoding=how, end=END)
    monkeypatch.setattr("longspan.decoding.strategies.contrastive.PIECE", 2)
    pieces = decode(decoder(), prompts, decoding=how, end=END)
    assert [text.tokens for (text,) in pieces] == [text.tokens for (text,) in whole]


def test_what_was_considered() -> None:
    how = Decoding(strategy=Contrastive(candidates=3, alpha=0.5), max_tokens=4)
    ((text,),) = decode(decoder(), [[1, 2]], decoding=how, alternatives=1)
    assert len(text.considered) == 4
    for step, token in zip(text.considered, text.tokens, strict=True):
        assert [c.fate for c in step] == ["chosen", "dropped", "dropped"]
        assert step[0].token == token
        for c in step:
            chance = torch.tensor(c.filtered).exp().item()
            assert c.score == pytest.approx(0.5 * chance - c.penalty, abs=1e-6)


def test_a_run_compares_with_its_prompt(trained: Path) -> None:
    run = longspan.load(trained, device="cpu", dtype="float64")
    how = Decoding(strategy=Contrastive(candidates=6, alpha=0.9), max_tokens=30)
    codec = run.tokenizer
    prompt = [codec.start, *codec.prompt("abc abc abc").tolist()]
    ((text,),) = decode(run.language_model, [prompt], decoding=how, end=codec.start)
    assert longspan.generate(run, "abc abc abc", decoding=how) == text.text(codec.piece).decode(
        "utf-8", "replace"
    )
    assert longspan.generate(run, "abc abc abc", decoding=Decoding(strategy=Greedy())) != text


def test_refusals() -> None:
    with pytest.raises(ConfigError, match=r"2 problems"):
        Contrastive(candidates=0, alpha=1.5)
    how = Decoding(strategy=Contrastive())
    with pytest.raises(InputError, match=r"shows none; give the decoder itself \(model.decoder\)"):
        decode(Table.drawn(5, 1), [[1]], decoding=how)
    with pytest.raises(DecodingError, match="no number"):
        decode(_Broken(), [[1]], decoding=how)


class _Broken:
    """Its hidden states are no numbers after the first."""

    def hidden(self, tokens: Tensor, state: Table | None, *, valid: Tensor | None = None):
        h = torch.ones(*tokens.shape, 4)
        return (h if state is None else h * torch.nan), _Nothing()

    def head(self, h: Tensor) -> Tensor:
        return torch.zeros(*h.shape[:2], 7)

    def __call__(self, tokens: Tensor, state: None, *, valid: Tensor | None = None):
        h, state = self.hidden(tokens, state)
        return self.head(h), state


class _Nothing:
    def select(self, rows: Tensor) -> _Nothing:
        return self
