"""Rotary beyond the trained length: which pair of features turns how fast."""

from __future__ import annotations

import math

import pytest
import torch

from longspan import NTK, Causal, ConfigError, Interpolated, Rotary, YaRN
from longspan.rotation import Rotation
from tests.positions.places import EXACT, consecutive, scores, vectors

CPU = torch.device("cpu")
HEADS, HEAD_DIM = 2, 32


def test_interpolation_divides_every_position() -> None:
    """Scores at distance 4 d are those that rotary gives at distance d."""
    q, k = vectors(1, HEADS, 1, HEAD_DIM), vectors(1, HEADS, 9, HEAD_DIM, seed=1)
    pairs, order = consecutive(1, 8, 1, Causal()), Interpolated(factor=4).build(64, 2, HEAD_DIM)
    scaled = scores(
        order, q, k.repeat_interleave(4, 2)[:, :, 3:], consecutive(1, 32, 1, Causal()), 1
    )
    plain = scores(Rotary().build(64, 2, HEAD_DIM), q, k, pairs, 1)
    torch.testing.assert_close(scaled[..., ::4], plain, **EXACT)


@pytest.mark.parametrize("factor", [1.0, 2.0, 8.0])
def test_ntk_slows_the_slowest_pair_by_the_factor_and_the_fastest_not_at_all(factor: float) -> None:
    plain, scaled = (p.speeds(HEAD_DIM, CPU) for p in (Rotary(), NTK(factor=factor)))
    ratio = plain / scaled
    assert ratio[0] == 1
    assert ratio[-1] == pytest.approx(factor, rel=1e-12)
    assert (ratio.diff() >= 0).all()


def test_yarn_keeps_fast_pairs_interpolates_slow_ones_and_mixes_between() -> None:
    """2309.00071, equations 19 to 21, for D = 32 and a model trained on 64 tokens."""
    yarn = YaRN(factor=4, trained=64, fast=8, slow=1)
    plain, scaled = Rotary().speeds(HEAD_DIM, CPU), yarn.speeds(HEAD_DIM, CPU)
    turns = 64 * plain / (2 * math.pi)
    # the mixture goes by the pair's number, between the whole pairs around the two limits
    assert turns[0] > 8
    assert scaled[0] == plain[0]
    slow = (turns < 1).nonzero()[:, 0][1:]
    torch.testing.assert_close(scaled[slow], plain[slow] / 4)
    between = ((turns < 8) & (turns > 1)).nonzero()[:, 0]
    assert len(between) > 1
    assert ((scaled[between] < plain[between]) & (scaled[between] > plain[between] / 4)).all()


def test_yarn_sharpens_the_scores() -> None:
    """Equation 22: 1/√t = 0.1 ln(s) + 1 on queries and on keys."""
    q, k = vectors(1, HEADS, 3, HEAD_DIM), vectors(1, HEADS, 3, HEAD_DIM, seed=1)
    order = YaRN(factor=4, trained=64).build(64, 2, HEAD_DIM)
    made = scores(order, q, k, consecutive(1, 0, 3, Causal()), 1.0).diagonal(dim1=2, dim2=3)
    plain = (q * k).sum(-1)
    torch.testing.assert_close(made, plain * (0.1 * math.log(4) + 1) ** 2, **EXACT)


@pytest.mark.parametrize(
    "position", [Interpolated(factor=1), NTK(factor=1), YaRN(factor=1, trained=64)]
)
def test_a_factor_of_one_is_rotary(position: Rotation) -> None:
    plain = Rotary().speeds(HEAD_DIM, CPU)
    torch.testing.assert_close(position.speeds(HEAD_DIM, CPU), plain, **EXACT)
    assert position.growth == 1


@pytest.mark.parametrize("head_dim", [2, 4])
def test_few_features_are_no_trouble(head_dim: int) -> None:
    for position in (Interpolated(factor=3), NTK(factor=3), YaRN(factor=3, trained=50)):
        assert position.speeds(head_dim, CPU).isfinite().all()


def test_what_cannot_be_is_refused() -> None:
    for position in (Interpolated, NTK):
        with pytest.raises(ConfigError, match=r"position\.factor must be 1 or more, not 0\.5"):
            position(factor=0.5)
    with pytest.raises(ConfigError, match=r"position\.trained must be 1 or more, not 0"):
        YaRN(factor=2, trained=0)
    with pytest.raises(ConfigError, match=r"position\.slow must be above 0 and below"):
        YaRN(factor=2, trained=9, fast=1, slow=2)
