"""Scores of translations are sacrebleu's."""

from __future__ import annotations

import sacrebleu

from longspan.tasks.translation import Translation

TEXTS = ["The cat sat on the mat .", "There is a dog"]
REFERENCES = [["The cat sat on the mat."], ["There is a dog.", "A dog is there."]]


def test_several_references_each() -> None:
    scores = Translation().judge(TEXTS, REFERENCES)
    expected = sacrebleu.BLEU().corpus_score(
        TEXTS, [["The cat sat on the mat.", "There is a dog."], [None, "A dog is there."]]
    )
    assert scores["bleu"] == expected.score
    assert list(scores) == ["bleu", "chrf"]
    perfect = Translation().judge([first for first, *_ in REFERENCES], REFERENCES)
    assert perfect["bleu"] > 99.99
    assert perfect["chrf"] > 99.99
