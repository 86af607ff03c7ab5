"""Attention by features, against its equation, one pair after another."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from longspan.features import LOWEST, Sums, both_ways, causal
from longspan.slots import Places
from longspan.state import State

EXACT = {"atol": 1e-11, "rtol": 0.0}
ROWS, HEADS, GROUPS, LENGTH, FEATURES, WIDTH = 3, 4, 2, 13, 5, 3
CHUNKS = pytest.mark.parametrize("chunk", [1, 4, 13, 64], ids="chunk{}".format)
SCALED = pytest.mark.parametrize("scaled", [False, True], ids=["plain", "scaled"])

VALID = torch.arange(LENGTH) < torch.tensor([[13], [9], [0]])
STARTS = torch.zeros(ROWS, LENGTH, dtype=torch.bool)
STARTS[0, 3] = STARTS[0, 10] = STARTS[1, 0] = True


class Numbers:
    """Random features, values and scales of one call, which ask for gradients."""

    def __init__(self, seed: int, scaled: bool, length: int = LENGTH) -> None:
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        self.q = draw(ROWS, HEADS, length, FEATURES).exp().requires_grad_()
        self.k = draw(ROWS, GROUPS, length, FEATURES).exp().requires_grad_()
        self.v = draw(ROWS, GROUPS, length, WIDTH).requires_grad_()
        self.scale = (3 * draw(ROWS, GROUPS, length)).requires_grad_() if scaled else None

    def all(self) -> list[Tensor]:
        return [t for t in (self.q, self.k, self.v, self.scale) if t is not None]


def naive(
    calls: list[Numbers], documents: list[list[list[int]]], sees: Callable[[int, int], bool]
) -> tuple[list[Tensor], list[Tensor]]:
    """Answers (B, H, T, D) a call, and the sums (B, G, F, D + 1) of each row's newest document.

    `documents` says, a call and row at a time, which document each real token belongs to.
    """
    answers = [torch.zeros(ROWS, HEADS, c.q.shape[2], WIDTH, dtype=torch.float64) for c in calls]
    sums = []
    for row in range(ROWS):
        tokens = [
            (call, t, doc)
            for call, of_rows in enumerate(documents)
            for t, doc in enumerate(of_rows[row])
        ]
        of_groups = []
        for group in range(GROUPS):

            def key(call: int, t: int, row: int = row, group: int = group) -> Tensor:
                numbers, scale = calls[call], calls[call].scale
                k = numbers.k[row, group, t]
                return k if scale is None else k * scale[row, group, t].exp()

            for at, (call, t, doc) in enumerate(tokens):
                seen = [
                    other for other in tokens if other[2] == doc and sees(at, tokens.index(other))
                ]
                for head in range(group * 2, group * 2 + 2):
                    q = calls[call].q[row, head, t]
                    weights = [q @ key(c, s) for c, s, _ in seen]
                    total = sum(
                        w * calls[c].v[row, group, s]
                        for w, (c, s, _) in zip(weights, seen, strict=True)
                    )
                    answers[call][row, head, t] = total / sum(weights)
            of_groups.append(
                sum(
                    (
                        key(c, s)[:, None] * torch.cat([calls[c].v[row, group, s], torch.ones(1)])
                        for c, s, doc in tokens
                        if doc == tokens[-1][2]
                    ),
                    torch.zeros(FEATURES, WIDTH + 1, dtype=torch.float64),
                )
            )
        sums.append(torch.stack(of_groups))
    return answers, sums


def causally(at: int, other: int) -> bool:
    return other <= at


def nothing() -> tuple[Tensor, Tensor]:
    sums = torch.zeros(ROWS, GROUPS, FEATURES, WIDTH + 1, dtype=torch.float64)
    return sums, torch.full((ROWS, GROUPS), LOWEST, dtype=torch.float64)


def place(
    valid: Tensor | None = None, starts: Tensor | None = None, length: int = LENGTH
) -> Places:
    return Places.of(torch.zeros(ROWS, dtype=torch.long), length, valid, starts)[0]


def assert_same_gradients(mine: list[Tensor], theirs: list[Tensor], numbers: list[Numbers]) -> None:
    leaves = [leaf for each in numbers for leaf in each.all()]
    one, other = (
        torch.autograd.grad(
            torch.stack([t.sin().sum() for t in made]).sum(), leaves, materialize_grads=True
        )
        for made in (mine, theirs)
    )
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, **EXACT)
    assert all(gradient.abs().max() > 0 for gradient in one[-3:])


@CHUNKS
@SCALED
def test_causal_is_its_equation(chunk: int, scaled: bool) -> None:
    """Output, state and gradient, over two calls: the second goes on with the first's sums."""
    first, second = Numbers(0, scaled), Numbers(1, scaled)
    one, middle = causal(*first.all()[:3], first.scale, nothing(), place(), chunk)
    two, (sums, top) = causal(*second.all()[:3], second.scale, middle, place(), chunk)
    everything = [[[0] * LENGTH] * ROWS] * 2
    answers, expected = naive([first, second], everything, causally)
    torch.testing.assert_close(one, answers[0], **EXACT)
    torch.testing.assert_close(two, answers[1], **EXACT)
    if first.scale is not None and second.scale is not None:
        highest = torch.cat([first.scale, second.scale], 2).amax(2)
        torch.testing.assert_close(top, highest, **EXACT)
        sums = sums * top[..., None, None].exp()
    torch.testing.assert_close(sums, torch.stack(expected), atol=1e-9, rtol=1e-12)
    assert_same_gradients([one, two], answers, [first, second])


@CHUNKS
@SCALED
def test_documents_and_padding(chunk: int, scaled: bool) -> None:
    """Rows that end early, hold nothing, go on, or begin documents, in the second of two calls."""
    first, second = Numbers(0, scaled), Numbers(1, scaled)
    _, middle = causal(*first.all()[:3], first.scale, nothing(), place(), chunk)
    where = place(VALID, STARTS)
    out, (sums, top) = causal(*second.all()[:3], second.scale, middle, where, chunk)
    documents = [[0] * 3 + [1] * 7 + [2] * 3, [1] * 9, []]
    answers, expected = naive([first, second], [[[0] * LENGTH] * ROWS, documents], causally)
    real = VALID[:, None, :, None]
    torch.testing.assert_close(out * real, answers[1], **EXACT)
    assert out.isfinite().all()
    if scaled:
        sums = sums * top[..., None, None].exp()
    torch.testing.assert_close(sums, torch.stack(expected), atol=1e-9, rtol=1e-12)
    state = [row * 1e-3 for row in (sums, torch.stack(expected))]
    assert_same_gradients([out * real, state[0]], [answers[1], state[1]], [first, second])


@CHUNKS
@SCALED
@pytest.mark.parametrize("masked", [False, True], ids=["whole", "documents and padding"])
def test_both_ways_is_its_equation(chunk: int, scaled: bool, masked: bool) -> None:
    numbers = Numbers(2, scaled)
    where = place(VALID, STARTS) if masked else place()
    documents = [[0] * 3 + [1] * 7 + [2] * 3, [0] * 9, []] if masked else [[0] * LENGTH] * ROWS
    answers, _ = naive([numbers], [documents], lambda at, other: True)
    out = both_ways(*numbers.all()[:3], numbers.scale, where, chunk)
    out = out * VALID[:, None, :, None] if masked else out
    torch.testing.assert_close(out, answers[0], **EXACT)
    assert_same_gradients([out], answers, [numbers])


def test_both_ways_with_padding_alone() -> None:
    """Without documents there is one sum for all; it leaves padding out just so."""
    numbers = Numbers(2, True)
    out = both_ways(*numbers.all()[:3], numbers.scale, place(VALID), 4)
    answers, _ = naive([numbers], [[[0] * 13, [0] * 9, []]], lambda at, other: True)
    torch.testing.assert_close(out * VALID[:, None, :, None], answers[0], **EXACT)
    assert out.isfinite().all()


@CHUNKS
def test_no_bit_of_the_future_enters(chunk: int) -> None:
    """Not even by rounding, where a key is to come beside which all others are nothing."""
    numbers = Numbers(3, True)
    loud = [t.detach().float() for t in numbers.all()]
    calm = [t.clone() for t in loud]
    loud[1][:, :, 7:] *= 1e3
    loud[2][:, :, 7:] *= 1e6
    loud[3][:, :, 7:] += 1e4
    start = tuple(t.float() for t in nothing())
    before, after = (causal(*x, start, place(), chunk)[0] for x in (calm, loud))
    assert torch.equal(before[:, :, :7], after[:, :, :7])
    assert (after[:, :, 8:] - before[:, :, 8:]).abs().max() > 1e3
    assert after.isfinite().all()


def test_a_scale_changes_nothing_but_rounding() -> None:
    """Scales of any height: only their differences matter."""
    numbers = Numbers(4, True)
    q, k, v, scale = (t.detach() for t in numbers.all())
    out, (sums, top) = causal(q, k, v, scale, nothing(), place(), 4)
    high, (same, higher) = causal(q, k, v, scale + 1e5, nothing(), place(), 4)
    torch.testing.assert_close(high, out, atol=1e-9, rtol=0)
    torch.testing.assert_close(same, sums, atol=1e-8, rtol=0)
    torch.testing.assert_close(higher, top + 1e5)


@CHUNKS
def test_features_that_vanish_make_no_answer(chunk: int) -> None:
    """No 0 / 0: the answer is 0 and so is its gradient, there and nowhere else."""
    numbers = Numbers(5, False)
    q = numbers.q.detach().clone()
    q[:, :, 4] = 0
    q.requires_grad_()
    for out in (
        causal(q, numbers.k, numbers.v, None, nothing(), place(), chunk)[0],
        both_ways(q, numbers.k, numbers.v, None, place(), chunk),
    ):
        assert out[:, :, 4].abs().max() == 0
        assert (out[:, :, 5].abs() > 0).all()
        gradients = torch.autograd.grad(out.sum(), [q, numbers.k, numbers.v])
        assert all(gradient.isfinite().all() for gradient in gradients)


def test_sums_stay_wide_in_a_narrow_model() -> None:
    sums, top = (t.float() for t in nothing())
    state = State(torch.zeros(ROWS, dtype=torch.long), (Sums(sums, top),))
    for dtype, kept in ((torch.bfloat16, torch.float32), (torch.float64, torch.float64)):
        moved = state.to(dtype=dtype).layers[0].tensors()
        assert moved["total"].dtype == moved["top"].dtype == kept
    assert state.to("cpu").layers[0].tensors()["total"].dtype == torch.float32
