"""How good verdicts are: accuracy, and the F1 of classes that all count alike.

Written here, because they are a few sums: torchmetrics needs every library of text and images that
it finds installed before it counts anything.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def agreement(told: NDArray[np.int64], right: NDArray[np.int64]) -> dict[str, float]:
    """In per cent.

    `macro_f1` is the mean over the classes that occur among either of the harmonic mean of
    precision and recall, 0 where a class is never told rightly.

    Args:
        told: (N,) classes by number.
        right: (N,) what they should be.
    """
    count = int(max(told.max(), right.max())) + 1
    hits = np.bincount(right[told == right], minlength=count)
    either = np.bincount(told, minlength=count) + np.bincount(right, minlength=count)
    occurs = either > 0
    return {
        "accuracy": 100 * float(np.mean(told == right)),
        "macro_f1": 100 * float(np.mean(2 * hits[occurs] / either[occurs])),
    }
