"""Longformer (2004.05150, section 3.1): a window, marked tokens, and maps of their own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from longspan import (
    Attention,
    Cache,
    ConfigError,
    Decoder,
    DecoderConfig,
    Encoder,
    EncoderConfig,
    Full,
    Longformer,
    Nearest,
    NoMemory,
    NoPosition,
    Recent,
    Sinks,
)
from longspan.compat import slot_conflicts
from longspan.errors import InputError, StateError
from longspan.models.stack import Different
from longspan.slots import Memory, Pairs, Places
from tests.contracts.samples import tokens

EXACT = {"atol": 1e-12, "rtol": 0.0}
IDS = torch.tensor([[7, 2, 9, 9, 3, 2, 2, 5, 9, 1, 9, 4]])
NOTHING = torch.full((1, 3), -1)


def places(
    starts: Tensor | None = None,
    valid: Tensor | None = None,
    last: Tensor = NOTHING,
    clock: int = 0,
) -> Places:
    made, after = Places.of(torch.tensor([clock]), IDS.shape[1], valid, starts)
    return made.reading(IDS, last, after)[0]


def marked(pattern: Longformer, where: Places) -> list[int]:
    return pattern.marked(where)[0].nonzero()[:, 0].tolist()


def test_tokens_are_marked_by_place_by_what_they_are_and_by_what_precedes_them() -> None:
    assert marked(Longformer(2), places()) == [0]
    assert marked(Longformer(2, ()), places()) == []
    assert marked(Longformer(2, (0, 4, 99)), places()) == [0, 4]
    assert marked(Longformer(2, (), (2, 4)), places()) == [1, 5, 6, 11]
    assert marked(Longformer(2, (), (), ((9,),)), places()) == [3, 4, 9, 11]
    assert marked(Longformer(2, (), (), ((9, 9), (2, 2, 5))), places()) == [4, 8]
    assert marked(Longformer(2, (0,), (1,), ((2,), (9, 3))), places()) == [0, 2, 5, 6, 7, 9]
    valid = torch.arange(12)[None] < 9
    assert marked(Longformer(2, (4, 10), (1,), ((9,),)), places(valid=valid)) == [3, 4]


def test_what_precedes_is_known_across_calls_and_forgotten_across_documents() -> None:
    pattern = Longformer(2, (), (), ((9,), (3, 9, 7)))
    before = torch.tensor([[1, 3, 9]])
    assert marked(pattern, places(last=before, clock=5)) == [0, 1, 3, 4, 9, 11]
    # a document that begins with the call, and two that begin in it
    assert marked(pattern, places(last=before)) == [3, 4, 9, 11]
    starts = torch.zeros(1, 12, dtype=torch.bool)
    starts[0, 3] = starts[0, 9] = True
    assert marked(pattern, places(starts)) == [4, 11]


@pytest.mark.parametrize("size", [1, 2, 5, 12])
def test_the_newest_tokens_of_a_document_are_kept(size: int) -> None:
    """In pieces, padded, and behind another document, whose tokens leave no trace."""
    ids = torch.cat([IDS, IDS.flip(1)])
    starts = torch.zeros(2, 12, dtype=torch.bool)
    starts[1, 10] = True
    valid = torch.arange(12) < torch.tensor([[8], [12]])
    last: Tensor | None = torch.full((2, 3), -1)
    clock = torch.zeros(2, dtype=torch.long)
    for low in range(0, 12, size):
        piece = slice(low, low + size)
        each = (valid[:, piece], starts[:, piece])
        made, clock = Places.of(clock, ids[:, piece].shape[1], *each)
        made, last = made.reading(ids[:, piece], last, clock)
    assert last is not None
    assert last.tolist() == [[2, 2, 5], [-1, 2, 7]]


@pytest.mark.parametrize("causal", [True, False])
def test_who_sees_whom(causal: bool) -> None:
    pattern = Longformer(3, (), (2,), causal=causal)
    visible = Pairs.of(places(), IDS[:, :0], pattern, consecutive=True).visible[0].tolist()
    ids = IDS[0].tolist()
    for q in range(12):
        for k in range(12):
            met = abs(q - k) < 3 or ids[q] == 2 or ids[k] == 2
            assert visible[q][k] == (met and (k <= q or not causal)), (q, k)


@pytest.mark.parametrize("shared", [1, 2])
@pytest.mark.parametrize("causal", [True, False])
def test_marked_tokens_see_by_maps_of_their_own(causal: bool, shared: int) -> None:
    """Equations of section 3.1, one query after another: output and gradients."""
    torch.manual_seed(0)
    pattern = Longformer(3, positions=(0, 4), causal=causal)
    layer = Attention(6, 2, kv_heads=2 // shared, pattern=pattern, exact=False).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    x = torch.randn(1, 9, 6, dtype=torch.float64, requires_grad=True)
    assert layer.wide is not None
    rows = []
    for q in range(9):
        maps = layer.wide if q in (0, 4) else layer
        near = {k for k in range(9) if abs(q - k) < 3 or q in (0, 4) or k in (0, 4)}
        keys = sorted(k for k in near if k <= q or not causal)
        heads = []
        for head in range(2):
            w_q = maps.q.weight[3 * head : 3 * head + 3]
            group = head // shared
            w_k, w_v = (each.weight[3 * group : 3 * group + 3] for each in (maps.k, maps.v))
            scores = torch.stack([(w_q @ x[0, q]) @ (w_k @ x[0, k]) / 3**0.5 for k in keys])
            shares = scores.softmax(0)
            parts = [share * (w_v @ x[0, k]) for share, k in zip(shares, keys, strict=True)]
            heads.append(torch.stack(parts).sum(0))
        rows.append(layer.o(torch.cat(heads)))
    expected, (made, _) = torch.stack(rows)[None], layer(x)
    torch.testing.assert_close(made, expected, **EXACT)
    inputs = [x, *layer.parameters()]
    mine, theirs = (torch.autograd.grad(y.sin().sum(), inputs) for y in (made, expected))
    for one, other in zip(mine, theirs, strict=True):
        assert other.abs().max() > 1e-3
        torch.testing.assert_close(one, other, **EXACT)


def test_maps_of_their_own_start_out_as_the_common_ones() -> None:
    pattern = Longformer(3, positions=(0,))
    config = DecoderConfig(
        width=8, layers=2, heads=2, feed_forward=8, pattern=pattern, memory=Cache()
    )
    for block in Decoder(config, 5).blocks():
        mixer = block.mixer
        assert isinstance(mixer, Attention)
        assert mixer.wide is not None
        for name in "qkv":
            weight, own = getattr(mixer, name).weight, getattr(mixer.wide, name).weight
            assert torch.equal(weight, own)
            assert weight is not own


@torch.no_grad()
def test_a_marked_token_is_remembered_however_far_back() -> None:
    """Changing it changes what is said long after the window has left it; others are forgotten."""
    torch.manual_seed(0)
    pattern = Longformer(3, (), (), ((8, 9),))
    config = DecoderConfig(
        width=8, layers=1, heads=2, feed_forward=8, pattern=pattern, memory=Cache()
    )
    model = Decoder(config, 30).double().eval()
    inputs = 10 + tokens(1, 40) % 20
    inputs[0, 3], inputs[0, 4] = 8, 9
    others = []
    for slot in (5, 6):
        changed = inputs.clone()
        changed[0, slot] = 29 - (inputs[0, slot] - 10)
        others.append(changed)
    state, last = None, []
    for each in (inputs, *others):
        state = None
        for piece in each.split(4, 1):
            logits, state = model(piece, state)
        last.append(logits[0, -1])
    assert (last[1] - last[0]).abs().max() > 1e-6
    assert torch.equal(last[2], last[0])


def test_weights_for_looking_at_are_of_the_maps_that_were_used() -> None:
    torch.manual_seed(0)
    layer = Attention(6, 2, pattern=Longformer(3, (0, 4), causal=False)).double()
    x = torch.randn(1, 9, 6, dtype=torch.float64)
    where, _ = Places.of(torch.zeros(1, dtype=torch.long), 9)
    carried = layer.begin(1, x)
    pairs = layer.pairs(carried, where)
    weights = layer.weights(x, carried, where, pairs)
    assert layer.wide is not None
    common, own = (
        weights @ maps.v(x).unflatten(-1, (2, 3)).transpose(1, 2) for maps in (layer, layer.wide)
    )
    mixed = torch.where(pairs.q.marked[:, None, :, None], own, common)
    torch.testing.assert_close(layer.o(mixed.transpose(1, 2).flatten(2)), layer(x)[0], **EXACT)


def test_a_layer_alone_is_told_which_tokens_are_marked() -> None:
    x, marks = torch.randn(1, 5, 6), torch.tensor([[False, True, False, False, False]])
    layer = Attention(6, 2, pattern=Longformer(2, (), (3,), causal=False))
    with pytest.raises(InputError, match=r"give marked=…, or use a Decoder or an Encoder"):
        layer(x)
    assert layer(x, marked=marks)[0].shape == (1, 5, 6)
    by_place = Attention(6, 2, pattern=Longformer(2, positions=(1,), causal=False))
    by_place.load_state_dict(layer.state_dict())
    assert torch.equal(layer(x, marked=marks)[0], by_place(x)[0])
    with pytest.raises(InputError, match=r"marked must be \(1, 5\) bool.*not \(1, 4\)"):
        layer(x, marked=marks[:, :4])
    with pytest.raises(InputError, match="the pattern marks no tokens; leave marked out"):
        Attention(6, 2)(x, marked=marks)


def test_an_encoder_is_told_which_tokens_of_each_text_are_marked() -> None:
    """The tokens of a question, say: no other layer, and no other row, takes notice."""
    torch.manual_seed(0)
    sizes = {"width": 8, "layers": 2, "heads": 2, "feed_forward": 8}
    stack = (Different(), Different(pattern=Full()))
    config = EncoderConfig(**sizes, pattern=Longformer(2, (), causal=False), stack=stack)
    model, inputs = Encoder(config, 30).double(), tokens(2, 9)
    marks = torch.zeros(2, 9, dtype=torch.bool)
    marks[1, [2, 5]] = True
    told = model(inputs, marked=marks)
    by_place = replace(config, pattern=Longformer(2, (2, 5), causal=False))
    other = Encoder(by_place, 30).double()
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(told[1], other(inputs)[1], **EXACT)
    torch.testing.assert_close(told[0], model(inputs)[0], **EXACT)
    assert (told[1] - model(inputs)[1]).abs().max() > 1e-6
    vectors = torch.randn(2, 9, 8, dtype=torch.float64)
    expected = other.encode(vectors)[1]
    torch.testing.assert_close(model.encode(vectors, marked=marks)[1], expected, **EXACT)
    with pytest.raises(InputError, match="the pattern marks no tokens; leave marked out"):
        Encoder(EncoderConfig(**sizes), 30)(inputs, marked=marks)


def test_vectors_have_no_tokens_to_be_named_by() -> None:
    pattern = Longformer(2, tokens=(3,), causal=False)
    config = EncoderConfig(width=8, layers=1, heads=2, feed_forward=8, pattern=pattern)
    model, x = Encoder(config), torch.zeros(1, 3, 8)
    with pytest.raises(InputError, match="names tokens by what they are"):
        model.encode(x)
    model.encode(x, marked=torch.zeros(1, 3, dtype=torch.bool))


def test_a_state_that_does_not_hold_what_the_pattern_asks_for_is_refused() -> None:
    def model(pattern: Longformer) -> Decoder:
        config = DecoderConfig(
            width=8, layers=1, heads=2, feed_forward=8, pattern=pattern, memory=Cache()
        )
        return Decoder(config, 30)

    inputs = tokens(1, 4)
    _, state = model(Longformer(2, tokens=(1,)))(inputs)
    assert state.last is None
    two = model(Longformer(2, after=((1,), (1, 2))))
    with pytest.raises(StateError, match="newest 0 tokens, the pattern asks for 2: it is another"):
        two(inputs, state)
    with pytest.raises(StateError, match="newest 2 tokens, the pattern asks for 0: it is another"):
        model(Longformer(2))(inputs, two(inputs)[1])


@pytest.mark.parametrize(
    "memory", [Recent(8), Recent(8, store="hidden"), Sinks(8, 4), Nearest(8)], ids=repr
)
@pytest.mark.parametrize("exact", [True, False])
def test_a_memory_that_does_not_know_marks_is_refused(memory: Memory, exact: bool) -> None:
    (found,) = slot_conflicts(NoPosition(), Longformer(4), memory, exact=exact)
    assert found.rule == "M6"
    assert "keeps tokens, but not which of them pattern='longformer' has marked" in found.reason
    assert found.repair == "Use memory 'cache'."


def test_without_a_memory_each_call_stands_alone_if_that_is_wanted() -> None:
    assert slot_conflicts(NoPosition(), Longformer(4), NoMemory(), exact=False) == []
    assert slot_conflicts(NoPosition(), Longformer(4), Cache()) == []
    (found,) = slot_conflicts(NoPosition(), Longformer(4), NoMemory())
    assert (found.rule, "Use memory 'cache'" in found.repair) == ("M2", True)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        Longformer(0, (-1,), (3, -2), ((1, -4), ()))
    assert caught.value.problems == [
        "pattern.width must be 1 or more, not 0",
        "pattern.after must not have an empty sequence in it",
        "pattern.positions must be 0 or more each, not -1",
        "pattern.tokens must be 0 or more each, not -2",
        "pattern.after must be 0 or more each, not -4",
    ]
