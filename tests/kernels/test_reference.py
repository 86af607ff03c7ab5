"""The weights themselves."""

from __future__ import annotations

import torch

from longspan.kernels.reference import Reference, weights
from tests.kernels.cases import SCALE, Given, inputs, pairs


def test_weights_sum_to_one_over_what_is_visible() -> None:
    q, k, v, bias, visible = inputs(2, 5, 8)
    made = weights(q, k, pairs(visible), Given(bias), SCALE)
    assert made.shape == (2, 3, 5, 8)
    torch.testing.assert_close(made.sum(-1), torch.ones(2, 3, 5).double())
    assert (made.masked_select(~visible[:, None]) == 0).all()
    assert (made.masked_select(visible[:, None]) > 0).all()
    torch.testing.assert_close(made @ v, Reference()(q, k, v, pairs(visible), Given(bias), SCALE))


def test_one_weight_by_hand() -> None:
    q, k, _, bias, visible = inputs(1, 2, 3, heads=1)
    visible[0, 0] = torch.tensor([True, False, True])
    scores = [float(q[0, 0, 0] @ k[0, 0, j] * SCALE + bias[0, 0, 0, j]) for j in (0, 2)]
    made = weights(q, k, pairs(visible), Given(bias), SCALE)[0, 0, 0].tolist()
    expected = torch.tensor(scores, dtype=torch.float64).softmax(0).tolist()
    torch.testing.assert_close(made, [expected[0], 0.0, expected[1]], atol=1e-12, rtol=0)
