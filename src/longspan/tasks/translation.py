"""Translation, judged by BLEU (Papineni et al. 2002) and chrF (Popović 2015) through sacrebleu."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sacrebleu

from longspan.task import Scores
from longspan.transduction import Transduction


@dataclass(frozen=True)
class Translation(Transduction, name="translation"):
    """A text in one language to a text in another.

    Scores are sacrebleu's defaults (BLEU: 13a tokens, cased, exponential smoothing; chrF2), so that
    its `signature` is that of published numbers on detokenised text.
    """

    def judge(self, texts: Sequence[str], references: Sequence[Sequence[str]]) -> Scores:
        columns = transposed(references)
        return {
            "bleu": sacrebleu.corpus_bleu(list(texts), columns).score,
            "chrf": sacrebleu.corpus_chrf(list(texts), columns).score,
        }


def transposed(references: Sequence[Sequence[str]]) -> list[list[Any]]:
    """The first reference of each text, the second of each, …; None where a text has fewer."""
    most = max(map(len, references))
    return [[row[i] if i < len(row) else None for row in references] for i in range(most)]
