"""Nyström attention, from the paper's equations by loops; landmarks, padding, the inverse."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from longspan import (
    ConfigError,
    Encoder,
    EncoderConfig,
    Full,
    NoMemory,
    NoPosition,
    Nystrom,
    Sinusoidal,
)
from longspan.errors import InputError
from longspan.kernels.auto import Auto
from longspan.mixers.nystrom import Landmarks, pseudo_inverse, shares
from longspan.mixing import Layer
from longspan.slots import Places

EXACT = {"atol": 1e-10, "rtol": 0.0}
WIDTH, HEADS, HEAD_DIM = 10, 4, 3


def layer(mixer: Nystrom, kv_heads: int = HEADS) -> Landmarks:
    torch.manual_seed(0)
    made = mixer.build(
        Layer(
            width=WIDTH,
            heads=HEADS,
            kv_heads=kv_heads,
            head_dim=HEAD_DIM,
            position=NoPosition(),
            pattern=Full(),
            memory=NoMemory(),
            kernel=Auto(),
        )
    ).double()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.5)
    return made


def places(rows: int, length: int, **masks: Tensor) -> Places:
    return Places.of(torch.zeros(rows, dtype=torch.long), length, **masks)[0]


def mixed(made: Landmarks, x: Tensor, **masks: Tensor) -> Tensor:
    return made.mix(x, made.begin(len(x), x), places(*x.shape[:2], **masks), None)[0]


def runs(tokens: int, landmarks: int) -> list[range]:
    """The tokens of each landmark: as equal as can be."""
    if tokens <= landmarks:
        return [range(t, t + 1) for t in range(tokens)]
    edges = [-(-i * tokens // landmarks) for i in range(landmarks + 1)]
    return [range(low, high) for low, high in pairwise(edges)]


def by_loops(made: Landmarks, x: Tensor) -> Tensor:
    """(T, C) of one row (T, C): equations 13 to 16, a head at a time, a number after another."""
    config, answers = made.config, []
    q, k, v = (w(x).unflatten(1, (-1, HEAD_DIM)) for w in (made.q, made.k, made.v))
    groups = runs(len(x), config.landmarks)
    kernels = []
    for head in range(HEADS):
        shared = head * made.kv_heads // HEADS
        queries, keys = q[:, head], k[:, shared]
        mean_q = [torch.stack([queries[t] for t in group]).mean(0) for group in groups]
        mean_k = [torch.stack([keys[t] for t in group]).mean(0) for group in groups]

        def softmaxed(rows: Any, columns: Any) -> Tensor:
            scores = [torch.stack([r @ c for c in columns]) / HEAD_DIM**0.5 for r in rows]
            return torch.stack([row.softmax(0) for row in scores])

        kernels.append(
            (softmaxed(queries, mean_k), softmaxed(mean_q, mean_k), softmaxed(mean_q, keys))
        )
    sums = [between.sum(0).max() for _, between, _ in kernels]
    for head, (first, between, last) in enumerate(kernels):
        values = v[:, head * made.kv_heads // HEADS]
        one = torch.eye(len(groups), dtype=x.dtype)
        z = between.T / (sums[head] if config.start == "exact" else max(sums))
        for _ in range(config.iterations):
            az = between @ z
            z = 0.25 * z @ (13 * one - az @ (15 * one - az @ (7 * one - az)))
        answer = list(first @ z @ last @ values)
        if made.near is not None:
            weight = made.near.weight[head, 0, :, 0]
            for t in range(len(x)):
                for place, w in enumerate(weight):
                    source = t + place - config.convolution // 2
                    if 0 <= source < len(x):
                        answer[t] = answer[t] + w * values[source]
        answers.append(torch.stack(answer))
    return made.o(torch.cat(answers, 1))


@pytest.mark.parametrize("start", ["exact", "original"])
@pytest.mark.parametrize("convolution", [0, 1, 5])
@pytest.mark.parametrize(("length", "landmarks"), [(12, 4), (11, 4), (7, 4), (3, 4), (5, 1)])
def test_every_number(start: Any, convolution: int, length: int, landmarks: int) -> None:
    """Output and gradients, whether or not the landmarks divide the length."""
    mixer = Nystrom(landmarks, start=start, convolution=convolution)
    made = layer(mixer, kv_heads=2)
    x = torch.randn(2, length, WIDTH, dtype=torch.float64, requires_grad=True)
    fast, slow = mixed(made, x), torch.stack([by_loops(made, row) for row in x])
    torch.testing.assert_close(fast, slow, **EXACT)
    inputs = [x, *made.parameters()]
    for mine, theirs in zip(
        torch.autograd.grad(fast.sin().sum(), inputs, allow_unused=True),
        torch.autograd.grad(slow.sin().sum(), inputs, allow_unused=True),
        strict=True,
    ):
        assert mine is not None
        torch.testing.assert_close(mine, theirs, **EXACT)


@pytest.mark.parametrize("start", ["exact", "original"])
@pytest.mark.parametrize("landmarks", [1, 3, 4, 16])
def test_padding_leaves_no_trace(start: Any, landmarks: int) -> None:
    """Where rows have lengths of their own, and so other runs; nor does it in any gradient."""
    made = layer(Nystrom(landmarks, start=start, convolution=3))
    lengths, x = [12, 7, 0, 3], torch.randn(4, 12, WIDTH).double().requires_grad_()
    valid = torch.arange(12) < torch.tensor(lengths)[:, None]
    answers = mixed(made, x, valid=valid)
    assert answers.isfinite().all()
    answers.masked_fill(~valid[..., None], 0).sin().sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert x.grad[~valid].abs().max() == 0
    padded = {name: p.grad for name, p in made.named_parameters()}
    made.zero_grad(set_to_none=True)
    for row, length in enumerate(lengths):
        if length:
            alone = mixed(made, x[row : row + 1, :length])
            torch.testing.assert_close(answers[row : row + 1, :length], alone, **EXACT)
            alone.sin().sum().backward()
    for name, parameter in made.named_parameters():
        torch.testing.assert_close(padded[name], parameter.grad, **EXACT, msg=name)


@pytest.mark.parametrize("tokens", [1, 2, 5, 6, 11, 12, 29])
def test_landmarks_are_means_of_runs_as_equal_as_can_be(tokens: int) -> None:
    made = shares(30, 6, places(1, 30, valid=torch.arange(30)[None] < tokens))[0]
    assert made.shape == (6, 30)
    filled = made[made.sum(1) > 0]
    assert len(filled) == min(6, tokens)
    sizes = (filled > 0).sum(1)
    assert int(sizes.max() - sizes.min()) <= 1
    torch.testing.assert_close(filled.sum(1), torch.ones(len(filled)).double())
    # every token once, in order, and no padding
    assert filled.nonzero()[:, 1].tolist() == list(range(tokens))


def test_enough_iterations_give_the_pseudo_inverse() -> None:
    torch.manual_seed(0)
    a = torch.randn(3, 2, 5, 5).double().softmax(3)
    for start in ("exact", "original"):
        made = pseudo_inverse(a, 30, start)
        torch.testing.assert_close(made, torch.linalg.pinv(a), atol=1e-6, rtol=0)
    # six are not exact, and those with the larger first step are nearer
    errors = [
        (pseudo_inverse(a, 6, start) @ a - torch.eye(5)).norm() for start in ("exact", "original")
    ]
    assert 1e-6 < errors[0] < errors[1]


def test_where_every_token_is_a_landmark_it_is_softmax_attention() -> None:
    """A A⁺ A = A."""
    made = layer(Nystrom(8, iterations=40, convolution=0))
    x = torch.randn(2, 6, WIDTH).double()
    q, k, v = (w(x).unflatten(2, (-1, HEAD_DIM)).transpose(1, 2) for w in (made.q, made.k, made.v))
    expected = nn.functional.scaled_dot_product_attention(q, k, v)
    expected = made.o(expected.transpose(1, 2).flatten(2))
    torch.testing.assert_close(mixed(made, x), expected, atol=1e-6, rtol=0)


def test_in_bfloat16_the_inverse_is_computed_in_float32() -> None:
    a = torch.randn(1, 1, 8, 8).softmax(3)
    assert pseudo_inverse(a.bfloat16(), 6, "exact").dtype == torch.float32
    made = layer(Nystrom(8)).bfloat16()
    answers = mixed(made, torch.randn(2, 40, WIDTH).bfloat16())
    assert answers.dtype == torch.bfloat16
    assert answers.isfinite().all()


def test_documents_within_a_row_are_refused() -> None:
    starts = torch.tensor([[True, False, True]])
    message = "mixer 'nystrom' compresses each row as a whole; give every document a row of its own"
    with pytest.raises(InputError, match=message):
        mixed(layer(Nystrom(2)), torch.zeros(1, 3, WIDTH).double(), starts=starts)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"landmarks": 0}, r"^mixer\.landmarks must be 1 or more, not 0$"),
        ({"iterations": 0}, r"^mixer\.iterations must be 1 or more, not 0$"),
        ({"convolution": 4}, r"^mixer\.convolution must be odd, or 0 for none, not 4$"),
        ({"convolution": -1}, r"mixer\.convolution must be odd, or 0 for none, not -1"),
        ({"start": "near"}, r"^mixer\.start must be 'exact' or 'original', not 'near'$"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Nystrom(**settings)


def test_an_encoder_of_it_trains() -> None:
    """Which of 64 places holds the marked token: seen by all places through four landmarks."""
    torch.manual_seed(0)
    config = EncoderConfig(
        width=32,
        layers=2,
        heads=2,
        feed_forward=64,
        position=Sinusoidal(),
        mixer=Nystrom(4, convolution=3),
    )
    model, head = Encoder(config, 2), nn.Linear(32, 4)
    optimizer = torch.optim.Adam([*model.parameters(), *head.parameters()], 3e-3)
    losses = []
    for _ in range(60):
        where = torch.randint(0, 64, (32,))
        tokens = nn.functional.one_hot(where, 64)
        loss = nn.functional.cross_entropy(head(model(tokens)[:, 0]), where // 16)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 1
    assert losses[-1] < 0.3
