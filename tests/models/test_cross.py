"""Cross-attention: the papers' equations by loops, what the state carries, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from longspan import (
    T5,
    Additive,
    Attention,
    Cache,
    ConfigError,
    CrossAttention,
    CrossConfig,
    DecoderConfig,
    Dot,
    Full,
    IncompatibleConfig,
    Learned,
    NoMemory,
    Rotary,
    Shaw,
    State,
)
from longspan.comparing import Score
from longspan.errors import InputError, StateError
from longspan.kernels.blocked import Blocked
from longspan.kernels.reference import Reference
from longspan.kernels.sdpa import SDPA
from longspan.models.cross import Source
from longspan.slots import Kernel, Position
from tests.contracts.samples import POSITIONS, SCORES
from tests.scores.equations import as_papers, context

DIM, WIDE = 4, 6
EXACT = {"atol": 1e-12, "rtol": 0.0}
every_score = pytest.mark.parametrize("score", SCORES, ids=lambda s: s.name)
LENGTHS = [5, 2]
VALID = torch.arange(5) < torch.tensor(LENGTHS)[:, None]


def layer(heads: int = 2, **settings: Any) -> CrossAttention:
    torch.manual_seed(0)
    made = CrossAttention(DIM, heads, **settings).double().eval()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.7)
    return made


def numbers(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def by_loops(made: CrossAttention, x: Tensor, encoded: Tensor) -> Tensor:
    """One row x (T, C) that asks a source (S, C') of real tokens."""
    width, each = made.head_dim, made.heads // made.kv_heads
    parameters = dict(made.comparison.named_parameters())
    q = made.q(x).unflatten(1, (-1, width))
    k, v = (linear(encoded).unflatten(1, (-1, width)) for linear in (made.k, made.v))
    answers = []
    for query in q:
        heads = [
            context(
                made.score.name,
                as_papers(made.score.name, parameters, h),
                query[h],
                list(k[:, h // each]),
                list(v[:, h // each]),
            )
            for h in range(made.heads)
        ]
        answers.append(made.o.weight @ torch.cat(heads))
    return torch.stack(answers)


@every_score
@pytest.mark.parametrize("kernel", [Reference(), Blocked(), SDPA()], ids=lambda k: k.name)
@pytest.mark.parametrize(("heads", "kv_heads"), [(1, 1), (2, 2), (2, 1)])
def test_the_papers_equations(score: Score, kernel: Kernel, heads: int, kv_heads: int) -> None:
    """In rows whose sources have lengths of their own: output and every gradient."""
    made = layer(heads, source=WIDE, kv_heads=kv_heads, score=score, kernel=kernel)
    x, encoded = numbers(2, 3, DIM), numbers(2, 5, WIDE, seed=2).requires_grad_()
    y = made(x, made.read(encoded, VALID))
    rows = [by_loops(made, x[b], encoded[b, :length]) for b, length in enumerate(LENGTHS)]
    expected = torch.stack(rows)
    torch.testing.assert_close(y, expected, **EXACT)
    leaves = [encoded, *made.parameters()]
    mine = torch.autograd.grad(y.sin().sum(), leaves)
    theirs = torch.autograd.grad(expected.sin().sum(), leaves)
    for a, b in zip(mine, theirs, strict=True):
        assert a.abs().max() > 0
        torch.testing.assert_close(a, b, **EXACT)
    # padding is not read at all
    assert mine[0][1, 2:].abs().max() == 0


@every_score
@pytest.mark.parametrize("position", POSITIONS, ids=lambda p: p.name)
@torch.no_grad()
def test_of_a_sequence_that_asks_itself_it_is_self_attention(
    score: Score, position: Position
) -> None:
    """With every position that can be told in a layer, and the same weights."""
    try:
        mine = layer(position=position, score=score, kernel=Reference())
    except IncompatibleConfig as refused:
        # and where one is refused, so is the other
        rules = [conflict.rule for conflict in refused.conflicts]
        with pytest.raises(IncompatibleConfig) as other:
            Attention(DIM, 2, position=position, score=score, pattern=Full(), memory=NoMemory())
        assert [conflict.rule for conflict in other.value.conflicts] == rules
        return
    theirs = Attention(DIM, 2, position=position, score=score, pattern=Full(), memory=NoMemory())
    theirs.double().load_state_dict(mine.state_dict())
    x = numbers(2, 5, DIM)
    expected, _ = theirs(x, valid=VALID)
    made = mine(x, mine.read(x, VALID))
    torch.testing.assert_close(made[VALID], expected[VALID], **EXACT)


@torch.no_grad()
def test_where_the_asking_tokens_stand_is_told() -> None:
    made = layer(position=T5(8, 12, shared=False))
    x, source = numbers(1, 4, DIM), made.read(numbers(1, 5, DIM, seed=2))
    whole = made(x, source)
    later = made(x[:, 2:], source, torch.tensor([[2, 3]]))
    torch.testing.assert_close(later, whole[:, 2:], **EXACT)
    assert not torch.allclose(made(x[:, 2:], source), whole[:, 2:])


@torch.no_grad()
def test_weights_are_the_alignment() -> None:
    made = layer(score=Additive(3))
    x, encoded = numbers(2, 3, DIM), numbers(2, 5, DIM, seed=2)
    source = made.read(encoded, VALID)
    weights = made.weights(x, source, made.pairs(source, torch.arange(3).expand(2, -1)))
    assert weights.shape == (2, 2, 3, 5)
    assert weights[1, :, :, 2:].max() == 0
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 2, 3).double())
    mixed = made.o((weights @ source.v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(mixed, made(x, source), **EXACT)


@every_score
@torch.no_grad()
def test_a_source_is_projected_once_and_carried(score: Score, tmp_path: Any) -> None:
    """And is selected, saved and counted with the rest of the state."""
    made = layer(score=score)
    calls: list[None] = []
    for linear in (made.k, made.v):
        linear.register_forward_hook(lambda *_: calls.append(None))
    x, encoded = numbers(2, 3, DIM), numbers(2, 5, DIM, seed=2)
    source = made.read(encoded, VALID)
    state = State(torch.zeros(2, dtype=torch.long), (), (source,))
    expected = made(x, source)
    rows = torch.tensor([1, 1, 0])
    beams = state.select(rows)
    assert beams.batch == 3
    torch.testing.assert_close(made(x[rows], beams.sources[0]), expected[rows], **EXACT)
    state.save(tmp_path / "state.safetensors")
    loaded = State.load(tmp_path / "state.safetensors")
    assert torch.equal(made(x, loaded.sources[0]), expected)
    assert loaded.nbytes == state.nbytes > source.k.nbytes + source.v.nbytes
    # another document is written about the same source
    afresh = state.reset(torch.tensor([True, False]))
    assert torch.equal(made(x, afresh.sources[0]), expected)
    assert len(calls) == 2


def test_weights_are_dropped_in_training_only() -> None:
    made, x = layer(dropout=0.5), numbers(1, 6, DIM)
    source = made.read(x)
    assert torch.equal(made(x, source), made(x, source))
    made.train()
    assert not torch.equal(made(x, source), made(x, source))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"heads": 3}, "dim=4 does not divide into heads=3; give head_dim as well"),
        ({"heads": 0}, "heads must be 1 or more, not 0"),
        ({"source": 0}, "source must be 1 or more, not 0"),
        ({"kv_heads": 4}, "heads=2 does not divide into groups of kv_heads=4"),
        ({"position": Learned(9)}, r"\[P1\]"),
        ({"position": Shaw(2), "kernel": SDPA()}, r"\[K1\]"),
        ({"position": Rotary(), "score": Additive()}, r"\[C1\]"),
        ({"position": Rotary(), "head_dim": 3}, r"\[P3\]"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CrossAttention(DIM, **{"heads": 2, **settings})


@pytest.mark.parametrize(("cross", "odd"), [({}, 5), ({"head_dim": 4}, None), ({"heads": 2}, 5)])
def test_an_odd_head_is_found_before_anything_is_made(cross: dict, odd: int | None) -> None:
    """The heads are the decoder's, or of another number and width."""
    sizes = {"width": 10, "layers": 1, "heads": 5, "head_dim": 5, "feed_forward": 8}
    decoder = DecoderConfig(**sizes, memory=Cache())
    found = CrossConfig(position=Rotary(), **cross).conflicts(decoder.layer(0))
    assert [conflict.rule for conflict in found] == ([] if odd is None else ["P3"])
    assert all(f"head_dim={odd} is odd" in conflict.reason for conflict in found)


def test_settings_that_cannot_be_are_refused_all_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        CrossConfig(heads=0, source=-1)
    assert caught.value.problems == [
        "cross.source must be 1 or more, or null, not -1",
        "cross.heads must be 1 or more, or null, not 0",
    ]


def test_inputs_that_cannot_be_are_refused() -> None:
    made = layer(source=WIDE)
    encoded = numbers(2, 5, WIDE)
    with pytest.raises(InputError, match=r"encoded must be \(B, S, 6\) with S ≥ 1, not \(2, 5"):
        made.read(numbers(2, 5, DIM))
    with pytest.raises(InputError, match=r"valid must be \(2, 5\) bool like the source"):
        made.read(encoded, VALID[:, 1:])
    with pytest.raises(
        InputError, match="row 1 of the source has no real token; leave the row out"
    ):
        made.read(encoded, torch.tensor([[True], [False]]).expand(-1, 5))
    source = made.read(encoded)
    with pytest.raises(InputError, match=r"x must be \(B, T, 4\) with T ≥ 1, not \(2, 0, 4\)"):
        made(numbers(2, 0, DIM), source)
    with pytest.raises(StateError, match=r"source has 2 rows, the input 3; use state\.select"):
        made(numbers(3, 1, DIM), source)


def test_a_source_of_another_layer_is_refused() -> None:
    x, encoded = numbers(2, 3, DIM), numbers(2, 5, DIM)
    additive = layer(score=Additive(3))
    for other in (layer(4), layer(kv_heads=1), layer(score=Additive(2)), layer(score=Dot())):
        with pytest.raises(StateError, match="does not fit this layer: it is another model's"):
            additive(x, other.read(encoded))
    with pytest.raises(StateError, match="does not fit this layer"):
        layer()(x, additive.read(encoded))
    assert additive.fits(additive.read(encoded))
    assert Source.kind == "source"
