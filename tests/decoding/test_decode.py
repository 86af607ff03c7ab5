"""Strategies against loops and exhaustion; rows, limits, chance and what is refused."""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from longspan import (
    Beam,
    ConfigError,
    Decoding,
    Diverse,
    Greedy,
    Hypothesis,
    MinP,
    NoRepeat,
    Repetition,
    Sample,
    Temperature,
    TopK,
    TopP,
    decode,
)
from longspan.config import build, plain
from longspan.decoding.decode import stream
from longspan.decoding.search import Strategy
from longspan.decoding.step import PIECE, prefill
from longspan.decoding.strategies.sample import drawn
from longspan.errors import DecodingError, InputError
from tests.decoding.searches import END, beams, best_of_all, greedy
from tests.decoding.table import Last, Table, ragged

STRATEGIES = [
    Greedy(),
    Sample(),
    Beam(beams=3, n_best=3),
    Diverse(beams=4, groups=2, diversity=1.0, n_best=4),
]
every = pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda s: s.name)


def whole(text: Hypothesis) -> list[int]:
    """Its tokens, with the end token if that is what ended it."""
    return [*text.tokens, *([END] if text.finish == "end" else [])]


def test_every_strategy_is_here() -> None:
    # these two need more of a step, and have tests of their own
    apart = {"contrastive", "speculative"}
    assert set(Strategy.all()) == {strategy.name for strategy in STRATEGIES} | apart


def test_greedy_is_the_likeliest_each_time() -> None:
    for seed in range(20):
        table, prompts = Table.drawn(7, seed), ragged(4, 5, 7, seed)
        found = decode(table, prompts, decoding=Decoding(max_tokens=9), end=END)
        assert [whole(row[0]) for row in found] == [greedy(table, p, 9) for p in prompts]


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_beams_are_those_of_the_definition(groups: int) -> None:
    several = 0
    for seed in range(60):
        draw = random.Random(seed)
        size = draw.choice([6, 9, 15])
        table, prompts = Table.drawn(size, seed, scale=2.0), ragged(3, 4, size, seed)
        # in doubles, so that rounding decides nothing
        table = Table(table.logits.double())
        width, longest = draw.randint(1, 3), draw.randint(1, 8)
        diversity, penalty = draw.choice([0.0, 0.3, 2.0]), draw.choice([0.0, 0.7, 1.0, 1.5])
        early = draw.choice([True, False, "never"])
        strategy: Strategy = Diverse(
            beams=groups * width,
            groups=groups,
            diversity=diversity,
            length_penalty=penalty,
            early_stopping=early,
            n_best=groups * width,
        )
        if groups == 1:
            # which has nobody to keep off
            strategy = Beam(beams=width, length_penalty=penalty, early_stopping=early, n_best=width)
        decoding = Decoding(strategy=strategy, max_tokens=longest)
        found = decode(table, prompts, decoding=decoding, end=END)
        for prompt, row in zip(prompts, found, strict=True):
            want = beams(
                table,
                prompt,
                width=width,
                groups=groups,
                diversity=diversity,
                penalty=penalty,
                early=early,
                longest=longest,
            )
            if want is None:
                continue
            assert [whole(h) for h in row] == [text for _, text in want], seed
            assert [h.score for h in row] == pytest.approx([score for score, _ in want])
            several += len(row) > 1
    assert several > 60


def test_enough_beams_find_the_best_of_all() -> None:
    """Never stopping early and without a length penalty, where no text falls off the beams."""
    strategy = Beam(beams=200, length_penalty=0.0, early_stopping="never")
    for seed in range(5):
        table = Table(Table.drawn(5, seed, scale=1.0).logits.double())
        ((found,),) = decode(
            table, [[2, 3]], decoding=Decoding(strategy=strategy, max_tokens=4), end=END
        )
        score, text = best_of_all(table, [2, 3], 4)
        assert whole(found) == text
        assert found.score == pytest.approx(score)


def test_diversity_makes_groups_differ() -> None:
    """Without it they write the same; with it they begin with different words."""
    table = Table.drawn(20, 1, scale=1.0)
    firsts = []
    for diversity in (0.0, 5.0):
        how = Diverse(beams=4, groups=4, diversity=diversity, n_best=4)
        (row,) = decode(table, [[3]], decoding=Decoding(strategy=how, max_tokens=5))
        firsts.append(len({h.tokens[0] for h in row}))
    assert firsts == [1, 4]


@every
def test_a_row_does_not_depend_on_its_neighbours(strategy: Strategy) -> None:
    """Nor on its place, but for the chances, which are the row's."""
    table, prompts = Table.drawn(9, 3, scale=1.0), ragged(7, 12, 9, 4)
    decoding = Decoding(
        strategy=strategy, filters=(Repetition(1.2), NoRepeat(3)), max_tokens=10, seed=5
    )
    found = decode(table, prompts, decoding=decoding, end=END)
    assert len({len(row[0].tokens) for row in found}) > 2, "rows end at different lengths"
    for count in (1, 3):
        assert decode(table, prompts[:count], decoding=decoding, end=END) == found[:count]
    if not strategy.draws:
        order = [4, 0, 6, 2]
        some = decode(table, [prompts[row] for row in order], decoding=decoding, end=END)
        assert some == [found[row] for row in order]


@every
def test_a_stream_is_what_is_decoded(strategy: Strategy) -> None:
    table, prompts = Table.drawn(9, 6), ragged(4, 5, 9, 6)
    decoding = Decoding(strategy=strategy, max_tokens=8, seed=2)
    found = decode(table, prompts, decoding=decoding, end=END)
    told: list[list[int]] = [[] for _ in prompts]
    chances: list[list[float]] = [[] for _ in prompts]
    last: list[Hypothesis | None] = [None] * len(prompts)
    for each in stream(table, prompts, decoding=decoding, end=END):
        assert last[each.row] is None, "nothing comes after a text's last token"
        told[each.row].append(each.token)
        chances[each.row].append(each.log_prob)
        last[each.row] = each.hypothesis
    assert told == [whole(row[0]) for row in found]
    assert chances == [list(row[0].log_probs) for row in found]
    assert last == [row[0] for row in found]


@every
def test_log_probabilities_are_the_models_own(strategy: Strategy) -> None:
    filters = (TopK(4), Temperature(2.0)) if strategy.draws else (Repetition(1.5),)
    table, prompts = Table.drawn(9, 8), ragged(5, 5, 9, 8)
    decoding = Decoding(strategy=strategy, filters=filters, max_tokens=8, seed=2)
    for prompt, row in zip(
        prompts, decode(table, prompts, decoding=decoding, end=END), strict=True
    ):
        for text in row:
            ids = whole(text)
            want = [
                float(table.after(prompt + ids[:place]).log_softmax(-1)[token])
                for place, token in enumerate(ids)
            ]
            assert list(text.log_probs) == pytest.approx(want, abs=1e-5)
            if strategy.commits:
                assert text.score == pytest.approx(sum(want), abs=1e-4)


def test_rows_that_are_done_leave_the_batch() -> None:
    table, prompts = Table.drawn(8, 3), ragged(6, 3, 8, 3)
    batches = []

    def step(tokens: Tensor, state: Last | None, /, *, valid: Tensor | None = None) -> Any:
        batches.append(len(tokens))
        return table(tokens, state, valid=valid)

    for strategy, each in ((Greedy(), 1), (Beam(beams=2), 2)):
        batches.clear()
        decoding = Decoding(strategy=strategy, max_tokens=30)
        found = decode(step, prompts, decoding=decoding, end=END)
        assert batches == [6, *sorted(batches[1:], reverse=True)]
        assert batches[-1] < 6 * each
        if strategy.commits:
            lengths = [len(row[0].log_probs) for row in found]
            # the last token of a text need not be read
            assert batches[1:] == [sum(n > t for n in lengths) for t in range(1, max(lengths))]


def test_a_long_prompt_is_read_in_pieces() -> None:
    table, prompts = Table.drawn(6, 0), [[1] * n + [2] for n in (2 * PIECE, 3, PIECE - 1, PIECE)]
    shapes = []

    def step(tokens: Tensor, state: Last | None, /, *, valid: Tensor | None = None) -> Any:
        shapes.append(tuple(tokens.shape))
        return table(tokens, state, valid=valid)

    logits, state = prefill(step, prompts, None, "cpu")
    assert shapes == [(4, PIECE), (4, PIECE), (4, 1)]
    assert torch.equal(logits, torch.stack([table.after(prompt) for prompt in prompts]))
    assert state.token.tolist() == [2] * 4


def test_of_a_prompt_only_the_last_logits_are_made() -> None:
    made = []

    class Shows:
        """A step of one-hot hidden states: its logits are a row of a table."""

        table = torch.arange(36.0).view(6, 6)

        def hidden(self, tokens: Tensor, state: Any, /, *, valid: Tensor | None = None) -> Any:
            return one_hot(tokens, 6).float(), state

        def head(self, h: Tensor, /) -> Tensor:
            made.append(tuple(h.shape))
            return h @ self.table

        def __call__(self, *given: Any, **more: Any) -> Any:
            raise AssertionError("logits of all tokens are made")

    logits, _ = prefill(Shows(), [[1] * n + [n % 6] for n in (PIECE, 3, 7)], None, "cpu")
    assert made == [(3, 1, 6)]
    assert torch.equal(logits, Shows.table[[PIECE % 6, 3, 1]])


# Limits


@every
def test_limits(strategy: Strategy) -> None:
    table, prompts = Table.drawn(6, 2, scale=1.0), ragged(8, 3, 6, 5)
    how = Decoding(strategy=strategy, max_tokens=7, seed=1)
    free = decode(table, prompts, decoding=how, end=END)
    assert any(row[0].finish == "end" and len(row[0].tokens) < 3 for row in free)
    for row in decode(table, prompts, decoding=replace(how, min_tokens=3), end=END):
        for text in row:
            assert len(text.tokens) >= 3
            assert len(text.log_probs) <= 7
            assert (text.finish == "length") == (len(text.tokens) == 7)
    none = decode(table, prompts, decoding=replace(how, max_tokens=0), end=END)
    assert all(
        row[0] == Hypothesis(tokens=(), score=0.0, log_probs=(), finish="length") for row in none
    )
    endless = decode(table, prompts, decoding=how)
    assert {len(text.tokens) for row in endless for text in row} == {7}


def piece(token: int) -> bytes:
    return [b"", b"a", b"b", b"ab", b"ba", b"c "][token]


@every
def test_stop_strings_end_a_text(strategy: Strategy) -> None:
    """Wherever they lie: in a token, across several, in its middle; and of several the first."""
    stops = ("aab", "bb", " a")
    table, prompts = Table.drawn(6, 2, scale=1.0), ragged(30, 2, 6, 9)
    how = Decoding(strategy=strategy, max_tokens=12, stop=stops, seed=3, min_tokens=1)
    finishes = Counter()
    for row in decode(table, prompts, decoding=how, end=END, piece=piece):
        for text in row:
            finishes[text.finish] += 1
            content = b"".join(map(piece, text.tokens))
            places = [content.find(stop.encode()) for stop in stops]
            found = [place for place in places if place >= 0]
            assert (text.finish == "stop") == bool(found)
            assert text.text(piece) == (content[: min(found)] if found else content)
            before = b"".join(map(piece, text.tokens[:-1]))
            assert not any(stop.encode() in before for stop in stops)
    assert finishes["stop"] > 10
    assert finishes["end"] > 3


# Chance

SMALL = Table(Table.drawn(4, 11, scale=1.0).logits.double())
"""Small enough to count every text of two tokens."""


@pytest.mark.parametrize(
    "filters",
    [
        (),
        (Temperature(0.6),),
        (TopK(2),),
        (TopP(0.8),),
        (Temperature(1.5), MinP(0.4)),
        (Repetition(1.8), NoRepeat(2), TopP(0.9)),
    ],
    ids=lambda filters: "-".join(each.name for each in filters) or "none",
)
def test_samples_follow_the_distribution(filters: tuple) -> None:
    """Chi-square of 6,000 texts of two tokens: below what chance exceeds once in 100,000."""
    prompt, rows = [1, 2, 1], 6_000
    chances: dict[tuple[int, ...], float] = {}
    for text in [(END,), *product(range(1, 4), range(4))]:
        chances[text] = 1.0
        for place, token in enumerate(text):
            before = [*prompt, *text[:place]]
            logits = SMALL.after(before)[None]
            for each in filters:
                logits = each(logits, torch.tensor([before]))
            chances[text] *= float(logits.softmax(-1)[0, token])
    assert sum(chances.values()) == pytest.approx(1)
    how = Decoding(strategy=Sample(), filters=filters, max_tokens=2, seed=7)
    found = decode(SMALL, [prompt] * rows, decoding=how, end=END)
    seen = Counter(tuple(whole(row[0])) for row in found)
    possible = {text: rows * p for text, p in chances.items() if p > 0}
    assert set(seen) <= set(possible)
    chi = sum((seen[text] - count) ** 2 / count for text, count in possible.items())
    # Wilson and Hilferty's approximation of the quantile
    free = len(possible) - 1
    assert free > 0
    assert chi < free * (1 - 2 / (9 * free) + 4.265 * math.sqrt(2 / (9 * free))) ** 3


def test_a_draw_never_takes_what_is_banned() -> None:
    """At both ends of what chance can be, also where sums are rounded."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(500, 50, generator=generator) * 20
    banned = torch.rand(500, 50, generator=generator) < 0.7
    banned[torch.arange(500), torch.randint(50, (500,), generator=generator)] = False
    logits = logits.masked_fill(banned, -torch.inf)
    for chance in (0.0, 1 - 2**-53):
        tokens = drawn(logits, torch.full((500,), chance, dtype=torch.float64))
        assert bool((logits[torch.arange(500), tokens] > -torch.inf).all())


def test_a_seed_repeats_and_no_seed_does_not() -> None:
    table = Table.drawn(30, 2, scale=0.5)
    how = Decoding(strategy=Sample(), max_tokens=20)
    texts = [
        decode(table, [[1], [1]], decoding=replace(how, seed=seed))
        for seed in (1, 1, 2, None, None)
    ]
    assert texts[0] == texts[1]
    assert len({row[0].tokens for found in texts[1:] for row in found}) == 8


# What was considered


@pytest.mark.parametrize("strategy", STRATEGIES[:2], ids=lambda s: s.name)
def test_what_was_considered_is_told(strategy: Strategy) -> None:
    table = Table.drawn(9, 8)
    how = Decoding(strategy=strategy, filters=(NoRepeat(1),), max_tokens=5, seed=3)
    ((text,),) = decode(table, [[4, 2]], decoding=how, alternatives=8)
    assert len(text.considered) == 5
    for place, candidates in enumerate(text.considered):
        before = [4, 2, *text.tokens[:place]]
        own = table.after(before).log_softmax(-1)
        (chosen,) = (c for c in candidates if c.fate == "chosen")
        assert chosen.token == text.tokens[place]
        assert chosen.log_prob == pytest.approx(text.log_probs[place], abs=1e-6)
        assert len(candidates) in (8, 9)
        for each in candidates:
            assert each.log_prob == pytest.approx(float(own[each.token]), abs=1e-6)
            assert (each.filtered == -math.inf) == (each.token in before)
        left = [c.filtered for c in candidates if c.filtered > -math.inf and c.fate != "chosen"]
        assert left == sorted(left, reverse=True)
    ((silent,),) = decode(table, [[4, 2]], decoding=how)
    assert silent == replace(text, considered=())


@pytest.mark.parametrize("strategy", STRATEGIES[2:], ids=lambda s: s.name)
def test_the_way_of_the_beams_can_be_followed(strategy: Strategy) -> None:
    """From what is told of each step every text that was put aside can be written down."""
    table = Table.drawn(9, 12, scale=2.0)
    how = Decoding(strategy=strategy, filters=(Repetition(1.3),), max_tokens=7)
    (found,) = decode(table, [[4, 2]], decoding=how, end=END, alternatives=1)
    texts: dict[int, tuple[int, ...]] = {c.beam: () for c in found[0].considered[0]}
    totals: dict[int, float] = dict.fromkeys(texts, 0.0)
    aside = {}
    for length, candidates in enumerate(found[0].considered, 1):
        following: dict[int, tuple[int, ...]] = {}
        sums: dict[int, float] = {}
        for c in candidates:
            assert c.total is not None
            assert c.total == pytest.approx(totals[c.beam] + c.filtered, abs=1e-5)
            assert c.score == pytest.approx(c.total / length, abs=1e-5)
            text = (*texts[c.beam], c.token)
            if c.fate == "ended":
                aside[text] = c.score
            if c.becomes is not None:
                assert c.becomes not in following
                following[c.becomes], sums[c.becomes] = text, c.total
        texts, totals = following, sums
    for text in found:
        assert aside[tuple(whole(text))] == pytest.approx(text.score, abs=1e-5)
    assert found[0].score == pytest.approx(max(aside.values()), abs=1e-5)


# What is refused


def test_filters_that_leave_nothing_are_named() -> None:
    table = Table.drawn(5, 0)
    how = Decoding(filters=(Repetition(2.0), NoRepeat(1)), max_tokens=9)
    said = "row 1 after 3 tokens: nothing may come next, no_repeat bans the last token"
    with pytest.raises(DecodingError, match=said):
        decode(table, [[3], [1, 2]], decoding=how)
    how = replace(how, strategy=Beam(beams=2))
    with pytest.raises(DecodingError, match="every beam came to where nothing may come next"):
        decode(table, [[3]], decoding=how)
    only = Table(torch.full((2, 1, 1), 0.0))
    how = Decoding(min_tokens=2, max_tokens=3)
    with pytest.raises(DecodingError, match=r"row 0 after 0 tokens.*min_tokens bans the last"):
        decode(only, [[0]], decoding=how, end=0)


@every
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_no_numbers_are_refused(strategy: Strategy, value: float) -> None:
    logits = Table.drawn(6, 0).logits.clone()
    logits[:, 3, 2] = value
    with pytest.raises(DecodingError, match="row 1 after 0 tokens: the model's logits"):
        decode(Table(logits), [[1], [3]], decoding=Decoding(strategy=strategy, seed=0))


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        ([], "there is no prompt"),
        ([[1], []], "row 1 has an empty prompt"),
    ],
)
def test_prompts_that_are_none(prompts: list[list[int]], said: str) -> None:
    with pytest.raises(InputError, match=said):
        decode(Table.drawn(5, 0), prompts)


def test_what_does_not_belong_together_is_refused() -> None:
    table = Table.drawn(5, 0)
    with pytest.raises(InputError, match="stop strings need the bytes of a token"):
        decode(table, [[1]], decoding=Decoding(stop=("x",)))
    with pytest.raises(InputError, match="read has 2 rows, prompts 1"):
        decode(table, [[1]], read=[[1], [2]])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_tokens": -1}, "max_tokens must be 0 or more, not -1"),
        ({"min_tokens": 9, "max_tokens": 8}, "min_tokens must be 0 or more and at most max_tokens"),
        ({"stop": ("a", "")}, "stop must not be empty"),
        ({"seed": -1}, "seed must be 0 or more"),
        ({"filters": (TopK(3),)}, "top_k shapes what is drawn from, and greedy draws nothing"),
        ({"strategy": Beam(), "filters": (Temperature(2.0),)}, r"temperature.*beam draws nothing"),
    ],
)
def test_choices_that_cannot_be(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Decoding(**settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"beams": 0}, "beams must be 1 or more"),
        ({"beams": 2, "n_best": 3}, "n_best must be 1 or more and at most beams, not 3"),
        ({"length_penalty": math.nan}, "length_penalty must be a number"),
        ({"early_stopping": "always"}, "early_stopping must be true, false or 'never'"),
        ({"groups": 3, "beams": 4}, "groups must be 1 or more and divide beams=4, not 3"),
        ({"diversity": -1.0}, "diversity must be 0 or more"),
    ],
)
def test_beams_that_cannot_be(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Diverse(**settings)


def test_choices_come_from_yaml_and_go_back() -> None:
    tree = {
        "strategy": {"name": "beam", "beams": 3, "early_stopping": "never"},
        "filters": [{"name": "repetition", "penalty": 1.2}, {"name": "no_repeat", "size": 3}],
        "stop": ["\n\n"],
    }
    made = build(Decoding, tree)
    assert made == Decoding(
        strategy=Beam(beams=3, early_stopping="never"),
        filters=(Repetition(1.2), NoRepeat(3)),
        stop=("\n\n",),
    )
    assert build(Decoding, plain(made)) == made
    with pytest.raises(ConfigError) as caught:
        build(Decoding, {"strategy": {"name": "beam", "beams": 0}, "filters": [{"name": "topk"}]})
    assert len(caught.value.problems) == 2
