"""Recurrent Memory Transformer (2207.06881, section 3) a second time, over the slow layers of
`tests/naive.py`: [mem, segment, mem] is a list of vectors, and what becomes of the last ones the
memory of the next segment."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from longspan import (
    XL,
    Attention,
    ConfigError,
    Decoder,
    DecoderConfig,
    Encoder,
    EncoderConfig,
    Full,
    IncompatibleConfig,
    Learned,
    NoMemory,
    Recent,
    Segments,
    Sinusoidal,
    Tokens,
    Window,
)
from longspan.errors import StateError
from longspan.mixers.lstm import LSTM
from longspan.models.stack import Different
from tests.contracts.samples import VOCABULARY, decoder, tokens
from tests.naive import Naive, Weights, norm

SEGMENT, COUNT, WIDTH = 4, 2, 6
BASE = DecoderConfig(
    width=WIDTH,
    layers=2,
    heads=2,
    feed_forward=5,
    activation="relu",
    position=XL(),
    pattern=Segments(SEGMENT, 0),
    memory=Tokens(COUNT),
)
EXACT = {"atol": 1e-10, "rtol": 0.0}
ONCE = Naive(layers=2, heads=2, width=WIDTH, segment=10**6, memory=0, pre_norm=True)


def passed(weights: Weights, hidden: list[Tensor]) -> list[Tensor]:
    """What the whole model makes of a list of vectors (C,)."""
    for layer in range(ONCE.layers):
        hidden = ONCE.layer(weights, layer, hidden, range(len(hidden)), hidden)
    return [norm(weights, "norm", h) for h in hidden]


def naive(
    weights: Weights, segments: list[list[int]], *, full: int = 1
) -> tuple[Tensor, list[Tensor]]:
    """Logits (N, V) after a document's tokens, segment by segment, and the memory then.

    A segment writes if it is `full`.
    """
    memory = list(weights["wrapping.first"])
    answers = []
    for segment in segments:
        around = [*memory, *ONCE.embed(weights, segment), *memory]
        hidden = passed(weights, around)
        answers += hidden[COUNT : COUNT + len(segment)]
        if len(segment) >= full:
            memory = hidden[-COUNT:]
    rows, biases = weights["head.tables.0"], weights["head.bias"]
    return torch.stack([rows @ h + biases for h in answers]), memory


def cut(document: Tensor) -> list[list[int]]:
    return [piece.tolist() for piece in document.split(SEGMENT)]


def weights_of(model: Decoder) -> Weights:
    return dict(model.named_parameters(remove_duplicate=False))


def test_the_paper_in_output_state_and_gradient() -> None:
    """Three calls of training, no graph cut: the gradient flows through the memory."""
    model, inputs = decoder(BASE).train(), tokens(2, 3 * SEGMENT)
    state, parts = None, []
    for piece in inputs.split(SEGMENT, 1):
        logits, state = model(piece, state)
        parts.append(logits)
    mine = torch.cat(parts, 1)
    results = [naive(weights_of(model), cut(row)) for row in inputs]
    theirs = torch.stack([logits for logits, _ in results])
    torch.testing.assert_close(mine, theirs, **EXACT)
    assert state is not None
    held = state.layers[-1].held()["vectors"]
    torch.testing.assert_close(held, torch.stack([torch.stack(m) for _, m in results]), **EXACT)
    # of the last segment alone
    names, leaves = zip(*model.named_parameters(), strict=True)
    each = [torch.autograd.grad(y[:, -SEGMENT:].sin().sum(), leaves) for y in (mine, theirs)]
    for name, a, b in zip(names, *each, strict=True):
        torch.testing.assert_close(a, b, **EXACT, msg=name)
    assert each[0][names.index("wrapping.first")].abs().min() > 0


def test_the_gradient_ends_where_the_trainer_cuts_it() -> None:
    model, inputs = decoder(BASE).train(), tokens(1, 2 * SEGMENT)
    first, second = inputs.split(SEGMENT, 1)
    for cuts in (False, True):
        _, state = model(first)
        logits, _ = model(second, state.detach() if cuts else state)
        (reached,) = torch.autograd.grad(
            logits.sum(), model.wrapping.first, allow_unused=True, materialize_grads=True
        )
        assert (reached.abs().max() == 0) == cuts


@torch.no_grad()
@pytest.mark.parametrize("size", [1, 3, 4, 64])
def test_in_evaluation_memory_is_written_when_a_segment_ends(size: int) -> None:
    """Rows with clocks of their own, and padding."""
    model, lengths = decoder(BASE), [11, 8, 0, 6]
    documents = tokens(4, 11)
    model(documents)
    valid = torch.arange(11) < torch.tensor(lengths)[:, None]
    state, parts = None, []
    for piece, real in zip(documents.split(size, 1), valid.split(size, 1), strict=True):
        logits, state = model(piece, state, valid=real)
        parts.append(logits)
    more = tokens(4, 9, seed=2)
    rest, after = model(more, state)
    logits = torch.cat(parts, 1)
    for row, length in enumerate(lengths):
        document = torch.cat([documents[row, :length], more[row]])
        expected, memory = naive(weights_of(model), cut(document), full=SEGMENT)
        torch.testing.assert_close(logits[row, :length], expected[:length], **EXACT)
        torch.testing.assert_close(rest[row], expected[length:], **EXACT)
        held = after.layers[-1].held()["vectors"][row]
        torch.testing.assert_close(held, torch.stack(memory), **EXACT)


@torch.no_grad()
@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
def test_documents_that_begin_in_the_middle_of_a_call(training: bool) -> None:
    """They read the learned memory, whatever stood before, and write of themselves alone."""
    model = decoder(BASE).train(training)
    inputs, starts = tokens(5, 3 * SEGMENT), torch.zeros(5, SEGMENT, dtype=torch.bool)
    starts[1, 1] = starts[2, 0] = starts[3, 1] = starts[3, 3] = True
    valid = torch.ones(5, SEGMENT, dtype=torch.bool)
    valid[4, 2:] = False
    first, second, third = inputs.split(SEGMENT, 1)
    _, state = model(first)
    y, state = model(second, state, starts=starts, valid=valid)
    z, state = model(third, state)
    for row, begin in enumerate([None, 1, 0, 3, None]):
        count = int(valid[row].sum())
        if begin is None:
            segments = [first[row], second[row, :count], third[row]]
        else:
            segments = [second[row, begin:], third[row]]
        if not training:
            segments = list(torch.cat(segments).split(SEGMENT))
        expected, memory = naive(
            weights_of(model), [s.tolist() for s in segments], full=1 if training else SEGMENT
        )
        seen = torch.cat([y[row, begin or 0 : count], z[row]])
        torch.testing.assert_close(seen, expected[-len(seen) :], **EXACT)
        held = state.layers[-1].held()["vectors"][row]
        torch.testing.assert_close(held, torch.stack(memory), **EXACT)
    # what stood before is answered as ever; the document between has three tokens of its own
    before, _ = naive(weights_of(model), [first[3].tolist(), second[3, :1].tolist()])
    torch.testing.assert_close(y[3, :1], before[SEGMENT:], **EXACT)
    between, _ = naive(weights_of(model), [second[3, 1:3].tolist()])
    torch.testing.assert_close(y[3, 1:3], between, **EXACT)


@torch.no_grad()
def test_every_token_sees_what_is_read_and_what_is_written_sees_every_token() -> None:
    model, inputs = decoder(BASE), tokens(1, SEGMENT)
    logits, state = model(inputs)
    model.wrapping.first[-1] += 0.1
    changed, other = model(inputs)
    assert (changed != logits).any(-1).all()
    model.wrapping.first[-1] -= 0.1
    for place in range(SEGMENT):
        another = inputs.clone()
        another[0, place] = (another[0, place] + 1) % VOCABULARY
        _, other = model(another)
        mine, theirs = (s.layers[-1].held()["vectors"] for s in (state, other))
        assert (mine != theirs).any(-1).all()


@torch.no_grad()
def test_what_is_far_comes_through_the_memory_alone() -> None:
    model, stream = decoder(BASE), tokens(1, 40)
    changed = stream.clone()
    changed[0, 1] = (changed[0, 1] + 1) % VOCABULARY
    (first, a), (second, b) = model(stream), model(changed)
    assert (first[:, -SEGMENT:] != second[:, -SEGMENT:]).all()
    assert a.nbytes == b.nbytes == model(stream[:, :SEGMENT])[1].nbytes
    bare = model.remembering(0)
    assert bare.config.memory == NoMemory()
    assert torch.equal(bare(stream)[0][:, SEGMENT:], bare(changed)[0][:, SEGMENT:])
    longer = model.segmented(10)
    assert longer.wrapping.first is model.wrapping.first
    assert (longer(stream)[0][:, 10:] != longer(changed)[0][:, 10:]).any()
    with pytest.raises(StateError, match="the state has 3 layers, the model 2: it is another"):
        bare(stream, a)
    with pytest.raises(StateError, match="does not fit this layer of width 6: it is another"):
        decoder(replace(BASE, memory=Tokens(3)))(stream, a)


@torch.no_grad()
def test_positions_at_the_input_count_from_0_in_every_segment() -> None:
    """So that a table needs no more places than a segment with its memory has."""
    held = SEGMENT + 2 * COUNT
    for position in (Learned(held), Sinusoidal()):
        model = decoder(replace(BASE, position=position))
        seen: list[Tensor] = []
        model.entry.register_forward_hook(lambda _m, args, _out, seen=seen: seen.append(args[0]))
        model(tokens(2, 2 * SEGMENT + 1))
        full, begun = list(range(held)), list(range(COUNT + 1))
        assert [pos.tolist() for pos in seen] == [[full] * 2, [full] * 2, [begun] * 2]
    with pytest.raises(IncompatibleConfig) as caught:
        Decoder(replace(BASE, position=Learned(held - 1)), VOCABULARY)
    assert [str(conflict) for conflict in caught.value.conflicts] == [
        "[P2] position='learned' has 7 places, and a segment holds 8 tokens with those of "
        "memory='tokens'. Set model.position.length to 8 or more."
    ]


@torch.no_grad()
def test_layers_that_differ() -> None:
    """A recurrent layer, too, sees one segment at a time, and only the memory goes on."""
    config = replace(BASE, stack=(Different(mixer=LSTM()), Different()))
    model, inputs = decoder(config), tokens(3, 18)
    whole, final = model(inputs)
    for size in (1, 7):
        state, parts = None, []
        for piece in inputs.split(size, 1):
            logits, state = model(piece, state)
            parts.append(logits)
        torch.testing.assert_close(torch.cat(parts, 1), whole, **EXACT)
    state = model(inputs[:, :SEGMENT])[1]
    around = state.layers[-1]
    fresh = replace(model.start(3), next=state.next)
    fresh = replace(fresh, layers=(*fresh.layers[:-1], around))
    mine, theirs = (model(inputs[:, SEGMENT:], s)[0] for s in (state, fresh))
    torch.testing.assert_close(mine, theirs, **EXACT)
    assert final.layers[-1].kind == "tokens"


def rules(config: DecoderConfig | EncoderConfig) -> list[str]:
    return [conflict.rule for conflict in config.conflicts()]


def test_what_it_goes_with() -> None:
    assert rules(BASE) == []
    assert rules(replace(BASE, pattern=Segments(SEGMENT, 2))) == ["M2"]
    assert rules(replace(BASE, pattern=Window(1))) == ["M3"]
    with pytest.raises(IncompatibleConfig, match=r"\[M5\] memory='tokens' wraps a whole decoder"):
        Attention(WIDTH, 2, pattern=Segments(SEGMENT, 0), memory=Tokens(2))
    sizes = {"width": WIDTH, "layers": 2, "heads": 2, "feed_forward": 5}
    with pytest.raises(IncompatibleConfig, match=r"\[M5\].*\n?.*\[M1\]|\[M1\]"):
        Encoder(EncoderConfig(**sizes, pattern=Full(), memory=Tokens(2)), VOCABULARY)
    assert Tokens(3).keeping(0) == NoMemory()
    with pytest.raises(ConfigError, match="'tokens' cannot be evaluated with another length"):
        Tokens(3).keeping(5)
    with pytest.raises(ConfigError, match=r"memory\.count must be 1 or more, not 0"):
        Tokens(0)


def test_it_is_a_property_of_the_whole_model() -> None:
    one = replace(BASE, memory=NoMemory(), stack=(Different(memory=Tokens(2)), Different()))
    (conflict,) = one.conflicts()
    assert str(conflict) == (
        "[M5] layer 0: memory='tokens' wraps a whole decoder, not a layer. Give it to a Decoder as "
        "the memory of all layers (model.memory), or use another."
    )
    inner = Different(pattern=Segments(SEGMENT, 3), memory=Recent(3))
    (conflict,) = replace(BASE, stack=(inner, Different())).conflicts()
    assert str(conflict) == (
        "[S5] layer 0: memory='recent' has no place inside a model that memory='tokens' wraps: a "
        "layer sees one segment at a time. Leave memory out there, or use it for the whole model."
    )
