"""Filters and searches beside Hugging Face's `generate`, on the same logits.

Their model looks its logits up in the table that ours does, by the last two tokens that are no
padding. They pad on the left, with an id outside the vocabulary, so that their n-grams do not run
into the padding.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor

from longspan import (
    Beam,
    Decoding,
    Greedy,
    MinP,
    NoRepeat,
    Repetition,
    Temperature,
    TopK,
    TopP,
    Typical,
    decode,
)
from longspan.decoding.search import NOTHING, Filter
from tests.decoding.table import Table, ragged

pytest.importorskip("transformers", reason="the peer is in the extra 'dev'")

from transformers import GenerationConfig, GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.generation import (
    LogitsProcessor,
    MinPLogitsWarper,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)
from transformers.modeling_outputs import CausalLMOutput

END = 0


class TableConfig(PretrainedConfig):
    model_type = "longspan_table"


class TheirTable(PreTrainedModel, GenerationMixin):
    """The same table as a model of theirs."""

    config_class = TableConfig

    def __init__(self, table: Table) -> None:
        super().__init__(TableConfig(vocab_size=table.size))
        self.table = table
        self.anything = torch.nn.Parameter(torch.zeros(1))

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any
    ) -> CausalLMOutput:
        ids = input_ids[:, -2:]
        if ids.shape[1] == 1:
            before = torch.full((len(ids),), self.table.size)
        else:
            # what is padding stands outside the vocabulary
            before = ids[:, 0].clamp(max=self.table.size)
        # rows that are done are padded: what their logits are is no matter
        newest = ids[:, -1].clamp(max=self.table.size - 1)
        return CausalLMOutput(logits=self.table.logits[before, newest][:, None])

    def prepare_inputs_for_generation(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any
    ) -> dict[str, Any]:
        return {"input_ids": input_ids, "attention_mask": attention_mask}


def theirs(
    table: Table, prompts: list[list[int]], **settings: Any
) -> list[list[tuple[list[int], float | None]]]:
    """What their `generate` writes: of each row texts without end and padding, and scores."""
    longest, pad = max(map(len, prompts)), table.size + 1
    ids = torch.tensor([[pad] * (longest - len(p)) + p for p in prompts])
    count = settings.get("num_return_sequences", 1)
    config = GenerationConfig(
        eos_token_id=END,
        pad_token_id=pad,
        use_cache=False,
        return_dict_in_generate=True,
        output_scores=True,
        do_sample=False,
        **settings,
    )
    out = (
        TheirTable(table)
        .eval()
        .generate(input_ids=ids, attention_mask=(ids != pad).long(), generation_config=config)
    )
    scores = getattr(out, "sequences_scores", None)
    result = []
    for index, row in enumerate(out.sequences[:, longest:].tolist()):
        text = row[: row.index(END)] if END in row else row
        text = [token for token in text if token != pad]
        result.append((text, None if scores is None else float(scores[index])))
    return [result[low : low + count] for low in range(0, len(result), count)]


def case(seed: int) -> tuple[Table, list[list[int]], dict[str, Any], tuple[Filter, ...], int]:
    """A table, ragged prompts, and settings of theirs with our filters and shortest length."""
    draw = random.Random(seed)
    size = draw.choice([5, 8, 13, 30])
    table = Table.drawn(size, seed, scale=draw.choice([0.5, 2.0, 5.0]))
    prompts = ragged(draw.randint(1, 5), draw.choice([1, 4, 9]), size, seed)
    settings: dict[str, Any] = {"max_new_tokens": draw.randint(1, 12)}
    filters: list[Filter] = []
    if draw.random() < 0.4:
        settings["repetition_penalty"] = penalty = draw.choice([0.7, 1.3, 2.0])
        filters.append(Repetition(penalty))
    if draw.random() < 0.4:
        # single tokens too, where there are enough of them
        settings["no_repeat_ngram_size"] = n = draw.choice([1, 2, 3] if size == 30 else [2, 3])
        filters.append(NoRepeat(n))
    shortest = 0
    if draw.random() < 0.3:
        shortest = draw.randint(1, settings["max_new_tokens"])
        settings["min_new_tokens"] = shortest
    return table, prompts, settings, tuple(filters), shortest


@pytest.mark.parametrize("part", range(4))
def test_greedy(part: int) -> None:
    ended = 0
    for seed in range(part * 40, part * 40 + 40):
        table, prompts, settings, filters, shortest = case(seed)
        decoding = Decoding(
            strategy=Greedy(),
            filters=filters,
            min_tokens=shortest,
            max_tokens=settings["max_new_tokens"],
        )
        found = decode(table, prompts, decoding=decoding, end=END)
        want = theirs(table, prompts, **settings)
        assert [[list(h.tokens) for h in row] for row in found] == [
            [text for text, _ in row] for row in want
        ], seed
        ended += sum(row[0].finish == "end" for row in found)
    assert ended > 20, "texts end by the end token, too"


def by_score(text: tuple[list[int], float]) -> tuple[float, list[int]]:
    return -text[1], text[0]


@pytest.mark.parametrize("part", range(10))
def test_beams(part: int) -> None:
    compared = ended = 0
    for seed in range(part * 40, part * 40 + 40):
        table, prompts, settings, filters, shortest = case(seed)
        draw = random.Random(-seed)
        beams = draw.randint(2, 5)
        best = draw.randint(1, beams)
        penalty = draw.choice([-1.0, 0.0, 0.6, 1.0, 2.0])
        early = draw.choice([True, False, "never"])
        decoding = Decoding(
            strategy=Beam(beams=beams, length_penalty=penalty, early_stopping=early, n_best=best),
            filters=filters,
            min_tokens=shortest,
            max_tokens=settings["max_new_tokens"],
        )
        found = decode(table, prompts, decoding=decoding, end=END)
        want = theirs(
            table,
            prompts,
            num_beams=beams,
            num_return_sequences=best,
            length_penalty=penalty,
            early_stopping=early,
            **settings,
        )
        for mine, his in zip(found, want, strict=True):
            # where beams run out of continuations they give back such as were never alive
            alive = [(text, score) for text, score in his if score is not None and score > -1e8]
            # and in which order equals come out is nobody's promise
            got = sorted([(list(h.tokens), h.score) for h in mine], key=by_score)
            alive.sort(key=by_score)
            assert [text for text, _ in got] == [text for text, _ in alive], seed
            assert [s for _, s in got] == pytest.approx([s for _, s in alive], rel=1e-5), seed
            compared += len(alive)
            ended += sum(h.finish == "end" for h in mine)
    assert compared > 100
    assert ended > 40


def test_beams_among_equals() -> None:
    """Whole numbers as logits: many continuations are equally good, and the same ones are taken."""
    for seed in range(40):
        draw = random.Random(seed)
        table = Table.drawn(12, seed, levels=2)
        prompts = ragged(draw.randint(1, 4), 5, 12, seed)
        beams = draw.randint(2, 4)
        decoding = Decoding(strategy=Beam(beams=beams, n_best=beams), max_tokens=6)
        found = decode(table, prompts, decoding=decoding, end=END)
        want = theirs(table, prompts, num_beams=beams, num_return_sequences=beams, max_new_tokens=6)
        assert [[list(h.tokens) for h in row] for row in found] == [
            [text for text, _ in row] for row in want
        ], seed


FILTERS = [
    (Temperature(0.3), TemperatureLogitsWarper(0.3)),
    (Temperature(2.5), TemperatureLogitsWarper(2.5)),
    (TopK(1), TopKLogitsWarper(1)),
    (TopK(4), TopKLogitsWarper(4)),
    (TopK(99), TopKLogitsWarper(99)),
    (TopP(0.01), TopPLogitsWarper(0.01)),
    (TopP(0.5), TopPLogitsWarper(0.5)),
    (TopP(0.95), TopPLogitsWarper(0.95)),
    (TopP(1.0), TopPLogitsWarper(1.0)),
    (MinP(0.0), MinPLogitsWarper(0.0)),
    (MinP(0.05), MinPLogitsWarper(0.05)),
    (MinP(1.0), MinPLogitsWarper(1.0)),
    (Typical(0.2), TypicalLogitsWarper(0.2)),
    (Typical(0.9), TypicalLogitsWarper(0.9)),
    (Repetition(1.4), RepetitionPenaltyLogitsProcessor(1.4)),
    (Repetition(0.6), RepetitionPenaltyLogitsProcessor(0.6)),
    (NoRepeat(1), NoRepeatNGramLogitsProcessor(1)),
    (NoRepeat(2), NoRepeatNGramLogitsProcessor(2)),
    (NoRepeat(3), NoRepeatNGramLogitsProcessor(3)),
]


@pytest.mark.parametrize(("mine", "his"), FILTERS, ids=[repr(mine) for mine, _ in FILTERS])
def test_a_filter(mine: Filter, his: LogitsProcessor) -> None:
    """Bit for bit, also on logits of which some are equal or banned already."""
    changed = 0
    for seed in range(50):
        generator = torch.Generator().manual_seed(seed)
        size = (3, 6, 17, 40)[seed % 4]
        logits = torch.randn(4, size, generator=generator) * 3
        if seed % 3 == 1:
            logits = logits.round()
        if seed % 3 == 2:
            logits[:, 1:3] = -torch.inf
        tokens = torch.randint(0, size, (4, seed % 11 + 1), generator=generator)
        got, want = mine(logits, tokens), his(tokens, logits.clone())
        assert torch.equal(got, want), seed
        changed += int((got != logits).any())
    neutral = (TopK(99), TopP(1.0), MinP(0.0))
    assert (changed > 0) == (mine not in neutral)


def test_filters_in_a_row() -> None:
    """Any of them in the order in which Hugging Face has them: those that look back come first."""
    groups = [
        FILTERS[14:16],
        FILTERS[16:],
        FILTERS[:2],
        *(FILTERS[a:b] for a, b in ((2, 5), (5, 9))),
    ]
    groups += [FILTERS[9:12], FILTERS[12:14]]
    for seed in range(200):
        draw = random.Random(seed)
        generator = torch.Generator().manual_seed(seed)
        got = want = torch.randn(3, 20, generator=generator) * 2
        tokens = torch.randint(0, 20, (3, 6), generator=generator)
        for group in groups:
            if draw.random() < 0.5:
                mine, his = draw.choice(group)
                got, want = mine(got, tokens), his(tokens, want)
        assert torch.equal(got, want), seed


def test_a_shorter_row_is_filtered_as_alone() -> None:
    """Rows are right-aligned; what stands before a shorter one is no token."""
    rows = ragged(6, 9, 8, 3)
    longest = max(map(len, rows))
    tokens = torch.tensor([[NOTHING] * (longest - len(row)) + row for row in rows])
    logits = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    for mine, his in FILTERS[14:]:
        got = mine(logits, tokens)
        for index, row in enumerate(rows):
            alone = his(torch.tensor([row]), logits[index : index + 1].clone())
            assert torch.equal(got[index], alone[0])
