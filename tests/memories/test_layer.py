"""The memory layer (MAT) a second time, one token and one slot after another, with the contracts'
questions asked of it alone: who sees whom, what a segment leaves, what its gate lets through."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm

from longspan import (
    Attention,
    ConfigError,
    DecoderConfig,
    Full,
    Infini,
    MemoryLayer,
    NoMemory,
    NoPosition,
    Segments,
)
from longspan.compat import slot_conflicts
from longspan.errors import StateError
from longspan.slots import Places
from longspan.state import EMPTY, Carried
from tests.contracts.samples import decoder, tokens

SEGMENT, DIM, HEADS, GROUPS, SIZE, SLOTS, INNER = 3, 5, 4, 2, 2, 2, 3
EXACT = {"atol": 1e-11, "rtol": 0.0}


def layer(**slots) -> Attention:
    torch.manual_seed(0)
    made = Attention(
        DIM,
        HEADS,
        head_dim=SIZE,
        kv_heads=GROUPS,
        pattern=Segments(SEGMENT, 0),
        memory=MemoryLayer(SLOTS, INNER),
        norm=torch.nn.LayerNorm(DIM),
        **slots,
    ).double()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter)
    return made.train()


Slot = tuple[Tensor, Tensor]
"""A key and a value (H D,)."""


def naive(
    made: Attention, segments: Sequence[Tensor], *, full: int = 1
) -> tuple[Tensor, list[Slot]]:
    """The layer's answers (N, C) to a document's segments (T, C), and the slots, oldest first.

    A segment leaves a slot if it is `full`.
    """
    weights = dict(made.named_parameters())
    q, k, v, asking = (weights[f"{name}.weight"] for name in ("q", "k", "v", "keeper.query"))
    slots: list[Slot] = []
    answers = []
    for given in segments:
        segment = [
            layer_norm(x, (DIM,), weights["norm.weight"], weights["norm.bias"]) for x in given
        ]
        for i, x in enumerate(segment):
            heads = []
            for head in range(HEADS):
                rows = slice(head * SIZE, (head + 1) * SIZE)
                group = head // (HEADS // GROUPS)
                shared = slice(group * SIZE, (group + 1) * SIZE)
                shares = [
                    ((q[rows] @ x) @ (k[shared] @ other) / math.sqrt(SIZE)).exp()
                    for other in segment[: i + 1]
                ]
                answer = torch.zeros(SIZE).double()
                for share, other in zip(shares, segment, strict=False):
                    answer = answer + share / sum(shares) * (v[shared] @ other)
                weighed = [
                    ((asking[rows] @ x) @ key[rows] / math.sqrt(SIZE)).exp() for key, _ in slots
                ]
                for share, (_, value) in zip(weighed, slots, strict=True):
                    gate = torch.tanh(weights["keeper.gate"][head])
                    answer = answer + gate * share / sum(weighed) * value[rows]
                heads.append(answer)
            answers.append(weights["o.weight"] @ torch.cat(heads))
        if len(segment) < full:
            break
        written = [
            weights["keeper.outer.weight"]
            @ gelu(weights["keeper.inner.weight"] @ x + weights["keeper.inner.bias"])
            + weights["keeper.outer.bias"]
            for x in segment
        ]
        key, value = (sum(written) / len(written)).chunk(2)
        slots = [*slots, (key, value)][-SLOTS:]
    return torch.stack(answers), slots


def assert_holds(carried: Carried, slots: list[Slot], row: int = 0) -> None:
    held = carried.held()
    empty = SLOTS - len(slots)
    assert (held["ends"][row] == EMPTY).tolist() == [True] * empty + [False] * len(slots)
    for slot, both in enumerate(slots, empty):
        for name, expected in zip(("keys", "values"), both, strict=True):
            torch.testing.assert_close(held[name][row, :, slot].flatten(), expected, **EXACT)


def test_its_description_in_output_state_and_gradient() -> None:
    """Four calls of training, no graph cut: the gradient flows through the slots."""
    made = layer()
    x = torch.randn(2, 4 * SEGMENT, DIM).double().requires_grad_()
    state, parts = None, []
    for piece in x.split(SEGMENT, 1):
        y, state = made(piece, state)
        parts.append(y)
    mine = torch.cat(parts, 1)
    results = [naive(made, document.split(SEGMENT)) for document in x]
    theirs = torch.stack([answers for answers, _ in results])
    torch.testing.assert_close(mine, theirs, **EXACT)
    assert state is not None
    for row, (_, slots) in enumerate(results):
        assert_holds(state.layers[0], slots, row)
    # of the last segment alone: what reaches those before came through the slots
    leaves = {"x": x, **dict(made.named_parameters())}
    each = [
        torch.autograd.grad(y[:, -SEGMENT:].sin().sum(), list(leaves.values()), retain_graph=True)
        for y in (mine, theirs)
    ]
    for name, a, b in zip(leaves, *each, strict=True):
        torch.testing.assert_close(a, b, **EXACT, msg=name)
    gone, held = each[0][0].split([SEGMENT, 3 * SEGMENT], 1)
    assert gone.abs().max() == 0  # first in, first out
    assert held.abs().min() > 0


@torch.no_grad()
def test_in_evaluation_a_slot_is_written_when_a_segment_ends() -> None:
    """Rows with clocks of their own, cut where any row's segment ends, as a Decoder does."""
    made = layer().eval()
    documents = torch.randn(3, 10, DIM).double()
    ahead = [0, 1, 2]
    clock, carried = torch.tensor(ahead), made.begin(3, documents)
    valid = torch.arange(2) < clock[:, None]
    begun, _ = Places.of(torch.zeros(3, dtype=torch.long), 2, valid)
    _, carried = made.mix(documents[:, :2], carried, begun, made.pairs(carried, begun))
    for low in range(8):
        x = torch.stack([documents[row, low + more] for row, more in enumerate(ahead)])[:, None]
        places, clock = Places.of(clock, 1)
        y, carried = made.mix(x, carried, places, made.pairs(carried, places))
        for row, more in enumerate(ahead):
            segments = documents[row, : low + more + 1].split(SEGMENT)
            answers, slots = naive(made, segments, full=SEGMENT)
            torch.testing.assert_close(y[row, 0], answers[-1], **EXACT)
            assert_holds(carried, slots, row)
            unfinished = (low + more + 1) % SEGMENT
            assert carried.tensors()["count"][row] == unfinished
            assert (carried.tensors()["total"][row] != 0).any() == (unfinished > 0)


@torch.no_grad()
def test_documents_that_begin_in_the_middle_of_a_call_of_training() -> None:
    """Their tokens see no slot of the one before, and it leaves none."""
    made, x = layer(), torch.randn(4, 3 * SEGMENT, DIM).double()
    starts = torch.zeros(4, SEGMENT, dtype=torch.bool)
    starts[1, 1] = starts[2, 0] = starts[3, 1] = starts[3, 2] = True
    first, second, third = x.split(SEGMENT, 1)
    _, state = made(first)
    y, state = made(second, state, starts=starts)
    z, state = made(third, state)
    for row, begin in enumerate([None, 1, 0, 2]):
        segments = [second[row, begin:], third[row]] if begin is not None else [*x[row].split(3)]
        answers, slots = naive(made, segments)
        assert_holds(state.layers[0], slots, row)
        seen = torch.cat([y[row, begin or 0 :], z[row]])
        torch.testing.assert_close(seen, answers[-len(seen) :], **EXACT)
    whole, _ = naive(made, [first[3], second[3]])
    torch.testing.assert_close(y[3, :1], whole[SEGMENT : SEGMENT + 1], **EXACT)


@torch.no_grad()
def test_a_layer_begins_as_if_it_had_no_memory() -> None:
    torch.manual_seed(0)
    slots = {"pattern": Segments(SEGMENT, 0), "kv_heads": 1}
    made = Attention(4, 2, memory=MemoryLayer(3), **slots)
    plain = Attention(4, 2, memory=NoMemory(), **slots)
    plain.load_state_dict({n: p for n, p in made.state_dict().items() if "keeper" not in n})
    assert made.keeper.inner.out_features == 4
    state = None
    for piece in torch.randn(2, 4 * SEGMENT, 4).split(SEGMENT, 1):
        y, state = made(piece, state)
        torch.testing.assert_close(y, plain(piece)[0])
    made.keeper.gate.fill_(0.3)
    assert not torch.allclose(made(piece, state)[0], y)


@torch.no_grad()
def test_rows_do_not_see_each_other() -> None:
    """What is wrong with weights that are normalised over the batch: each row changes the others,
    and a row alone weighs nothing."""
    made, x = layer(), torch.randn(3, 2 * SEGMENT, DIM).double()
    _, state = made(x[:, :SEGMENT])
    together, _ = made(x[:, SEGMENT:], state)
    for row in range(3):
        alone, _ = made(x[row : row + 1, SEGMENT:], state.select(torch.tensor([row])))
        torch.testing.assert_close(together[row : row + 1], alone, **EXACT)


@torch.no_grad()
def test_how_far_back_it_sees() -> None:
    """S segments and what there is of its own, one layer; then nothing."""
    config = DecoderConfig(
        width=6,
        layers=1,
        heads=2,
        feed_forward=4,
        pattern=Segments(4, 0),
        memory=MemoryLayer(3),
    )
    model, stream = decoder(config), tokens(1, 24)
    first, state = model(stream)
    for changed in range(20):
        other = stream.clone()
        other[0, changed] = (other[0, changed] + 1) % 23
        second, _ = model(other)
        seen = (first != second).any(-1)[0]
        last = 4 * (changed // 4) + 4 * 4
        assert not seen[:changed].any()
        assert not seen[last:].any()
        assert seen[4 * (changed // 4) + 4 : last].all()
    assert state.nbytes == model(stream[:, :8])[1].nbytes


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sums_are_float32_in_a_narrow_model(dtype: torch.dtype) -> None:
    made = layer().to(dtype)
    x = 30 * torch.randn(2, SEGMENT, DIM).to(dtype)
    _, state = made(x)
    y, state = made(x, state)
    y.sum().backward()
    assert y.dtype == dtype
    assert y.isfinite().all()
    assert all(p.grad.isfinite().all() for p in made.parameters() if p.grad is not None)
    held = state.to(dtype=dtype).layers[0].tensors()
    assert held["total"].dtype == torch.float32
    assert held["keys"].dtype == held["values"].dtype == dtype


def test_what_it_goes_with() -> None:
    def rules(*slots) -> list[str]:
        return [conflict.rule for conflict in slot_conflicts(NoPosition(), *slots)]

    memory = MemoryLayer(4)
    assert rules(Segments(4, 0), memory) == []
    assert rules(Segments(4, 2), memory) == ["M2"]
    assert rules(Full(), memory) == ["M1"]
    assert memory.keeping(0) == NoMemory()
    with pytest.raises(ConfigError, match="memory 'layer' cannot be evaluated with another length"):
        memory.keeping(8)
    with pytest.raises(ConfigError) as caught:
        MemoryLayer(0, -1)
    assert caught.value.problems == [
        "memory.slots must be 1 or more, not 0",
        "memory.hidden must be 1 or more, not -1",
    ]


def test_a_state_of_another_memory_is_refused() -> None:
    x = torch.randn(2, SEGMENT, DIM).double()
    other = Attention(
        DIM, HEADS, head_dim=SIZE, kv_heads=GROUPS, pattern=Segments(SEGMENT, 0), memory=Infini()
    ).double()
    for mine, theirs in ((layer(), other), (other, layer())):
        with pytest.raises(StateError, match="which does not fit this layer"):
            mine(x, theirs(x)[1])
