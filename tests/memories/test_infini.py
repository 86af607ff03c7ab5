"""Infini-attention (2404.07143) a second time: one head, one token, one number after another."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from longspan import (
    Attention,
    ConfigError,
    DecoderConfig,
    Infini,
    NoMemory,
    NoPosition,
    Rotary,
    Segments,
)
from longspan.compat import slot_conflicts
from longspan.errors import StateError
from longspan.memories.infini import feature
from longspan.patterns.full import Full
from longspan.slots import Places
from longspan.state import State
from tests.contracts.samples import decoder, tokens

SEGMENT, DIM, HEADS, GROUPS, SIZE = 3, 5, 4, 2, 2
EXACT = {"atol": 1e-11, "rtol": 0.0}


def layer(update: str, **slots) -> Attention:
    torch.manual_seed(0)
    made = Attention(
        DIM,
        HEADS,
        head_dim=SIZE,
        kv_heads=GROUPS,
        pattern=Segments(SEGMENT, 0),
        memory=Infini(update),
        **slots,
    ).double()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter)
    return made.train()


def sigma(x: Tensor) -> Tensor:
    return torch.stack([1 + n if n > 0 else n.exp() for n in x])


def turned(x: Tensor, position: int) -> Tensor:
    """Rotary on the two numbers of a head: by one radian a position."""
    cos, sin = math.cos(position), math.sin(position)
    return torch.stack([x[0] * cos - x[1] * sin, x[0] * sin + x[1] * cos])


def naive(
    made: Attention, segments: Sequence[Tensor], *, full: int = 1, rotary: bool = False
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """The layer's answers (N, C) to a document's segments (T, C), and M and z of each head of keys.

    A segment is folded in if it is `full`.
    """
    weights = dict(made.named_parameters())
    q, k, v = (weights[f"{name}.weight"] for name in "qkv")
    matrices = [torch.zeros(SIZE, SIZE).double() for _ in range(GROUPS)]
    masses = [torch.zeros(SIZE).double() for _ in range(GROUPS)]
    answers, start = [], 0
    for segment in segments:
        for i, x in enumerate(segment):
            heads = []
            for head in range(HEADS):
                rows = slice(head * SIZE, (head + 1) * SIZE)
                group = head // (HEADS // GROUPS)
                shared = slice(group * SIZE, (group + 1) * SIZE)
                query = q[rows] @ x
                shares = []
                for j in range(i + 1):
                    key, asked = k[shared] @ segment[j], query
                    if rotary:
                        key, asked = turned(key, start + j), turned(query, start + i)
                    shares.append((asked @ key / math.sqrt(SIZE)).exp())
                local = torch.zeros(SIZE).double()
                for j, share in enumerate(shares):
                    local = local + share / sum(shares) * (v[shared] @ segment[j])
                if start > 0:  # before, the paper divides zero by zero
                    found = sigma(query) @ matrices[group] / (sigma(query) @ masses[group])
                    gate = torch.sigmoid(weights["keeper.gate"][head])
                    local = gate * found + (1 - gate) * local
                heads.append(local)
            answers.append(weights["o.weight"] @ torch.cat(heads))
        if len(segment) < full:
            break
        for group in range(GROUPS):
            shared = slice(group * SIZE, (group + 1) * SIZE)
            before, mass = matrices[group], masses[group]
            for x in segment:
                key, value = sigma(k[shared] @ x), v[shared] @ x
                if made.memory.update == "delta" and start > 0:
                    value = value - key @ before / (key @ mass)
                matrices[group] = matrices[group] + torch.outer(key, value)
                masses[group] = masses[group] + key
        start += len(segment)
    return torch.stack(answers), matrices, masses


def assert_holds(state: State, matrices: list[Tensor], masses: list[Tensor], row: int = 0) -> None:
    held = state.layers[0].tensors()
    torch.testing.assert_close(held["m"][row], torch.stack(matrices), **EXACT)
    torch.testing.assert_close(held["z"][row], torch.stack(masses), **EXACT)


@pytest.mark.parametrize("update", ["delta", "linear"])
@pytest.mark.parametrize("rotary", [False, True])
def test_the_paper_in_output_state_and_gradient(update: str, rotary: bool) -> None:
    """Four calls of training, no graph cut: the gradient flows through M and z."""
    made = layer(update, position=Rotary() if rotary else NoPosition())
    x = torch.randn(2, 4 * SEGMENT, DIM).double().requires_grad_()
    state, parts = None, []
    for piece in x.split(SEGMENT, 1):
        y, state = made(piece, state)
        parts.append(y)
    mine = torch.cat(parts, 1)
    results = [naive(made, document.split(SEGMENT), rotary=rotary) for document in x]
    theirs = torch.stack([result[0] for result in results])
    torch.testing.assert_close(mine, theirs, **EXACT)
    assert state is not None
    for row, (_, matrices, masses) in enumerate(results):
        assert_holds(state, matrices, masses, row)
    # of the last segment alone: what reaches the first came through the memory
    leaves = {"x": x, **dict(made.named_parameters())}
    each = [
        torch.autograd.grad(y[:, -SEGMENT:].sin().sum(), list(leaves.values()), retain_graph=True)
        for y in (mine, theirs)
    ]
    for name, a, b in zip(leaves, *each, strict=True):
        torch.testing.assert_close(a, b, **EXACT, msg=name)
    assert each[0][0][:, :SEGMENT].abs().min() > 0


@pytest.mark.parametrize("update", ["delta", "linear"])
@torch.no_grad()
def test_in_evaluation_a_segment_is_folded_when_it_ends(update: str) -> None:
    """Rows with clocks of their own, cut where any row's segment ends, as a Decoder does."""
    made = layer(update).eval()
    documents = torch.randn(3, 8, DIM).double()
    ahead = [0, 1, 2]
    clock, carried = torch.tensor(ahead), made.begin(3, documents)
    # the rows' first tokens, as one ragged piece
    valid = torch.arange(2) < clock[:, None]
    begun, _ = Places.of(torch.zeros(3, dtype=torch.long), 2, valid)
    _, carried = made.mix(documents[:, :2], carried, begun, made.pairs(carried, begun))
    for low in range(6):
        x = torch.stack([documents[row, low + more] for row, more in enumerate(ahead)])[:, None]
        places, clock = Places.of(clock, 1)
        y, carried = made.mix(x, carried, places, made.pairs(carried, places))
        for row, more in enumerate(ahead):
            segments = documents[row, : low + more + 1].split(SEGMENT)
            answers, matrices, masses = naive(made, segments, full=SEGMENT)
            torch.testing.assert_close(y[row, 0], answers[-1], **EXACT)
            assert_holds(State(clock, (carried,)), matrices, masses, row)


@torch.no_grad()
def test_documents_that_begin_in_the_middle_of_a_call_of_training() -> None:
    """Their tokens read nothing of the one before, which leaves nothing in the memory."""
    made, x = layer("delta"), torch.randn(4, 3 * SEGMENT, DIM).double()
    starts = torch.zeros(4, SEGMENT, dtype=torch.bool)
    starts[1, 1] = starts[2, 0] = starts[3, 1] = starts[3, 2] = True
    first, second, third = x.split(SEGMENT, 1)
    _, state = made(first)
    y, state = made(second, state, starts=starts)
    z, state = made(third, state)
    for row, begin in enumerate([None, 1, 0, 2]):
        segments = [second[row, begin:], third[row]] if begin is not None else [*x[row].split(3)]
        answers, matrices, masses = naive(made, segments)
        assert_holds(state, matrices, masses, row)
        seen = torch.cat([y[row, begin or 0 :], z[row]])
        torch.testing.assert_close(seen, answers[-len(seen) :], **EXACT)
    # what the document before said is what it would have said
    whole, _, _ = naive(made, [first[3], second[3]])
    torch.testing.assert_close(y[3, :1], whole[SEGMENT : SEGMENT + 1], **EXACT)


def test_nothing_stored_is_the_softmax_alone() -> None:
    made, x = layer("delta"), torch.randn(2, SEGMENT, DIM).double()
    plain = Attention(
        DIM, HEADS, head_dim=SIZE, kv_heads=GROUPS, pattern=Segments(SEGMENT, 0), memory=NoMemory()
    ).double()
    plain.load_state_dict({n: p for n, p in made.state_dict().items() if "keeper" not in n})
    y, state = made(x)
    torch.testing.assert_close(y, plain(x)[0], **EXACT)
    # where a gradient of 0 / 0 would be no number
    y.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in made.parameters())
    again, _ = made(x, state.reset(torch.tensor([True, False])))
    torch.testing.assert_close(again[0], y[0], **EXACT)
    assert not torch.allclose(again[1], y[1])


def test_a_key_is_found_again_by_the_delta_rule() -> None:
    """Folding in twice what is known already changes nothing; the linear rule doubles it."""
    for update, same in (("delta", True), ("linear", False)):
        made = layer(update)
        x = torch.randn(1, 1, DIM).double()
        _, once = made(x)
        _, twice = made(x, once)
        m, n = (state.layers[0].tensors()["m"] for state in (once, twice))
        assert torch.allclose(m, n) == same
        assert torch.allclose(2 * m, n) != same


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sums_are_float32_in_a_narrow_model(dtype: torch.dtype) -> None:
    made = layer("linear").to(dtype)
    x = 30 * torch.randn(2, SEGMENT, DIM).to(dtype)
    _, state = made(x)
    y, state = made(x, state)
    y.sum().backward()
    assert y.dtype == dtype
    assert y.isfinite().all()
    assert all(p.grad.isfinite().all() for p in made.parameters() if p.grad is not None)
    for kept in (state, state.to(dtype=dtype), state.to(dtype=torch.float32).to(dtype=dtype)):
        held = kept.layers[0].tensors()
        assert held["m"].dtype == held["z"].dtype == torch.float32
        assert held["k"].dtype == held["v"].dtype
    assert state.to(dtype=torch.float64).layers[0].tensors()["m"].dtype == torch.float64


def test_a_feature_is_elu_plus_one_and_does_not_round_to_zero() -> None:
    x = torch.linspace(-80, 10, 500, requires_grad=True)
    made = feature(x)
    torch.testing.assert_close(made, torch.nn.functional.elu(x) + 1, atol=1e-7, rtol=1e-6)
    (gradient,) = torch.autograd.grad(made.sum(), x)
    torch.testing.assert_close(gradient, x.exp().clamp(max=1))
    assert (made > 0).all()


def test_it_keeps_everything_in_constant_space() -> None:
    config = DecoderConfig(
        width=6, layers=1, heads=2, feed_forward=4, pattern=Segments(4, 0), memory=Infini()
    )
    model, stream = decoder(config), tokens(1, 400)
    changed = stream.clone()
    changed[0, 3] = (changed[0, 3] + 1) % 23
    with torch.no_grad():
        (first, a), (second, b) = model(stream), model(changed)
    assert a.nbytes == model(stream[:, :8])[1].nbytes == b.nbytes
    assert (first[:, -4:] != second[:, -4:]).all()


def test_without_it() -> None:
    """A length of 0 is the same weights that start each segment from nothing."""
    assert Infini().keeping(0) == NoMemory()
    for length in (4, None):
        with pytest.raises(
            ConfigError, match="'infini' cannot be evaluated with another length; evaluate it"
        ):
            Infini().keeping(length)
    config = DecoderConfig(
        width=6, layers=2, heads=2, feed_forward=4, pattern=Segments(4, 0), memory=Infini()
    )
    model, stream = decoder(config), tokens(2, 12)
    with torch.no_grad():
        bare, state = model.remembering(0)(stream)
        assert not torch.allclose(bare[:, 4:], model(stream)[0][:, 4:])
        torch.testing.assert_close(bare[:, 4:8], model(stream[:, 4:8])[0], **EXACT)
        other, _ = model.remembering(0, 6)(stream)
        torch.testing.assert_close(other[:, 6:], model.remembering(0, 6)(stream[:, 6:])[0], **EXACT)
    with pytest.raises(StateError, match="layer 0 of the state is of kind 'keys'"):
        model(stream, state)


def test_what_it_goes_with() -> None:
    def rules(*slots) -> list[str]:
        return [conflict.rule for conflict in slot_conflicts(NoPosition(), *slots)]

    assert rules(Segments(4, 0), Infini()) == []
    assert rules(Segments(4, 2), Infini()) == ["M2"]
    assert rules(Full(), Infini()) == ["M1"]
    with pytest.raises(ConfigError, match=r"memory\.update must be 'delta' or 'linear', not 'add'"):
        Infini("add")  # type: ignore[arg-type]
