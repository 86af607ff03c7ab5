"""Scores of summaries are rouge-score's, worked out by hand."""

from __future__ import annotations

import pytest

from longspan.tasks.summarization import Summarization, lines


def test_worked_by_hand() -> None:
    scores = Summarization().judge(["the cats sat"], [["the cat sat down"]])
    # stemmed: 3 of 3 words, 3 of 4
    assert scores["rouge_1"] == pytest.approx(100 * 2 * 1.0 * 0.75 / 1.75)
    assert scores["rouge_l"] == scores["rouge_1"]
    # the cat, cat sat: 2 of 2, 2 of 3
    assert scores["rouge_2"] == pytest.approx(100 * 2 * 1.0 * (2 / 3) / (5 / 3))


def test_the_best_of_several_references_counts() -> None:
    one = Summarization().judge(["a b c"], [["x y z", "a b c"]])
    assert one["rouge_l"] == pytest.approx(100)


def test_sentences_are_compared_each_by_itself() -> None:
    assert lines("One. Two?\nThree") == "One.\nTwo?\nThree"
    scores = Summarization().judge(["B b. A a."], [["A a. B b."]])
    assert scores["rouge_lsum"] == pytest.approx(100)
    assert scores["rouge_l"] == pytest.approx(50)
