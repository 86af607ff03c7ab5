"""Recurrent networks and convolution, beside torch's own and beside their equations, in float64."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from longspan import GRU, LSTM, RNN, Causal, ConfigError, Convolution, Decoder, Full, cost
from longspan.mixers.convolution import DepthwiseSeparable, Inputs
from longspan.mixing import Mixer, Mixing
from longspan.recurrence import Recurrence, Recurrent, Units
from longspan.slots import Pattern, Places
from longspan.state import State
from longspan.training.config import TrainConfig
from longspan.training.optimizer import Optimizer
from tests.contracts.samples import stack
from tests.contracts.test_mixers import WIDTH, mixing, named, numbers, places

EXACT = {"atol": 1e-12, "rtol": 0.0}
Weights = dict[str, Tensor]
RECURRENT: list[Recurrent] = [RNN(), RNN(hidden=5, nonlinearity="relu"), LSTM(hidden=7), GRU()]
CONVOLUTIONS = [Convolution(width=width) for width in (1, 2, 3, 4, 9)]
EDGES = [[0, 6], [0, 2, 5], [0, 1, 3, 4], []]
"""Where the documents of four rows begin, and where the last one ends; then comes padding."""

networks = pytest.mark.parametrize("mixer", RECURRENT, ids=named)
convolutions = pytest.mark.parametrize("mixer", CONVOLUTIONS, ids=named)
ways = pytest.mark.parametrize("pattern", [Causal(), Full()], ids=["forward", "both ways"])


def ragged() -> Places:
    """Four rows of at most six tokens with the documents of `EDGES`."""
    valid, starts = torch.zeros(4, 6, dtype=torch.bool), torch.zeros(4, 6, dtype=torch.bool)
    for row, edges in enumerate(EDGES):
        valid[row, : edges[-1] if edges else 0] = True
        starts[row, edges[1:-1]] = True
    return places(4, 6, valid=valid, starts=starts)


def assert_same(
    mine: Sequence[Tensor],
    theirs: Sequence[Tensor],
    leaves: Sequence[Tensor],
    their_leaves: Sequence[Tensor] | None = None,
) -> None:
    """Equal numbers, and equal gradients of what an arbitrary loss makes of them."""
    assert len(mine) == len(theirs)
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, **EXACT)
    sums = [torch.stack([answer.sin().sum() for answer in answers]) for answers in (mine, theirs)]
    gradients = torch.autograd.grad(sums[0].sum(), leaves, retain_graph=True)
    their_gradients = torch.autograd.grad(sums[1].sum(), their_leaves or leaves)
    for one, other in zip(gradients, their_gradients, strict=True):
        assert one.abs().max() > 1e-3
        torch.testing.assert_close(one, other, **EXACT)


# The equations, one step after another.


def affine(weights: Weights, which: str, direction: str, v: Tensor) -> Tensor:
    return weights[f"weight_{which}_l0{direction}"] @ v + weights[f"bias_{which}_l0{direction}"]


def simple(mixer: RNN, given: Tensor, own: Tensor, states: list[Tensor]) -> list[Tensor]:
    """h = f(W x + b + U h + c) (Elman 1990)."""
    total = given + own
    return [total.tanh() if mixer.nonlinearity == "tanh" else total.clamp(min=0)]


def long_short(mixer: LSTM, given: Tensor, own: Tensor, states: list[Tensor]) -> list[Tensor]:
    """c = f c + i g and h = o tanh(c) (Gers et al. 2000)."""
    i, f, g, o = (given + own).chunk(4)
    c = f.sigmoid() * states[1] + i.sigmoid() * g.tanh()
    return [o.sigmoid() * c.tanh(), c]


def gated(mixer: GRU, given: Tensor, own: Tensor, states: list[Tensor]) -> list[Tensor]:
    """h = (1 - z) n + z h with n = tanh(W x + b + r (U h + c)) (1406.1078, as torch has it)."""
    (given_r, given_z, given_n), (own_r, own_z, own_n) = given.chunk(3), own.chunk(3)
    r, z = (given_r + own_r).sigmoid(), (given_z + own_z).sigmoid()
    n = (given_n + r * own_n).tanh()
    return [(1 - z) * n + z * states[0]]


STEPS = {"rnn": simple, "lstm": long_short, "gru": gated}


def naive(
    mixer: Recurrent, weights: Weights, document: Sequence[Tensor], direction: str = ""
) -> tuple[list[Tensor], list[Tensor]]:
    """The hidden state after every token of one document, and all states after the last."""
    units = weights["weight_hh_l0"].shape[1]
    states = [torch.zeros(units).double() for _ in range(2 if mixer.name == "lstm" else 1)]
    answers = []
    for x in document:
        given = affine(weights, "ih", direction, x)
        own = affine(weights, "hh", direction, states[0])
        states = STEPS[mixer.name](mixer, given, own, states)
        answers.append(states[0])
    return answers, states


@networks
@ways
def test_the_equations_give_the_same(mixer: Recurrent, pattern: Pattern) -> None:
    """Outputs, final state, and the gradient of every weight and of the input."""
    layer, x = mixing(mixer, pattern), numbers(4, 6, WIDTH).requires_grad_()
    where = ragged()
    assert where.valid is not None
    y, carried = layer.mix(x, layer.begin(4, x), where, None)
    assert isinstance(layer, Recurrence)
    weights = dict(layer.cells.named_parameters())
    read = layer.read(x)
    answers, finals = [], []
    for row, edges in enumerate(EDGES):
        states = [torch.zeros(layer.cells.hidden_size).double()] * len(carried.tensors())
        for low, high in pairwise(edges):
            document = [read[row, t] for t in range(low, high)]
            hidden, states = naive(mixer, weights, document)
            if not pattern.causal:
                back, _ = naive(mixer, weights, document[::-1], "_reverse")
                hidden = [torch.cat(both) for both in zip(hidden, back[::-1], strict=True)]
            answers += [layer.o.weight @ h for h in hidden]
        finals.append(states)
    mine = [y[where.valid], *carried.tensors().values()]
    last = [torch.stack(states) for states in zip(*finals, strict=True)] if pattern.causal else []
    assert_same(mine, [torch.stack(answers), *last], [x, *layer.parameters()])


@networks
@ways
def test_torchs_own_gives_the_same(mixer: Recurrent, pattern: Pattern) -> None:
    """As torch runs packed rows of lengths of their own, from a state that is not zero."""
    layer, x = mixing(mixer, pattern), numbers(4, 6, WIDTH).requires_grad_()
    assert isinstance(layer, Recurrence)
    lengths = torch.tensor([6, 2, 5, 1])
    where = places(4, 6, valid=torch.arange(6) < lengths[:, None])
    assert where.valid is not None
    units, both = layer.cells.hidden_size, not pattern.causal
    kind = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}[mixer.name]
    more = {"nonlinearity": mixer.nonlinearity} if isinstance(mixer, RNN) else {}
    peer = kind(WIDTH, units, batch_first=True, bidirectional=both, **more).double()
    peer.load_state_dict(layer.cells.state_dict())
    before = layer.begin(4, x)
    if pattern.causal:
        drawn = {name: numbers(4, units, seed=3 + i) for i, name in enumerate(before.tensors())}
        before = type(before)(**{name: t.requires_grad_() for name, t in drawn.items()})
    given = [t[None] for t in before.tensors().values()]
    y, after = layer.mix(x, before, where, None)
    packed = pack_padded_sequence(layer.read(x), lengths, batch_first=True, enforce_sorted=False)
    start = None if both else given[0] if len(given) == 1 else tuple(given)
    out, states = peer(packed, start)
    out, _ = pad_packed_sequence(out, batch_first=True)
    states = states if isinstance(states, tuple) else (states,)
    mine = [y[where.valid], *after.tensors().values()]
    theirs = [layer.o(out)[where.valid]] + [s[0] for s in states if pattern.causal]
    leaves = [x, *before.tensors().values()]
    own = [*leaves, *layer.cells.parameters()]
    assert_same(mine, theirs, own, [*leaves, *peer.parameters()])


@networks
@torch.no_grad()
def test_a_call_is_cut_only_where_a_row_begins_or_ends(mixer: Recurrent) -> None:
    layer = mixing(mixer, Causal())
    assert isinstance(layer, Recurrence)
    valid = torch.arange(6) < torch.tensor([[6], [4], [4]])
    starts = torch.zeros(3, 6, dtype=torch.bool)
    starts[:2, 0] = starts[0, 3] = starts[2, 5] = True
    cases = [
        (places(3, 6), [6]),
        (places(3, 6, valid=valid), [4, 2]),
        # padding begins no document
        (places(3, 6, valid=valid, starts=starts), [3, 1, 2]),
    ]
    for where, lengths in cases:
        with mock.patch.object(layer.cells, "forward", wraps=layer.cells.forward) as forward:
            x = numbers(3, 6, WIDTH)
            layer.mix(x, layer.begin(3, x), where, None)
        assert [call.args[0].shape[1] for call in forward.call_args_list] == lengths


# Convolution.


def convolved(layer: DepthwiseSeparable, document: Sequence[Tensor]) -> list[Tensor]:
    """Each channel of each token by itself; what lies outside the document is zero."""
    weights = layer.each.weight
    width = weights.shape[2]
    ahead = width // 2 if layer.both else 0
    answers = []
    for t in range(len(document)):
        channels = []
        for channel in range(layer.dim):
            total = torch.zeros(()).double()
            for j in range(width):
                source = t - (width - 1 - ahead) + j
                if 0 <= source < len(document):
                    total = total + weights[channel, 0, j] * document[source][channel]
            channels.append(total)
        answers.append(layer.o.weight @ torch.stack(channels))
    return answers


@convolutions
@ways
def test_a_convolution_is_its_sum(mixer: Convolution, pattern: Pattern) -> None:
    layer, x = mixing(mixer, pattern), numbers(4, 6, WIDTH).requires_grad_()
    assert isinstance(layer, DepthwiseSeparable)
    where = ragged()
    assert where.valid is not None
    y, carried = layer.mix(x, layer.begin(4, x), where, None)
    read = layer.read(x)
    answers, newest = [], []
    for row, edges in enumerate(EDGES):
        document: list[Tensor] = []
        for low, high in pairwise(edges):
            document = [read[row, t] for t in range(low, high)]
            answers += convolved(layer, document)
        before = [torch.zeros(WIDTH).double()] * (mixer.width - 1)
        newest.append([*before, *document][len(document) :])
    mine = [y[where.valid], *carried.tensors().values()]
    theirs = [torch.stack(answers)]
    if pattern.causal:
        held = [torch.stack(rows) if rows else numbers(0, WIDTH) for rows in newest]
        theirs.append(torch.stack(held))
    assert_same(mine, theirs, [x, *layer.parameters()])


@convolutions
@ways
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
def test_a_convolution_beside_torchs(mixer: Convolution, pattern: Pattern) -> None:
    """As `nn.Conv1d` pads it: in front when causal, "same" when both ways."""
    layer, x = mixing(mixer, pattern), numbers(3, 8, WIDTH).requires_grad_()
    assert isinstance(layer, DepthwiseSeparable)
    padding = mixer.width - 1 if pattern.causal else "same"
    peer = nn.Conv1d(WIDTH, WIDTH, mixer.width, padding=padding, groups=WIDTH, bias=False).double()
    peer.weight = layer.each.weight
    y, _ = layer.mix(x, layer.begin(3, x), places(3, 8), None)
    theirs = layer.o(peer(layer.read(x).transpose(1, 2))[:, :, :8].transpose(1, 2))
    assert_same([y], [theirs], [x, *layer.parameters()])


# What they start from, cost, and refuse.


@torch.no_grad()
def test_what_the_weights_start_from() -> None:
    torch.manual_seed(0)
    config = stack(LSTM(hidden=16), GRU(), RNN(), Convolution(width=4))
    long_short, gated, simple, convolution = (b.mixer for b in Decoder(config, 5).blocks())
    for layer, gates in ((long_short, 4), (gated, 3), (simple, 1)):
        assert isinstance(layer, Recurrence)
        units = layer.cells.hidden_size
        maps = layer.cells.get_parameter("weight_hh_l0").view(gates, units, units)
        torch.testing.assert_close(maps @ maps.mT, torch.eye(units).expand(gates, -1, -1))
        assert layer.cells.get_parameter("bias_hh_l0").count_nonzero() == 0
        spread = float(layer.cells.get_parameter("weight_ih_l0").std())
        assert spread == pytest.approx(config.width**-0.5, rel=0.2)
    assert isinstance(long_short, Recurrence)
    i, forget, g, o = long_short.cells.get_parameter("bias_ih_l0").chunk(4)
    assert forget.eq(1).all()
    assert not torch.cat([i, g, o]).any()
    assert isinstance(convolution, DepthwiseSeparable)
    assert float(convolution.each.weight.std()) == pytest.approx(0.5, rel=0.3)


C = 10
"""Width of the stacks of the samples."""


@pytest.mark.parametrize(
    ("mixer", "matrices", "state"),
    [
        (RNN(), C * C + C * C + C * C, C),
        (RNN(hidden=7), 7 * C + 7 * 7 + 7 * C, 7),
        (LSTM(hidden=7), 4 * 7 * (C + 7) + 7 * C, 2 * 7),
        (GRU(hidden=7), 3 * 7 * (C + 7) + 7 * C, 7),
        (Convolution(width=3), 3 * C + C * C, 2 * C),
    ],
    ids=lambda value: named(value) if isinstance(value, Mixer) else None,
)
def test_every_weight_is_multiplied_once_a_token(mixer: Mixer, matrices: int, state: int) -> None:
    counted = cost(stack(mixer, mixer), 23)
    assert counted.parts["projections"].flops == 2 * 2 * matrices
    assert counted.parts["scores"].flops == 0
    assert counted.state == 8 + 2 * 4 * state
    assert counted.growth == 0


def test_muon_takes_linear_maps_only() -> None:
    """The gates of a recurrent network lie in one matrix; they are not one map."""
    model = Decoder(stack(LSTM()), 5)
    config = TrainConfig(steps=1, batch=1, optimizer="muon")
    optimizer = Optimizer(model, config, torch.float32)
    _, muon = optimizer.parts
    moved = {id(p) for group in muon.param_groups for p in group["params"]}
    names = {name for name, p in model.named_parameters() if id(p) in moved}
    assert "layers.0.mixer.o.weight" in names
    assert not {name for name in names if ".cells." in name}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LSTM(hidden=0), "mixer.hidden must be 1 or more, not 0"),
        (lambda: RNN(hidden=-3), "mixer.hidden must be 1 or more, not -3"),
        (lambda: Convolution(width=0), "mixer.width must be 1 or more, not 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_networks_do_not_read_each_others_states(tmp_path: Path) -> None:
    """Those of equal shape neither; a saved one says whose it is."""
    layers = [mixing(mixer(), Causal()) for mixer in (RNN, LSTM, GRU)]
    assert [each.begin(2, numbers(1)).kind for each in layers] == ["units", "cells", "gated"]
    for writer in layers:
        state = State(torch.zeros(2, dtype=torch.long), (writer.begin(2, numbers(1)),))
        state.save(tmp_path / "state")
        (carried,) = State.load(tmp_path / "state").layers
        assert [reader.fits(carried) for reader in layers] == [r is writer for r in layers]


def test_a_state_is_zeros_before_a_document() -> None:
    for mixer in (*RECURRENT, Convolution()):
        layer: Mixing = mixing(mixer, Causal())
        state = layer.begin(2, numbers(1))
        assert isinstance(state, Units | Inputs)
        assert all(t.dtype == torch.float64 and not t.any() for t in state.tensors().values())
        assert all(len(t) == 2 for t in state.tensors().values())
