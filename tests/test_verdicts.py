"""Accuracy and macro-F1, by hand and as scikit-learn has them."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from longspan.verdicts import agreement


def test_a_case_by_hand() -> None:
    """Of 0: precision 1, recall 1/2, F1 2/3; of 1: precision 1/2, recall 1, F1 2/3; of 2: never
    told, F1 0; 3 does not occur."""
    told, right = np.array([0, 1, 1, 4]), np.array([0, 0, 1, 2])
    found = agreement(told, right)
    assert found["accuracy"] == pytest.approx(50)
    assert found["macro_f1"] == pytest.approx(100 * (2 / 3 + 2 / 3 + 0 + 0) / 4)


def test_as_scikit_learn_has_them() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        metrics = pytest.importorskip("sklearn.metrics")
    draw = np.random.default_rng(0)
    for classes in (2, 3, 10):
        for count in (1, 7, 200):
            told, right = draw.integers(classes, size=(2, count))
            found = agreement(told, right)
            assert found["accuracy"] == pytest.approx(100 * metrics.accuracy_score(right, told))
            theirs = metrics.f1_score(right, told, average="macro", zero_division=0)
            assert found["macro_f1"] == pytest.approx(100 * theirs)
