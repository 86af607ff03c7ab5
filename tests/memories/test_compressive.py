"""The Compressive Transformer (1911.05507) a second time, from the paper alone and by loops."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import conv1d, relu

from longspan import (
    XL,
    Attention,
    Compressive,
    ConfigError,
    Decoder,
    DecoderConfig,
    NoMemory,
    NoPosition,
    Recent,
    Segments,
    Window,
)
from longspan.errors import StateError
from longspan.memories.compressive import Compressed, Convolution, Dilated
from longspan.slots import Places, Project, Sizes
from longspan.state import EMPTY
from tests.contracts.samples import decoder, tokens
from tests.naive import Naive, Weights, feed_forward, norm
from tests.streams import Call, streams

EXACT = {"atol": 1e-10, "rtol": 0.0}
LEARNING = [("conv", "attention"), ("conv", "auto-encoding"), ("dilated", "attention")]
EVERY = [*LEARNING, ("conv", "none"), ("max", "none"), ("mean", "none"), ("most-used", "none")]


# -- the paper, by loops --------------------------------------------------------------------------


@dataclass
class Entry:
    """A memory: where it stands, its hidden state (C,), and the attention that it got."""

    position: int
    h: Tensor
    shares: list[float] = field(default_factory=list)


@dataclass
class Held:
    """What a layer holds: algorithm 1's cm and m."""

    compressed: list[Entry] = field(default_factory=list)
    whole: list[Entry] = field(default_factory=list)


@dataclass(frozen=True)
class Paper:
    """A decoder on one document, segment by segment (algorithms 1 and 2, with XL's scores)."""

    net: Naive
    tokens: int
    slots: int
    rate: int
    function: str
    loss: str

    def run(
        self, weights: Weights, document: list[int], training: bool
    ) -> tuple[Tensor, Tensor, list[Held]]:
        """Logits (T, V), the losses of each segment (in training) and what the layers hold."""
        held = [Held() for _ in range(self.net.layers)]
        logits, losses, size = [], [], self.net.segment
        for start in range(0, len(document), size):
            today = list(range(start, min(start + size, len(document))))
            hidden = self.net.embed(weights, [document[i] for i in today])
            asked = torch.zeros((), dtype=torch.float64)
            for layer, memory in enumerate(held):
                if training:
                    # truncated back-propagation: SG(m) of 1901.02860
                    for entry in (*memory.compressed, *memory.whole):
                        entry.h = entry.h.detach()
                own = [Entry(i, h) for i, h in zip(today, hidden, strict=True)]
                hidden = self.layer(weights, layer, [*memory.compressed, *memory.whole], own)
                every = memory.whole + own
                ended = training or len(today) == size
                oldest = every[: max(0, len(every) - self.tokens)] if ended else []
                memory.whole = every[len(oldest) :]
                if oldest:
                    new = self.compress(weights, layer, oldest, today[-1] + 1)
                    asked = asked + self.reconstruct(weights, layer, own, oldest, new)
                    both = memory.compressed + new
                    memory.compressed = both[max(0, len(both) - self.slots) :]
            losses.append(asked)
            logits += [self.net.head(weights, h) for h in hidden]
        return torch.stack(logits), torch.stack(losses), held

    def layer(
        self, weights: Weights, layer: int, memory: list[Entry], own: list[Entry]
    ) -> list[Tensor]:
        """One layer's answers; notes on every entry the attention that it got."""
        name, answers = f"layers.{layer}", []
        first = f"{name}.mixer.norm" if self.net.pre_norm else f"{name}.mixer_norm"
        second = f"{name}.feed_forward_norm"
        for index, query in enumerate(own):
            h = query.h + self.attend(weights, layer, query, memory + own[: index + 1])
            if self.net.pre_norm:
                read = norm(weights, second, h)
                answers.append(h + feed_forward(weights, f"{name}.feed_forward", read))
            else:
                h = norm(weights, first, h)
                h = h + feed_forward(weights, f"{name}.feed_forward", h)
                answers.append(norm(weights, second, h))
        return answers

    def read(self, weights: Weights, layer: int, h: Tensor) -> Tensor:
        """A hidden state as the layer's projections read it."""
        return norm(weights, f"layers.{layer}.mixer.norm", h) if self.net.pre_norm else h

    def attend(self, weights: Weights, layer: int, query: Entry, readable: list[Entry]) -> Tensor:
        """What one query gathers, by content and distance (1901.02860, section 3.3)."""
        name = f"layers.{layer}.mixer"
        w_q, w_k, w_v, w_o = (weights[f"{name}.{part}.weight"] for part in "qkvo")
        w_r = weights[f"{name}.order.r.weight"]
        u, v = weights[f"{name}.order.u"], weights[f"{name}.order.v"]
        size = w_q.shape[0] // self.net.heads
        gathered, got = [], [0.0] * len(readable)
        for head in range(self.net.heads):
            rows = slice(head * size, (head + 1) * size)
            q = w_q[rows] @ self.read(weights, layer, query.h)
            scores = []
            for entry in readable:
                key = w_k[rows] @ self.read(weights, layer, entry.h)
                place = w_r[rows] @ self.net.sinusoid(query.position - entry.position, key)
                scores.append(((q + u[head]) @ key + (q + v[head]) @ place) / math.sqrt(size))
            shares = torch.stack(scores).softmax(0)
            mixed = torch.zeros_like(q)
            for index, entry in enumerate(readable):
                value = w_v[rows] @ self.read(weights, layer, entry.h)
                mixed = mixed + shares[index] * value
                got[index] += float(shares[index].detach()) / self.net.heads
            gathered.append(mixed)
        for entry, share in zip(readable, got, strict=True):
            entry.shares.append(share)
        return w_o @ torch.cat(gathered)

    def compress(self, weights: Weights, layer: int, oldest: list[Entry], now: int) -> list[Entry]:
        """f_c of section 3.1: ⌊n / c⌋ entries."""
        rate = self.rate
        if self.function == "most-used":
            for entry in oldest:
                # every query since, its own among them
                assert len(entry.shares) == now - entry.position
            used = sorted(oldest, key=lambda e: -sum(e.shares) / len(e.shares))
            chosen = used[: len(oldest) // rate]
            return sorted(chosen, key=lambda e: e.position)
        result = []
        for begin in range(0, len(oldest), rate):
            group = oldest[begin : begin + rate]
            made = self.make(weights, layer, [entry.h for entry in group])
            result.append(Entry(group[-1].position, made))
        return result

    def make(self, weights: Weights, layer: int, group: list[Tensor]) -> Tensor:
        """One slot of `rate` hidden states."""
        name, width = f"layers.{layer}.mixer.keeper.compress", len(group[0])
        if self.function == "mean":
            return sum(group[1:], group[0]) / len(group)
        if self.function == "max":
            return torch.stack([max(h[c] for h in group) for c in range(width)])
        if self.function == "conv":
            kernel, made = weights[f"{name}.map.weight"], weights[f"{name}.map.bias"]
            for j, h in enumerate(group):
                made = made + kernel[:, j * width : (j + 1) * width] @ h
            return made
        assert self.function == "dilated"
        # causal convolutions over all places, of which the last one's last place is read
        dilation, index, signal = 1, 0, dict(enumerate(group))
        while dilation < self.rate:
            kernel, bias = (weights[f"{name}.maps.{index}.{w}"] for w in ("weight", "bias"))
            before, now = kernel[:, :width], kernel[:, width:]
            if index:
                signal = {t: h.clamp(min=0) for t, h in signal.items()}
            signal = {
                t: before @ signal[t - dilation] + now @ h + bias
                for t, h in signal.items()
                if t - dilation in signal
            }
            dilation, index = 2 * dilation, index + 1
        return signal[self.rate - 1]

    def reconstruct(
        self, weights: Weights, layer: int, own: list[Entry], oldest: list[Entry], new: list[Entry]
    ) -> Tensor:
        """Algorithm 2, or the auto-encoding loss, as a mean of squares; all but f_c given."""
        if self.loss == "none":
            return torch.zeros((), dtype=torch.float64)
        given = {n: w if ".keeper." in n else w.detach() for n, w in weights.items()}
        old = [Entry(e.position, e.h.detach()) for e in oldest]
        made = self.compress(given, layer, old, 0)
        name, errors = f"layers.{layer}.mixer", []
        if self.loss == "auto-encoding":
            g, bias = (given[f"{name}.keeper.decode.{w}"] for w in ("weight", "bias"))
            for index, slot in enumerate(made):
                group = torch.cat([e.h for e in old[index * self.rate : (index + 1) * self.rate]])
                errors.append((g @ slot.h + bias - group).square())
            return torch.stack(errors).mean()
        for query in own:
            read = Entry(query.position, query.h.detach())
            before, after = (self.content(given, name, layer, read, m) for m in (old, made))
            errors.append((before - after).square())
        return torch.stack(errors).mean()

    def content(
        self, weights: Weights, name: str, layer: int, query: Entry, memory: list[Entry]
    ) -> Tensor:
        """attn(h, m) = σ((h Q) (m K)) (m V), every head's (H · D,)."""
        w_q, w_k, w_v = (weights[f"{name}.{part}.weight"] for part in "qkv")
        size, result = w_q.shape[0] // self.net.heads, []
        for head in range(self.net.heads):
            rows = slice(head * size, (head + 1) * size)
            q = w_q[rows] @ self.read(weights, layer, query.h)
            keys = [w_k[rows] @ self.read(weights, layer, e.h) for e in memory]
            shares = torch.stack([q @ k / math.sqrt(size) for k in keys]).softmax(0)
            values = [w_v[rows] @ self.read(weights, layer, e.h) for e in memory]
            result.append(sum(s * v for s, v in zip(shares, values, strict=True)))
        return torch.cat([torch.as_tensor(r) for r in result])


SEGMENT = 4


def pair(memory: Compressive, pre_norm: bool = True) -> tuple[Decoder, Paper]:
    """The same model twice, with random weights."""
    config = DecoderConfig(
        width=6,
        layers=2,
        heads=2,
        feed_forward=8,
        position=XL(),
        pattern=Segments(SEGMENT, memory.length),
        memory=memory,
        placement="pre" if pre_norm else "post",
        final_norm=pre_norm,
        activation="relu",
    )
    net = Naive(2, 2, 6, SEGMENT, memory.length, pre_norm=pre_norm)
    paper = Paper(net, memory.tokens, memory.compressed, memory.rate, memory.function, memory.loss)
    return decoder(config), paper


def named(model: Decoder) -> dict[str, Tensor]:
    """Its weights by all their names."""
    return dict(model.named_parameters(remove_duplicate=False))


def assert_holds(state: Any, row: int, held: list[Held]) -> None:
    """A state's slots are the paper's lists, right-aligned."""
    for carried, memory in zip(state.layers, held, strict=True):
        assert isinstance(carried, Compressed)
        slots = zip(carried.pos[row].tolist(), carried.x[row], strict=True)
        entries = [(position, x) for position, x in slots if position != EMPTY]
        expected = [*memory.compressed, *memory.whole]
        assert [position for position, _ in entries] == [e.position for e in expected]
        for (_, x), entry in zip(entries, expected, strict=True):
            torch.testing.assert_close(x, entry.h, **EXACT)


def sized(whole: int, function: Any, loss: Any) -> Compressive:
    """Three slots; for tokens that are chosen two segments' worth, so that none is out of reach."""
    rate, slots = 4 if function == "dilated" else 2, 4 if function == "most-used" else 3
    return Compressive(whole, slots, rate, function, loss)


@pytest.mark.parametrize("whole", [0, 4, 8])
@pytest.mark.parametrize(("function", "loss"), EVERY)
def test_evaluation_is_the_papers(function: Any, loss: Any, whole: int) -> None:
    model, paper = pair(sized(whole, function, loss))
    document = tokens(2, 26)
    with torch.no_grad():
        logits, state = model(document)
        for row in range(2):
            mine, _, held = paper.run(named(model), document[row].tolist(), False)
            torch.testing.assert_close(logits[row], mine, **EXACT)
            assert_holds(state, row, held)


@pytest.mark.parametrize("pre_norm", [True, False], ids=["pre", "post"])
@pytest.mark.parametrize(("function", "loss"), EVERY)
def test_training_is_the_papers(function: Any, loss: Any, pre_norm: bool) -> None:
    """Output, loss, state and gradient over five segments, the memory given in each."""
    model, paper = pair(sized(4, function, loss), pre_norm)
    document, state = tokens(2, 5 * SEGMENT), None
    logits, losses = [], []
    for piece in document.split(SEGMENT, 1):
        part, state = model.train()(piece, None if state is None else state.detach())
        logits.append(part)
        losses.append(torch.zeros(2).double() if state.loss is None else state.loss)
    objective = torch.cat(logits, 1).sin().sum() + torch.stack(losses).sum()
    mine = torch.autograd.grad(objective, list(model.parameters()), allow_unused=True)

    weights, total = named(model), torch.zeros(()).double()
    for row in range(2):
        other, asked, held = paper.run(weights, document[row].tolist(), True)
        torch.testing.assert_close(torch.cat(logits, 1)[row], other, **EXACT)
        torch.testing.assert_close(torch.stack(losses)[:, row], asked, **EXACT)
        assert (asked.abs().sum() > 0) == (loss != "none")
        assert_holds(state, row, held)
        total = total + other.sin().sum() + asked.sum()
    theirs = torch.autograd.grad(total, list(model.parameters()), allow_unused=True)
    for (name, _), a, b in zip(model.named_parameters(), mine, theirs, strict=True):
        assert (a is None) == (b is None), name
        if a is not None:
            torch.testing.assert_close(a, b, **EXACT, msg=name)


# -- what learns what -----------------------------------------------------------------------------


@pytest.mark.parametrize(("function", "loss"), LEARNING)
@pytest.mark.parametrize("cut", [True, False], ids=["detached", "through"])
def test_the_loss_teaches_the_networks_alone(function: Any, loss: Any, cut: bool) -> None:
    model, _ = pair(Compressive(4, 3, 2, function, loss))
    state = None
    for piece in tokens(2, 3 * SEGMENT).split(SEGMENT, 1):
        _, state = model.train()(piece, state.detach() if cut and state is not None else state)
    assert state is not None
    assert state.loss is not None
    assert state.loss.shape == (2,)
    state.loss.sum().backward()
    for name, parameter in model.named_parameters():
        taught = parameter.grad is not None and bool(parameter.grad.abs().max() > 0)
        assert taught == (".keeper." in name), name


def test_the_gradient_of_the_task_reaches_the_network_through_later_calls() -> None:
    model, _ = pair(Compressive(4, 3, 2, loss="none"))
    for cut in (True, False):
        state = None
        for piece in tokens(1, 4 * SEGMENT).split(SEGMENT, 1):
            logits, state = model.train()(piece, state.detach() if cut and state else state)
        found = torch.autograd.grad(
            logits.sin().sum(),
            [p for n, p in model.named_parameters() if "keeper" in n],
            allow_unused=True,
        )
        assert all((g is None) == cut for g in found)
        assert state is not None
        assert state.loss is None


def test_shared_keys_are_every_heads_in_the_loss() -> None:
    model, _ = pair(Compressive(4, 3, 2))
    shared = decoder(replace(model.config, kv_heads=1)).train()
    weights = shared.state_dict()
    for name in weights:
        if name.endswith((".mixer.k.weight", ".mixer.v.weight")):
            weights[name] = weights[name].repeat(2, 1)
    model.load_state_dict(weights)
    state = other = None
    for piece in tokens(2, 3 * SEGMENT).split(SEGMENT, 1):
        _, state = model.train()(piece, state)
        _, other = shared(piece, other)
    assert state is not None
    assert other is not None
    assert state.loss is not None
    assert other.loss is not None
    torch.testing.assert_close(state.loss, other.loss, **EXACT)


def test_evaluation_asks_nothing() -> None:
    model, _ = pair(Compressive(4, 3, 2))
    assert model(tokens(1, 30))[1].loss is None


def test_a_row_with_nothing_to_compress_asks_nothing() -> None:
    model, _ = pair(Compressive(4, 3, 2))
    valid = torch.tensor([[True] * 4, [True, True, False, False]])
    _, state = model.train()(tokens(2, 4), valid=valid)
    _, state = model(tokens(2, 4), state.detach(), valid=valid)
    assert state.loss is not None
    assert state.loss[0] > 0
    assert state.loss[1] == 0


# -- the functions --------------------------------------------------------------------------------


def test_the_convolution_is_torchs() -> None:
    made = Convolution(5, 3).double()
    groups = torch.randn(2, 4, 3, 5).double()
    kernel = made.map.weight.unflatten(1, (3, 5)).transpose(1, 2)
    theirs = conv1d(groups.flatten(1, 2).transpose(1, 2), kernel, made.map.bias, stride=3)
    torch.testing.assert_close(made(groups), theirs.transpose(1, 2))


def test_dilated_convolutions_are_torchs_where_they_are_read() -> None:
    made = Dilated(5, 8).double()
    groups = torch.randn(2, 4, 8, 5).double()
    signal = groups.flatten(1, 2).transpose(1, 2)
    for index, each in enumerate(made.maps):
        assert isinstance(each, torch.nn.Linear)
        kernel = each.weight.unflatten(1, (2, 5)).transpose(1, 2)
        signal = relu(signal) if index else signal
        signal = conv1d(signal, kernel, each.bias, dilation=2**index)
    # without padding, place t of the last one has seen t .. t + 7
    torch.testing.assert_close(made(groups), signal[:, :, ::8].transpose(1, 2))


# -- what is held, of any stream ------------------------------------------------------------------


class Lists:
    """Positions and values of a row's newest document: compressed by the mean, and whole."""

    def __init__(self, memory: Compressive) -> None:
        self.memory = memory
        self.slots: list[tuple[int, float]] = []
        self.whole: list[tuple[int, float]] = []
        self.end = 0

    def begin(self) -> None:
        self.slots, self.whole, self.end = [], [], 0

    def add(self, value: float) -> None:
        self.whole.append((self.end, value))
        self.end += 1

    def fold(self) -> None:
        rate = self.memory.rate
        while len(self.whole) - self.memory.tokens >= rate:
            group, self.whole = self.whole[:rate], self.whole[rate:]
            self.slots.append((group[-1][0], sum(value for _, value in group) / rate))
        self.slots = self.slots[max(0, len(self.slots) - self.memory.compressed) :]


def project(x: Tensor) -> tuple[Tensor, Tensor]:
    return 2 * x[:, None], 3 * x[:, None]


PROJECT = Project(project, lambda x: x[:, None], lambda: PROJECT)


@given(
    streams(longest=7),
    st.integers(0, 3),
    st.integers(0, 3),
    st.integers(2, 3),
    st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_what_is_held_of_any_stream(
    calls: list[Call], whole: int, compressed: int, rate: int, training: bool
) -> None:
    """Rows with clocks of their own, documents that begin anywhere."""
    memory = Compressive(whole * rate, compressed, rate, "mean", "none")
    segment = 2 * rate
    keeper = memory.build(Sizes(1, 1, 1, 1, segment)).train(training)
    state = keeper.start(3, torch.zeros((), dtype=torch.float64))
    clock, value = torch.zeros(3, dtype=torch.long), 0.0
    rows = [Lists(memory) for _ in range(3)]
    if not training:
        # a piece of evaluation ends where any row's segment does: pieces of one token
        calls = [
            Call(
                1,
                tuple(int(t < c) for c in call.counts),
                tuple(frozenset({0}) if t in begun else frozenset() for begun in call.begun),
            )
            for call in calls
            for t in range(call.length)
        ]
    for call in calls:
        x = torch.arange(1.0, 1 + 3 * call.length, dtype=torch.float64).view(3, -1, 1) ** 2 + value
        value += 100.0
        for row, lists in enumerate(rows):
            for slot in range(call.counts[row]):
                if slot in call.begun[row]:
                    lists.begin()
                lists.add(float(x[row, slot, 0]))
                if not training and lists.end % segment == 0:
                    lists.fold()
            if training:
                lists.fold()
        places, clock = Places.of(clock, call.length, call.valid, call.starts, training)
        past = keeper.recall(state, PROJECT, keeper.slots(state).shape[1])
        state = keeper.write(state, past, x, *project(x), places, 0 if training else segment - 1)
    assert isinstance(state, Compressed)
    for row, lists in enumerate(rows):
        pos = state.pos[row].tolist()
        for low, high, expected in (
            (0, compressed, lists.slots),
            (compressed, len(pos), lists.whole),
        ):
            positions = [position for position, _ in expected]
            assert pos[low:high] == [EMPTY] * (high - low - len(expected)) + positions
            values = torch.tensor([v for _, v in expected], dtype=torch.float64)
            held = slice(high - len(expected), high)
            torch.testing.assert_close(state.x[row, held, 0], values)
            if not training:
                assert state.k is not None
                assert state.v is not None
                torch.testing.assert_close(state.k[row, 0, held, 0], 2 * values)
                torch.testing.assert_close(state.v[row, 0, held, 0], 3 * values)


@torch.no_grad()
def test_training_and_evaluation_take_each_others_state() -> None:
    model, _ = pair(Compressive(4, 3, 2))
    first, more = tokens(2, 5 * SEGMENT), tokens(2, 9, seed=2)
    state = other = None
    for piece in first.split(SEGMENT, 1):
        _, state = model.train()(piece, state)
    _, other = model.eval()(first)
    assert state is not None
    for mine, theirs in ((state, other), (other, state)):
        logits, _ = model.eval()(more, mine)
        torch.testing.assert_close(logits, model(more, theirs)[0], **EXACT)
        logits, _ = model.train()(more[:, :4], mine)
        torch.testing.assert_close(logits, model(more[:, :4], theirs)[0], **EXACT)


# -- other lengths --------------------------------------------------------------------------------


def test_its_length_is_what_its_slots_stand_for() -> None:
    memory = Compressive(8, 6, 4)
    assert memory.length == 32
    assert memory.recalled(32) == 14
    assert memory.covers(Segments(4, 32))
    assert not memory.covers(Segments(4, 33))
    assert not memory.covers(Window(99))


def test_another_length_compresses_more_or_less() -> None:
    memory = Compressive(8, 6, 4, "max", "none")
    assert memory.keeping(32) == memory
    assert memory.keeping(128) == replace(memory, compressed=30)
    assert memory.keeping(8) == replace(memory, compressed=0)
    assert memory.keeping(0) == replace(memory, tokens=0, compressed=0)
    # what rate does not divide is covered, and the pattern hides the rest
    assert memory.keeping(18) == replace(memory, compressed=3)
    assert memory.keeping(3) == replace(memory, tokens=4, compressed=0)
    with pytest.raises(ConfigError, match="'compressive' cannot be evaluated with another length"):
        memory.keeping(None)


@torch.no_grad()
def test_without_slots_it_is_transformer_xls_memory_and_without_any_none() -> None:
    model, _ = pair(Compressive(4, 3, 2))
    inputs = tokens(2, 30)
    for length, other in ((4, Recent(4)), (0, NoMemory())):
        plain = model.reshaped(pattern=Segments(SEGMENT, length), memory=other)
        logits = model.remembering(length)(inputs)[0]
        torch.testing.assert_close(logits, plain(inputs)[0], **EXACT)
    assert not torch.allclose(model(inputs)[0], logits)
    torch.testing.assert_close(model.remembering(40)(inputs)[0][:, :12], model(inputs)[0][:, :12])


def test_layers_recall_the_same_unless_they_choose() -> None:
    assert Compressive(4, 3, 2).alike
    chosen, _ = pair(Compressive(4, 3, 2, "most-used", "none"))
    assert not chosen.config.memory.alike
    _, state = chosen(tokens(2, 32))
    first, second = (layer.tensors()["pos"] for layer in state.layers)
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Compressive(-4, 3), r"memory\.tokens must be 0 or more, not -4"),
        (lambda: Compressive(4, -1), r"memory\.compressed must be 0 or more, not -1"),
        (lambda: Compressive(4, 3, 1), r"memory\.rate must be 2 or more, not 1"),
        (
            lambda: Compressive(10, 3, 4),
            r"memory\.rate=4 does not divide memory\.tokens=10; keep 8 or 12 whole tokens",
        ),
        (
            lambda: Compressive(6, 3, 6, "dilated"),
            r"needs a memory\.rate that is a power of 2, not 6; use 4 or 8",
        ),
        (
            lambda: Compressive(4, 3, function="max"),
            r"memory\.loss='attention' has nothing to teach: memory\.function='max' learns "
            "nothing; set memory.loss to none",
        ),
        (
            lambda: Compressive(4, 3, function="pool"),  # type: ignore[arg-type]
            r"memory\.function must be 'conv', 'dilated', 'max', 'mean' or 'most-used', not 'pool'",
        ),
    ],
)
def test_what_cannot_be_is_refused(make: Callable[[], Compressive], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_a_state_of_another_memory_is_refused() -> None:
    model, _ = pair(Compressive(4, 3, 2))
    for other in (Recent(10), Compressive(0, 99, 2)):
        wrong = decoder(replace(model.config, memory=other, exact=False))
        with pytest.raises(StateError, match="does not fit this layer"):
            model(tokens(1, 4), wrong(tokens(1, 4))[1])
    layer = Attention(6, 2, position=NoPosition(), pattern=Segments(4, 0), memory=Compressive(0, 3))
    _, state = layer.train()(torch.randn(1, 4, 6))
    assert isinstance(state.layers[0], Compressed)
