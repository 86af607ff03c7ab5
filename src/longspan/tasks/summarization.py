"""Summarisation, judged by ROUGE (Lin 2004) through rouge-score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rouge_score.rouge_scorer import RougeScorer

from longspan.decoding.decode import Decoding
from longspan.decoding.filters.no_repeat import NoRepeat
from longspan.decoding.strategies.beam import Beam
from longspan.task import Scores
from longspan.transduction import Transduction

KINDS = {"rougeL": "rouge_l", "rouge1": "rouge_1", "rouge2": "rouge_2"}


@dataclass(frozen=True)
class Summarization(Transduction, name="summarization"):
    """A long text to a short one.

    Scores are F-measures in per cent of stemmed words, the mean over texts; of several references
    that counts which agrees best (as SciTLDR's authors do).
    """

    decode: Decoding = field(
        default_factory=lambda: Decoding(strategy=Beam(beams=4), filters=(NoRepeat(size=3),))
    )

    def judge(self, texts: Sequence[str], references: Sequence[Sequence[str]]) -> Scores:
        scorer = RougeScorer(list(KINDS), use_stemmer=True)
        totals = dict.fromkeys(KINDS.values(), 0.0)
        for text, several in zip(texts, references, strict=True):
            best = scorer.score_multi(list(several), text)
            for kind, name in KINDS.items():
                totals[name] += best[kind].fmeasure
        return {name: 100 * total / len(texts) for name, total in totals.items()}
