"""The Memorizing Transformer (2203.08913) a second time, from the paper alone and by loops."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from longspan import (
    XL,
    Causal,
    ConfigError,
    Decoder,
    DecoderConfig,
    Nearest,
    NoMemory,
    Recent,
    Segments,
    Window,
)
from longspan.buffer import Keys
from longspan.errors import StateError
from longspan.memories import nearest as module
from longspan.memories.nearest import Shelf
from longspan.slots import Pattern
from longspan.state import EMPTY
from tests.contracts.samples import decoder, tokens
from tests.naive import Naive, Weights, feed_forward, norm
from tests.streams import Call, streams

EXACT = {"atol": 1e-10, "rtol": 0.0}
SEGMENT = 4
faiss = pytest.mark.skipif(
    importlib.util.find_spec("faiss") is None, reason="faiss is not installed (longspan[faiss])"
)


# -- the paper, by loops --------------------------------------------------------------------------


@dataclass(frozen=True)
class Paper:
    """A decoder on one document, token by token, with XL's scores in local attention."""

    net: Naive
    memory: Nearest

    def run(self, weights: Weights, document: list[int], training: bool) -> Tensor:
        """Logits (T, V). In training the gradient stops between segments."""
        net = self.net
        # keys and values (H, D) of every layer and position
        known: list[list[tuple[Tensor, Tensor]]] = [[] for _ in range(net.layers)]
        logits = []
        for start in range(0, len(document), net.segment):
            today = range(start, min(start + net.segment, len(document)))
            hidden = net.embed(weights, [document[i] for i in today])
            for layer, keys in enumerate(known):
                if training:
                    keys[:] = [(k.detach(), v.detach()) for k, v in keys]
                hidden = self.layer(weights, layer, keys, today, hidden)
            logits += [net.head(weights, h) for h in hidden]
        return torch.stack(logits)

    def layer(
        self,
        weights: Weights,
        layer: int,
        keys: list[tuple[Tensor, Tensor]],
        today: range,
        hidden: list[Tensor],
    ) -> list[Tensor]:
        """One layer's answers for today's tokens, whose keys it adds."""
        name, answers = f"layers.{layer}", []
        w_q, w_k, w_v, w_o = (weights[f"{name}.mixer.{part}.weight"] for part in "qkvo")
        for position, h in zip(today, hidden, strict=True):
            read = norm(weights, f"{name}.mixer.norm", h)
            q, k, v = (w @ read for w in (w_q, w_k, w_v))
            shape = (self.net.heads, -1)
            keys.append((k.view(shape), v.view(shape)))
            first = self.net.segment * (position // self.net.segment) - self.net.memory
            heads = []
            for head, query in enumerate(q.view(shape)):
                near = self.near(weights, name, keys, head, query, max(0, first), position)
                stored = keys[max(0, first - self.memory.tokens) : max(0, first)]
                far = [(k[head].detach(), v[head].detach()) for k, v in stored]
                heads.append(self.merged(weights, name, head, query, near, far))
            h = h + w_o @ torch.cat(heads)
            read = norm(weights, f"{name}.feed_forward_norm", h)
            answers.append(h + feed_forward(weights, f"{name}.feed_forward", read))
        return answers

    def near(
        self,
        weights: Weights,
        name: str,
        keys: list[tuple[Tensor, Tensor]],
        head: int,
        query: Tensor,
        first: int,
        last: int,
    ) -> Tensor:
        """Local attention over the positions first .. last (1901.02860, section 3.3)."""
        w_r = weights[f"{name}.mixer.order.r.weight"].view(self.net.heads, len(query), -1)[head]
        u, v = (weights[f"{name}.mixer.order.{part}"][head] for part in "uv")
        scores, values = [], []
        for j in range(first, last + 1):
            place = w_r @ self.net.sinusoid(last - j, query)
            scores.append((query + u) @ keys[j][0][head] + (query + v) @ place)
            values.append(keys[j][1][head])
        shares = (torch.stack(scores) / math.sqrt(len(query))).softmax(0)
        return shares @ torch.stack(values)

    def merged(
        self,
        weights: Weights,
        name: str,
        head: int,
        query: Tensor,
        near: Tensor,
        far: list[tuple[Tensor, Tensor]],
    ) -> Tensor:
        """g V_m + (1 - g) V_c over the k nearest, or V_c alone."""
        if not far:
            return near
        if self.memory.normalised:
            sharp = weights[f"{name}.mixer.keeper.sharpness"][head]
            query = query / query.norm()
            scored = [(sharp * (query @ k / k.norm()), v) for k, v in far]
            order = [float((query @ k / k.norm()).detach()) for k, _ in far]
        else:
            scored = [(query @ k / math.sqrt(len(k)), v) for k, v in far]
            order = [float(score.detach()) for score, _ in scored]
        top = sorted(range(len(far)), key=lambda j: -order[j])[: self.memory.top]
        shares = torch.stack([scored[j][0] for j in top]).softmax(0)
        answer = shares @ torch.stack([scored[j][1] for j in top])
        gate = 1 / (1 + (-weights[f"{name}.mixer.keeper.gate"][head]).exp())
        return gate * answer + (1 - gate) * near


def pair(memory: Nearest, pattern: Pattern | None = None) -> tuple[Decoder, Paper]:
    """The same model twice, with random weights."""
    config = DecoderConfig(
        width=6,
        layers=2,
        heads=2,
        feed_forward=8,
        position=XL(),
        pattern=pattern or Segments(SEGMENT, memory.local),
        memory=memory,
        activation="relu",
    )
    net = Naive(2, 2, 6, SEGMENT, memory.local, pre_norm=True)
    return decoder(config), Paper(net, memory)


def named(model: Decoder) -> dict[str, Tensor]:
    """Its weights by all their names."""
    return dict(model.named_parameters(remove_duplicate=False))


EVERY = [
    Nearest(9, 3),
    Nearest(9, 3, local=3),
    Nearest(5, 50, local=4),
    Nearest(8, 1, normalised=False),
    pytest.param(Nearest(9, 3, local=3, search="exact"), marks=faiss, id="faiss"),
]


def searched(memory: Nearest, request: pytest.FixtureRequest) -> Nearest:
    """With the library where the case is called after it."""
    return replace(memory, search="faiss") if "faiss" in request.node.name else memory


@pytest.mark.parametrize("memory", EVERY, ids=repr)
@torch.no_grad()
def test_evaluation_is_the_papers(memory: Nearest, request: pytest.FixtureRequest) -> None:
    model, paper = pair(searched(memory, request))
    document = tokens(2, 26)
    logits, _ = model(document)
    for row in range(2):
        mine = paper.run(named(model), document[row].tolist(), training=False)
        torch.testing.assert_close(logits[row], mine, **EXACT)


@pytest.mark.parametrize("memory", EVERY, ids=repr)
def test_training_is_the_papers(memory: Nearest, request: pytest.FixtureRequest) -> None:
    """Output and gradient over five segments: no gradient enters what is stored."""
    model, paper = pair(searched(memory, request))
    document, state, logits = tokens(2, 5 * SEGMENT), None, []
    for piece in document.split(SEGMENT, 1):
        part, state = model.train()(piece, None if state is None else state.detach())
        logits.append(part)
    mine = torch.autograd.grad(torch.cat(logits, 1).sin().sum(), list(model.parameters()))
    total = torch.zeros((), dtype=torch.float64)
    for row in range(2):
        other = paper.run(named(model), document[row].tolist(), training=True)
        torch.testing.assert_close(torch.cat(logits, 1)[row], other, **EXACT)
        total = total + other.sin().sum()
    theirs = torch.autograd.grad(total, list(model.parameters()))
    for (name, _), a, b in zip(model.named_parameters(), mine, theirs, strict=True):
        torch.testing.assert_close(a, b, **EXACT, msg=name)
        if ".keeper." in name:
            assert a.abs().max() > 0


def test_no_gradient_enters_the_store() -> None:
    """Not even where it may flow through several calls."""
    model, _ = pair(Nearest(9, 3))
    embedded: list[Tensor] = []
    model.train().embedding.register_forward_hook(lambda _m, _a, out: embedded.append(out))
    _, state = model(tokens(1, SEGMENT))
    logits, state = model(tokens(1, SEGMENT, seed=2), state)
    yesterday, today = torch.autograd.grad(logits.sum(), embedded, allow_unused=True)
    assert yesterday is None or not yesterday.any()
    assert today.abs().max() > 0
    # what was stored counts all the same
    assert not torch.allclose(logits, model(tokens(1, SEGMENT, seed=2))[0])


@torch.no_grad()
def test_a_closed_gate_is_local_attention_and_an_open_one_hears_the_store_alone() -> None:
    model, _ = pair(Nearest(9, 3, local=3))
    inputs, plain = tokens(2, 30), model.reshaped(pattern=Segments(SEGMENT, 3), memory=Recent(3))
    for value, same in ((-1e3, True), (0.0, False), (1e3, False)):
        for block in model.blocks():
            block.mixer.get_parameter("keeper.gate").fill_(value)
        assert torch.allclose(model(inputs)[0], plain(inputs)[0]) == same
        # nothing is stored beyond the first segment and what it sees
        torch.testing.assert_close(model(inputs[:, :4])[0], plain(inputs[:, :4])[0], **EXACT)


@torch.no_grad()
def test_it_finds_what_was_said_once_long_ago() -> None:
    """A key that no other is like is found at any distance within the store, and no further."""
    for distance, found in ((24, True), (25, False)):
        shelf = Shelf(
            torch.eye(40)[None, None],
            torch.eye(40)[None, None],
            torch.arange(40)[None],
            None,
            torch.tensor([[30]]),
            None,
            24,
        )
        wanted = 30 - distance
        index, _ = shelf.exact(torch.eye(40)[None, None, wanted : wanted + 1], 1)
        assert (int(index) == wanted) == found


# -- the search -----------------------------------------------------------------------------------


def shelves(draw: st.DrawFn) -> tuple[Shelf, Tensor, int]:
    """Random stores, and queries with what they may find."""
    batch, groups, each = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    total, length = draw(st.integers(1, 12)), draw(st.integers(1, 4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    k, v = torch.randn(2, batch, groups, total, 3, generator=generator).double()
    last = draw(st.integers(0, total))
    pos = torch.arange(total).repeat(batch, 1) - last
    pos = pos.masked_fill(pos < 0, EMPTY) if draw(st.booleans()) else pos + last
    first = torch.randint(-3, total + 3, (batch, length), generator=generator).sort(1).values
    doc = of = None
    if draw(st.booleans()):
        doc = torch.randint(0, 2, (batch, total), generator=generator).sort(1).values
        of = torch.randint(0, 2, (batch, length), generator=generator).sort(1).values
    q = torch.randn(batch, groups, each * length, 3, generator=generator).double()
    return Shelf(k, v, pos, doc, first, of, draw(st.integers(1, 8))), q, draw(st.integers(1, total))


def assert_finds(shelf: Shelf, q: Tensor, index: Tensor, found: Tensor) -> None:
    """Each query finds the greatest products among what it may see, as a sorted list says."""
    for row, group, n in torch.cartesian_prod(*map(torch.arange, q.shape[:3])).view(-1, 3).tolist():
        t = n % shelf.first.shape[1]
        first = int(shelf.first[row, t])
        there = [
            s
            for s, position in enumerate(shelf.pos[row].tolist())
            if position != EMPTY
            and first - shelf.tokens <= position < first
            and (shelf.doc is None or shelf.of is None or shelf.doc[row, s] == shelf.of[row, t])
        ]
        products = {s: float(q[row, group, n] @ shelf.k[row, group, s]) for s in there}
        best = sorted(there, key=lambda s: -products[s])[: index.shape[3]]
        mine = index[row, group, n][found[row, group, n]].tolist()
        assert sorted(mine) == sorted(best)


@given(st.data(), st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_the_exact_search_is_a_sort(data: st.DataObject, block: int) -> None:
    """However many scores it holds at once."""
    shelf, q, top = shelves(data.draw)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", block)
        assert_finds(shelf, q, *shelf.exact(q, top))


@faiss
@given(st.data())
@settings(max_examples=60, deadline=None)
def test_the_librarys_search_is_a_sort(data: st.DataObject) -> None:
    shelf, q, top = shelves(data.draw)
    assert_finds(shelf, q, *shelf.faiss(q, top))


@torch.no_grad()
def test_shared_keys_are_every_heads() -> None:
    model, _ = pair(Nearest(9, 3, local=3))
    shared = decoder(replace(model.config, kv_heads=1))
    weights = shared.state_dict()
    for name in weights:
        if name.endswith((".mixer.k.weight", ".mixer.v.weight")):
            weights[name] = weights[name].repeat(2, 1)
    model.load_state_dict(weights)
    torch.testing.assert_close(model(tokens(2, 30))[0], shared(tokens(2, 30))[0], **EXACT)


@torch.no_grad()
def test_other_patterns_leave_the_store_what_they_do_not_show() -> None:
    """With a store that holds all and every key read, each token meets every token before it."""
    model, _ = pair(Nearest(99, 99, local=4), Window(5))
    inputs = tokens(1, 30)
    seen = []
    exact = Shelf.exact

    def noted(self: Shelf, q: Tensor, top: int) -> tuple[Tensor, Tensor]:
        index, found = exact(self, q, top)
        seen.append(found[0, 0].sum(1))
        return index, found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Shelf, "exact", noted)
        whole, _ = model(inputs)
        assert seen[0].tolist() == [max(0, i - 4) for i in range(30)]
    state, parts = None, []
    for piece in inputs.split(3, 1):
        part, state = model(piece, state)
        parts.append(part)
    torch.testing.assert_close(torch.cat(parts, 1), whole, **EXACT)


@given(streams())
@settings(max_examples=25, deadline=None)
@torch.no_grad()
def test_rows_and_documents_of_their_own(calls: list[Call]) -> None:
    """What a batch says of each row is what the row says alone, whatever stands beside it."""
    model, _ = pair(Nearest(5, 2, local=2))
    state, alone, count = None, [None] * 3, 0
    for call in calls:
        inputs, count = tokens(3, call.length, seed=count), count + 1
        logits, state = model(inputs, state, valid=call.valid, starts=call.starts)
        for row, real in enumerate(call.counts):
            starts = None if call.starts is None else call.starts[row : row + 1, :real]
            if real:
                own, alone[row] = model(inputs[row : row + 1, :real], alone[row], starts=starts)
                torch.testing.assert_close(logits[row : row + 1, :real], own, **EXACT)


# -- lengths and refusals -------------------------------------------------------------------------


@torch.no_grad()
def test_its_size() -> None:
    """The store, what the softmax sees, and in evaluation the unfinished segment; never more."""
    model, _ = pair(Nearest(9, 3, local=3))
    for training, slots in ((False, 9 + 3 + SEGMENT - 1), (True, 9 + 3)):
        state = None
        for _ in range(6):
            _, state = model.train(training)(tokens(2, SEGMENT), state)
        assert state is not None
        (first, _) = state.layers
        assert isinstance(first, Keys)
        assert first.k.shape == (2, 2, slots, 3)


def test_its_length_is_that_of_the_softmax() -> None:
    memory = Nearest(100, 8, local=6)
    assert memory.length == 6
    assert memory.kept == 106
    assert memory.covers(Segments(4, 6))
    assert not memory.covers(Segments(4, 7))
    assert not memory.covers(Causal())
    assert memory.keeping(9) == replace(memory, local=9)
    with pytest.raises(ConfigError, match="'nearest' cannot be evaluated with another length"):
        memory.keeping(None)


def test_without_it() -> None:
    """A length of 0 leaves neither the store nor what the softmax saw of the past."""
    for memory in (Nearest(9, 3), Nearest(9, 3, local=6)):
        assert memory.carries
        assert memory.keeping(0) == NoMemory()
    model, _ = pair(Nearest(9, 3))
    stream = tokens(1, 3 * SEGMENT)
    with torch.no_grad():
        bare, _ = model.remembering(0)(stream)
        assert not torch.allclose(bare[:, SEGMENT:], model(stream)[0][:, SEGMENT:])
        for low in (0, SEGMENT, 2 * SEGMENT):
            alone, _ = model(stream[:, low : low + SEGMENT])
            torch.testing.assert_close(bare[:, low : low + SEGMENT], alone, **EXACT)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Nearest(0), r"memory\.tokens must be 1 or more, not 0"),
        (lambda: Nearest(9, 0), r"memory\.top must be 1 or more, not 0"),
        (lambda: Nearest(9, local=-1), r"memory\.local must be 0 or more, not -1"),
        (
            lambda: Nearest(9, search="fiass"),  # type: ignore[arg-type]
            r"memory\.search must be 'exact' or 'faiss', not 'fiass'",
        ),
    ],
)
def test_what_cannot_be_is_refused(make: Callable[[], Nearest], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_without_the_library_one_line_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(ConfigError) as caught:
        Nearest(9, search="faiss")
    assert str(caught.value) == (
        "memory.search='faiss' needs the faiss library; pip install longspan[faiss], or use "
        "search 'exact'"
    )


def test_a_state_of_another_memory_is_refused() -> None:
    model, _ = pair(Nearest(9, 3))
    hidden = decoder(replace(model.config, memory=Recent(4, store="hidden")))
    with pytest.raises(StateError, match="does not fit this layer"):
        model(tokens(1, 4), hidden(tokens(1, 4))[1])
    plain = decoder(replace(model.config, memory=NoMemory()))
    model(tokens(1, 4), plain(tokens(1, 4))[1])
