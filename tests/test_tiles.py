"""A call in tiles is the call as a whole: answers, state and gradients, and less is computed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from longspan import (
    XL,
    Alibi,
    Attention,
    BigBird,
    Blocks,
    Cache,
    Causal,
    DecoderConfig,
    Fixed,
    Full,
    Longformer,
    NoMemory,
    NoPosition,
    Recent,
    Rotary,
    Segments,
    Shaw,
    Sinks,
    SinkWindow,
    Strided,
    Window,
    tiles,
)
from longspan.kernels.blocked import Blocked
from longspan.kernels.reference import Reference
from longspan.kernels.sdpa import SDPA
from longspan.models.decoder import Decoder
from longspan.slots import Kernel, Memory, Pairs, Pattern, Places, Position, Side
from longspan.state import EMPTY, State
from tests.contracts.samples import COVER, PATTERNS, decoder, named, tokens
from tests.contracts.test_contracts import assert_same_state
from tests.dispatch import Made

EXACT = {"atol": 1e-10, "rtol": 0.0}
TILED = [c for c in COVER if c.pattern.near()]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of a few queries, however little they save, in many groups."""
    for name, value in {"LEAST": 1, "SAVED": -9.0, "GROUP": 300, "FEWEST": 3, "MOST": 5}.items():
        monkeypatch.setattr(tiles, name, value)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[tiles.Tiling | None]:
    """What every call was cut into."""
    every: list[tiles.Tiling | None] = []

    def note(pairs: Pairs, heads: int) -> tiles.Tiling | None:
        every.append(cut(pairs, heads))
        return every[-1]

    cut = tiles.tiling
    monkeypatch.setattr("longspan.mixers.softmax.tiling", note)
    return every


def stream(model: Decoder, *, documents: bool) -> tuple[Tensor, State, dict[str, Tensor]]:
    """Two calls; rows with clocks of their own, padding, documents: answers, state, gradients."""
    inputs, starts = tokens(3, 41), torch.zeros(3, 41, dtype=torch.bool)
    if documents:
        starts[1, 5] = starts[1, 19] = starts[2, 30] = True
    valid = torch.arange(41) < torch.tensor([33, 41, 41])[:, None]
    first = torch.tensor([11, 9, 2])[:, None] > torch.arange(11)
    _, state = Decoder._piece(model, inputs[:, :11], model.start(3), first, None)
    h, state = Decoder._piece(model, inputs[:, 11:], state, valid[:, 11:], starts[:, 11:])
    h = h * valid[:, 11:, None]
    h.sin().sum().backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return h.detach(), state.detach(), gradients


@pytest.mark.parametrize("config", TILED, ids=named)
@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
def test_tiles_equal_the_whole(
    config: DecoderConfig,
    training: bool,
    request: pytest.FixtureRequest,
    made: list[tiles.Tiling | None],
) -> None:
    documents = not config.memory.restores
    expected = stream(decoder(config).train(training), documents=documents)
    assert made == [None] * len(made)
    request.getfixturevalue("small")
    result = stream(decoder(config).train(training), documents=documents)
    if config.pattern.near(torch.zeros(1) if training else None):
        assert made[-1] is not None
        assert len(made[-1].parts[0]) > 2
    torch.testing.assert_close(result[0], expected[0], **EXACT)
    assert_same_state(result[1], expected[1])
    assert result[2].keys() == expected[2].keys()
    for name, gradient in result[2].items():
        torch.testing.assert_close(gradient, expected[2][name], **EXACT, msg=name)


def call(pattern: Pattern, length: int, past: int = 0, start: int = 0) -> Pairs:
    before = torch.arange(start - past, start)[None]
    before = before.masked_fill(before < 0, EMPTY)
    places, clock = Places.of(torch.tensor([start]), length)
    places, _ = places.reading(tokens(1, length), torch.tensor([[-1, 5]]), clock)
    return Pairs.of(places, before, pattern, consecutive=True, marked=before % 7 == 0)


@pytest.mark.parametrize("pattern", [p for p in PATTERNS if p.near()], ids=repr)
@pytest.mark.parametrize(("length", "past", "start"), [(50, 0, 0), (1, 13, 13), (33, 7, 40)])
@pytest.mark.usefixtures("small")
def test_every_pair_that_meets_is_in_one_tile(
    pattern: Pattern, length: int, past: int, start: int
) -> None:
    if past and not pattern.causal:
        pytest.skip("what looks both ways has no past")
    pairs = call(pattern, length, past, start)
    cut = tiles.tiling(pairs, 1)
    assert cut is not None
    met, wide = torch.zeros(2, *pairs.shape, dtype=torch.long)
    groups = [(met, group) for part in cut.parts for group in part]
    for marks, group in groups + [(wide, group) for group in cut.wide]:
        q, k = group.q.expand(len(group.k), -1, -1), group.k.expand(len(group.q), -1, -1)
        visible = group.pairs.visible.view(*q.shape, k.shape[2]) & (q >= 0)[..., None]
        assert not (visible & (k < 0)[:, :, None]).any()
        for row, tile, i, j in visible.nonzero().tolist():
            marks[q[row, tile, i], k[row, tile, j]] += 1
    assert met.max() == 1
    assert torch.equal(torch.where(wide.any(1, keepdim=True), wide, met), pairs.visible[0].long())
    assert cut.visible == int(pairs.visible.sum())


LONG = {
    # keys that a tile computes a query, of a call of 4,096
    "window": (Window(256), 255 + 128),
    "dilated": (Window(64, 4), 63 + 64),
    "segments": (Segments(256, 256), 512),
    "sinks": (SinkWindow(256, 4), 255 + 128 + 4),
    "fixed": (Fixed(64, 4), 64 + 256),
    "strided": (Strided(64), 64 + 64 + 64),
    "blocks": (Blocks(64), 128),
    "blocks both ways": (Blocks(64, causal=False), 192),
    "window both ways": (Window(256, causal=False), 255 + 255 + 256),
    # two blocks at the ends, which see all
    "bigbird": (BigBird(causal=False), (3 + 2 + 3) * 64 + 2 * 64),
    "bigbird, causal": (BigBird(), (2 + 1 + 3) * 64),
    # one token of 23 is marked, and sees all
    "longformer": (Longformer(256, tokens=(3,)), 255 + 128 + 2 * 4096 // 23),
}


@pytest.mark.parametrize(("pattern", "most"), LONG.values(), ids=LONG)
def test_what_a_tile_leaves_out_is_not_computed(pattern: Pattern, most: int) -> None:
    cut = tiles.tiling(call(pattern, 4096), 8)
    assert cut is not None
    seen = cut.visible / 4096
    assert seen < cut.computed / 4096 <= most


def test_few_pairs_are_computed_whole() -> None:
    assert tiles.tiling(call(Window(8), 128), 4) is None
    assert tiles.tiling(call(Window(1024), 1024), 4) is None
    assert tiles.tiling(call(Full(), 4096), 4) is None
    assert tiles.tiling(call(Causal(), 1024), 4) is None
    # half of all pairs, and the edge
    cut = tiles.tiling(call(Causal(), 8192), 4)
    assert cut is not None
    assert 0.5 < cut.computed / 8192**2 < 0.55


def test_one_query_after_a_long_past_meets_only_what_it_sees() -> None:
    pairs = call(Strided(256), 1, past=2**16 - 1, start=2**16 - 1)
    cut = tiles.tiling(pairs, 8)
    assert cut is not None
    assert cut.computed == 257 + 257
    assert cut.visible == 257 + 254


@pytest.mark.parametrize("position", [NoPosition(), XL(), Rotary(), Alibi()], ids=lambda p: p.name)
@pytest.mark.parametrize(
    ("pattern", "memory"),
    [
        (Window(64), Recent(63)),
        (SinkWindow(64, 4), Sinks(63, 4)),
        (Strided(90), Cache()),
        (Fixed(90, 2), Cache()),
        (Blocks(64), Recent(127)),
        (BigBird(32), Cache()),
        (BigBird(32, causal=False), NoMemory()),
        (Longformer(64, positions=(0, 777, 5000)), Cache()),
        (Longformer(64, positions=(0, 777, 5000), causal=False), NoMemory()),
    ],
    ids=lambda slot: slot.name,
)
def test_neither_mask_nor_scores_of_a_long_call_are_made(
    position: Position, pattern: Pattern, memory: Memory
) -> None:
    """Forward and backward: nothing is larger than a small multiple of the input."""
    torch.manual_seed(0)
    length = 8192
    layer = Attention(16, 2, position=position, pattern=pattern, memory=memory).train()
    x = torch.randn(1, length, 16, requires_grad=True)
    with Made() as made:
        y, _ = layer(x)
        y.sum().backward()
    assert made.largest["cpu"] < length**2 / 16
    assert x.grad is not None
    assert x.grad.abs().amax(-1).min() > 0


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("pattern", [Window(5), Strided(4)], ids=lambda p: p.name)
def test_weights_are_dropped_alike_when_they_are_computed_again(
    pattern: Pattern, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(2, 40, 8, generator=torch.Generator().manual_seed(1)).double()

    def gradients() -> list[Tensor]:
        torch.manual_seed(0)
        layer = Attention(8, 2, position=XL(), pattern=pattern, memory=Cache(), dropout=0.4)
        layer.double().train()(x)[0].sin().sum().backward()
        return [p.grad for p in layer.parameters() if p.grad is not None]

    again = gradients()
    monkeypatch.setattr(tiles, "_Again", Once)
    for mine, theirs in zip(again, gradients(), strict=True):
        torch.testing.assert_close(mine, theirs, **EXACT)


class Once:
    """Keeps what is needed for the gradient instead of computing it again."""

    @staticmethod
    def apply(work, q: Tensor, k: Tensor, v: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor]:
        return work.forward(q, k, v)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("frozen", [True, False])
def test_weights_that_are_not_learned_get_no_gradient(frozen: bool) -> None:
    layer = Attention(8, 2, position=Shaw(3), pattern=Window(4), memory=Cache())
    layer.order.requires_grad_(not frozen)
    x = torch.randn(1, 40, 8)
    layer(x)[0].sum().backward()
    assert [p.grad is None for p in layer.order.parameters()] == [frozen] * 2
    assert layer.q.weight.grad is not None


@pytest.mark.parametrize("kernel", [Reference(), Blocked()], ids=lambda k: k.name)
def test_answers_over_disjoint_keys_are_merged_by_their_sums(kernel: Kernel) -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 3, 6, 4).double().unbind(0)
    visible = torch.rand(2, 6, 6) < 0.7
    visible[:, :, 0] = True
    # one query sees nothing of the second part
    visible[:, 2, 3:] = False
    first = visible & (torch.arange(6) < 3)
    whole, one, other = (
        kernel.summed(q, k, v, seeing(part), None, 0.5)
        for part in (visible, first, visible & ~first)
    )
    shares = torch.stack([one[1], other[1]]).softmax(0)
    merged = (torch.stack([one[0], other[0]]) * shares[..., None]).sum(0)
    torch.testing.assert_close(merged, whole[0], **EXACT)
    assert torch.equal(shares[0, :, :, 2], torch.ones(2, 3).double())
    torch.testing.assert_close(whole[0], kernel(q, k, v, seeing(visible), None, 0.5), **EXACT)
    scores = (q @ k.transpose(2, 3) * 0.5).masked_fill(~visible[:, None], -torch.inf)
    torch.testing.assert_close(whole[1], scores.logsumexp(-1), **EXACT)


def test_a_kernel_without_sums_says_so() -> None:
    q = torch.zeros(1, 1, 2, 4)
    with pytest.raises(NotImplementedError, match="kernel 'sdpa' has no sums"):
        SDPA().summed(q, q, q, seeing(torch.ones(1, 2, 2).bool()), None, 1.0)


def seeing(visible: Tensor) -> Pairs:
    slots = torch.arange(visible.shape[2]).expand(len(visible), -1)
    return Pairs(Side(slots), Side(slots), lambda: visible, causal=False, run=visible.shape[2])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("pattern", [Window(8), Segments(8, 8)], ids=lambda p: p.name)
def test_compiled_tiles_are_the_same(
    pattern: Pattern, monkeypatch: pytest.MonkeyPatch, made: list[tiles.Tiling | None]
) -> None:
    monkeypatch.setattr(tiles, "LEAST", 1)
    torch._dynamo.reset()
    torch.manual_seed(0)
    layer = Attention(8, 2, position=Rotary(), pattern=pattern, memory=Cache()).double().eval()
    x = torch.randn(2, 512, 8).double()
    expected, _ = layer(x)
    made.clear()
    result, _ = torch.compile(layer, backend="aot_eager")(x)
    assert made[-1] is not None
    torch.testing.assert_close(result, expected, **EXACT)
