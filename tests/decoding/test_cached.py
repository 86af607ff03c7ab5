"""Decoding from the state equals decoding by the whole text anew at every step, and as it streams.

For every causal memory, position and mixer, ragged prompts longer than a segment, and beams, whose
states change places at every step; of decoders and of encoder-decoders.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from longspan import (
    LSTM,
    Beam,
    DecoderConfig,
    Decoding,
    EncoderConfig,
    EncoderDecoder,
    EncoderDecoderConfig,
    Greedy,
    Hypothesis,
    Infini,
    Segments,
    State,
    decode,
)
from longspan.decoding.decode import stream
from tests.contracts.samples import (
    COVER,
    MEMORIES,
    MIXERS,
    POSITIONS,
    VOCABULARY,
    decoder,
    named,
    stack,
)

START = 0
LENGTHS = (1, 17, 10)
"""Of the prompts: segments of the samples have 4 and 8 tokens."""

CAUSAL = [mixer for mixer in MIXERS if mixer.causal]
STACKS = [stack(mixer, softmax=1) for mixer in CAUSAL]
# beside a memory that writes where a segment ends, for which the model cuts its input there
STACKS.append(replace(stack(LSTM(), softmax=1), pattern=Segments(8, 0), memory=Infini()))


def covering() -> list[DecoderConfig]:
    """As few of the samples as hold every position, pattern and memory; found greedily."""

    def chosen(config: DecoderConfig) -> set[object]:
        return {config.position, config.pattern, config.memory}

    left, result = set().union(*map(chosen, COVER)), []
    while left:
        result.append(max(COVER, key=lambda config: len(left & chosen(config))))
        left -= chosen(result[-1])
    return result


CONFIGS = {named(config): config for config in covering()}
CONFIGS |= {f"{c.stack[0].mixer!r}-{c.memory.name}": c for c in STACKS}
REST = {named(c): pytest.param(c, marks=pytest.mark.slow) for c in COVER if named(c) not in CONFIGS}
every = pytest.mark.parametrize("config", (CONFIGS | REST).values(), ids=CONFIGS | REST)


def test_every_causal_choice_is_here() -> None:
    mixers = [mixer for config in CONFIGS.values() for mixer, _, _ in config.each_layer()]
    assert set(POSITIONS) <= {config.position for config in CONFIGS.values()}
    assert set(MEMORIES) <= {config.memory for config in CONFIGS.values()}
    assert set(CAUSAL) <= set(mixers)


@dataclass(frozen=True)
class Prefix:
    """All that was written: (N, L) int64, left-aligned, and each row's number of real tokens."""

    tokens: Tensor
    counts: Tensor
    source: State | None

    def select(self, rows: Tensor) -> Prefix:
        source = None if self.source is None else self.source.select(rows)
        return Prefix(self.tokens[rows], self.counts[rows], source)


def anew(model: Callable[..., tuple[Tensor, State]], source: State | None = None) -> Any:
    """A step that carries nothing on but the text, and reads all of it each time."""

    def step(
        tokens: Tensor, state: Prefix | None, /, *, valid: Tensor | None = None
    ) -> tuple[Tensor, Prefix]:
        rows, new = tokens.shape
        if state is None:
            state = Prefix(tokens[:, :0], torch.zeros(rows, dtype=torch.int64), source)
        added = torch.full((rows,), new) if valid is None else valid.sum(1)
        texts = [
            [*state.tokens[row, : state.counts[row]].tolist(), *tokens[row, : added[row]].tolist()]
            for row in range(rows)
        ]
        counts = state.counts + added
        longest = int(counts.max())
        whole = torch.tensor([text + [0] * (longest - len(text)) for text in texts])
        real = torch.arange(longest) < counts[:, None]
        logits, _ = model(whole, state.source, valid=real)
        slots = (state.counts[:, None] + torch.arange(new)).clamp(max=longest - 1)
        own = logits[torch.arange(rows)[:, None], slots]
        return own, Prefix(whole, counts, state.source)

    return step


def prompts() -> list[list[int]]:
    generator = torch.Generator().manual_seed(2)
    return [
        [START, *torch.randint(1, VOCABULARY, (n - 1,), generator=generator).tolist()]
        for n in LENGTHS
    ]


def assert_same(mine: list[list[Hypothesis]], theirs: list[list[Hypothesis]]) -> None:
    for row, other in zip(mine, theirs, strict=True):
        assert [h.tokens for h in row] == [h.tokens for h in other]
        for a, b in zip(row, other, strict=True):
            assert a.log_probs == pytest.approx(b.log_probs, abs=1e-9)
            assert a.score == pytest.approx(b.score, abs=1e-9)


def told(step: Any, given: list[list[int]], state: State | None, how: Decoding) -> list[list[int]]:
    """The tokens of a stream."""
    texts: list[list[int]] = [[] for _ in given]
    for each in stream(step, given, state, decoding=how, end=START):
        if each.token != START:
            texts[each.row].append(each.token)
    return texts


BEAMS = Decoding(strategy=Beam(beams=3, n_best=3), max_tokens=7)
GREEDY = Decoding(strategy=Greedy(), max_tokens=7)


@every
def test_cached_equals_uncached_equals_streamed(config: DecoderConfig) -> None:
    model, given = decoder(config), prompts()
    found = decode(model, given, decoding=BEAMS, end=START)
    assert_same(found, decode(anew(model), given, decoding=BEAMS, end=START))
    # what came before is read as a stream: token by token, and the last is left to decoding
    state = None
    with torch.no_grad():
        for token in given[1][:-1]:
            _, state = model(torch.tensor([[token]]), state)
    last = [given[1][-1:]]
    assert_same(decode(model, last, state, decoding=BEAMS, end=START), found[1:2])
    greedy = decode(anew(model), given, decoding=GREEDY, end=START)
    assert told(model, given, None, GREEDY) == [list(row[0].tokens) for row in greedy]
    assert told(model, last, state, GREEDY) == [list(greedy[1][0].tokens)]


def test_what_was_read_matters() -> None:
    """Or equality would say nothing: without what came before the same model writes otherwise."""
    different = 0
    for config in CONFIGS.values():
        model, given = decoder(config), prompts()
        whole, last = (
            decode(model, texts, decoding=Decoding(max_tokens=1), end=START)
            for texts in (given, [prompt[-1:] for prompt in given])
        )
        different += [row[0].log_probs for row in whole] != [row[0].log_probs for row in last]
    assert different == len(CONFIGS)


def reading(config: DecoderConfig) -> EncoderDecoder:
    """An encoder-decoder in float64 whose every parameter is random."""
    encoder = EncoderConfig(width=10, layers=1, heads=2, feed_forward=12)
    torch.manual_seed(0)
    both = EncoderDecoderConfig(encoder=encoder, decoder=config)
    model = EncoderDecoder(both, 11, VOCABULARY).double().eval()
    for name, parameter in model.named_parameters():
        scale = 0.1 if "norm" in name else 0.4
        nn.init.normal_(parameter, 1.0 if name.endswith("norm.weight") else 0.0, scale)
    return model


@every
def test_encoder_decoders_too(config: DecoderConfig) -> None:
    model, given = reading(config), prompts()
    generator = torch.Generator().manual_seed(5)
    source = torch.randint(0, 11, (3, 7), generator=generator)
    valid = torch.arange(7) < torch.tensor([[7], [1], [5]])
    with torch.no_grad():
        state = model.encode(source, valid)
    found = decode(model.decode, given, state, decoding=BEAMS, end=START)
    uncached = anew(model.decode, state)
    assert_same(found, decode(uncached, given, decoding=BEAMS, end=START))
    assert told(model.decode, given, state, BEAMS) == [list(row[0].tokens) for row in found]
    # and no row knows of another's source
    with torch.no_grad():
        alone = model.encode(source[2:3, :5])
    assert_same(decode(model.decode, given[2:3], alone, decoding=BEAMS, end=START), found[2:3])


def test_beams_of_a_row_share_their_source() -> None:
    """What was read is not moved while beams change places."""
    model = reading(CONFIGS[next(iter(CONFIGS))])
    with torch.no_grad():
        state = model.encode(torch.arange(10).reshape(2, 5))
    places = []

    def step(tokens: Tensor, state: State, /, *, valid: Tensor | None = None) -> Any:
        places.append(state.sources[0].tensors()["k"].data_ptr())
        return model.decode(tokens, state, valid=valid)

    found = decode(step, [[START], [START]], state, decoding=BEAMS)
    want = decode(anew(model.decode, state), [[START], [START]], decoding=BEAMS)
    assert_same(found, want)
    # the prompt's call, then all beams
    assert len(set(places)) == 2
    assert places[1:] == [places[1]] * 6
