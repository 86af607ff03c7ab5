"""Summarisation, judged by ROUGE (Lin 2004) through rouge-score."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from rouge_score.rouge_scorer import RougeScorer

from longspan.decoding.decode import Decoding
from longspan.decoding.filters.no_repeat import NoRepeat
from longspan.decoding.strategies.beam import Beam
from longspan.task import Scores
from longspan.transduction import Transduction

KINDS = {
    "rougeLsum": "rouge_lsum",
    "rougeL": "rouge_l",
    "rouge1": "rouge_1",
    "rouge2": "rouge_2",
}

SENTENCE = re.compile(r"(?<=[.!?])\s+|\s*\n\s*")
"""Where one sentence ends and the next begins."""


@dataclass(frozen=True)
class Summarization(Transduction, name="summarization"):
    """A long text to a short one.

    Scores are F-measures in per cent of stemmed words, the mean over texts; of several references
    that counts which agrees best (as SciTLDR's authors do). `rouge_lsum` is ROUGE-L of a summary's
    sentences, each by itself (Lin 2004, section 3.2), which is what most papers call ROUGE-L;
    `rouge_l` takes the whole text as one.
    """

    decode: Decoding = field(
        default_factory=lambda: Decoding(strategy=Beam(beams=4), filters=(NoRepeat(size=3),))
    )

    def judge(self, texts: Sequence[str], references: Sequence[Sequence[str]]) -> Scores:
        scorer = RougeScorer(list(KINDS), use_stemmer=True)
        totals = dict.fromkeys(KINDS.values(), 0.0)
        for text, several in zip(texts, references, strict=True):
            best = scorer.score_multi([lines(each) for each in several], lines(text))
            for kind, name in KINDS.items():
                totals[name] += best[kind].fmeasure
        return {name: 100 * total / len(texts) for name, total in totals.items()}


def lines(text: str) -> str:
    """A text with each of its sentences on a line."""
    return "\n".join(SENTENCE.split(text.strip()))
