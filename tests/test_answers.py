"""Exact match and F1, by hand."""

from __future__ import annotations

import pytest

from longspan.answers import agreement, exact_match, f1, normalised


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The Cat, sat!", ["cat", "sat"]),
        ("a an the", []),
        ("U.S. theatre", ["us", "theatre"]),
        ("well-known", ["wellknown"]),
        ("  two\n words ", ["two", "words"]),
        ("Müller’s", ["müller’s"]),
        ("", []),
    ],
)
def test_what_is_compared(text: str, words: list[str]) -> None:
    assert normalised(text) == words


@pytest.mark.parametrize(
    ("text", "reference", "exact", "share"),
    [
        ("the cat", "Cat.", 1, 1),
        ("black cat", "cat", 0, 2 / 3),  # precision 1/2, recall 1
        ("cat cat", "cat dog", 0, 1 / 2),  # a word counts as often as both have it
        ("dog", "cat", 0, 0),
        ("", "cat", 0, 0),
        ("cat", "", 0, 0),
        ("", "", 1, 1),
        ("the", "", 1, 1),  # nothing is left of it
        ("cat black", "black cat", 0, 1),
    ],
)
def test_measures_by_hand(text: str, reference: str, exact: float, share: float) -> None:
    assert exact_match(text, reference) == exact
    assert f1(text, reference) == pytest.approx(share)


def test_of_several_references_the_best_counts_of_each_measure() -> None:
    scores = agreement(["black cat", ""], [["cat", "dog"], ["bird", ""]])
    assert scores == pytest.approx({"f1": 100 * (2 / 3 + 1) / 2, "exact_match": 50})
