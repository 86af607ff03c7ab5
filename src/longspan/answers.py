"""How good answers are: exact match and F1 as SQuAD counts them (1606.05250, section 6.1).

Both compare words after `normalised` has taken away case, punctuation, articles and white space. Of
several references that counts which agrees best, of each measure by itself. An empty text is "there
is no answer" (1806.03822): it agrees with an empty one alone.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

PUNCTUATION = str.maketrans("", "", string.punctuation)
ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalised(text: str) -> list[str]:
    """The words that are compared."""
    return ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split()


def exact_match(text: str, reference: str) -> float:
    """1 if both have the same words in the same order, else 0."""
    return float(normalised(text) == normalised(reference))


def f1(text: str, reference: str) -> float:
    """Harmonic mean of the shares of either's words that the other has too, each as often."""
    ours, theirs = normalised(text), normalised(reference)
    if not ours or not theirs:
        return float(ours == theirs)
    common = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * common / (len(ours) + len(theirs))


def agreement(texts: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """Means over texts, in per cent.

    Args:
        texts: one a question.
        references: of each question one or more.
    """
    measures = {"f1": f1, "exact_match": exact_match}
    return {
        name: 100
        * sum(
            max(measure(text, reference) for reference in several)
            for text, several in zip(texts, references, strict=True)
        )
        / len(texts)
        for name, measure in measures.items()
    }
