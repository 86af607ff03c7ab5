"""What every legal combination of position, pattern, memory and kernel must hold.

A component inherits these tests by being listed in `samples.py`.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from longspan import T5, XL, DecoderConfig, IncompatibleConfig, Rotary, Softmax, State
from longspan.comparing import Score
from longspan.errors import StateError
from longspan.models.decoder import Decoder
from longspan.slots import Kernel, Memory, Pattern, Position
from longspan.state import EMPTY
from tests.contracts.samples import (
    COVER,
    ILLEGAL,
    KERNELS,
    LEGAL,
    MEMORIES,
    PATTERNS,
    POSITIONS,
    SCORES,
    config,
    decoder,
    named,
    tokens,
)

# every pair of choices in the fast tests, every combination (with the usual score) in all
every = pytest.mark.parametrize(
    "config",
    [*COVER, *(pytest.param(c, marks=pytest.mark.slow) for c in LEGAL if c not in COVER)],
    ids=named,
)
EXACT = {"atol": 1e-10, "rtol": 0.0}


def chunked(model: Decoder, inputs: Tensor, size: int) -> tuple[Tensor, State]:
    state, parts = None, []
    for piece in inputs.split(size, 1):
        logits, state = model(piece, state)
        parts.append(logits)
    assert state is not None
    return torch.cat(parts, 1), state


def assert_same_state(a: State, b: State) -> None:
    assert torch.equal(a.next, b.next)
    assert (a.last is None) == (b.last is None)
    if a.last is not None and b.last is not None:
        assert torch.equal(a.last, b.last)
    for mine, theirs in zip(a.layers, b.layers, strict=True):
        assert mine.kind == theirs.kind
        other = theirs.held()
        for name, tensor in mine.held().items():
            torch.testing.assert_close(tensor, other[name], **EXACT, msg=name)


@pytest.mark.parametrize(
    ("kind", "samples"),
    [
        (Position, POSITIONS),
        (Pattern, PATTERNS),
        (Memory, MEMORIES),
        (Kernel, KERNELS),
        (Score, SCORES),
    ],
)
def test_every_member_is_sampled(kind: type, samples: list) -> None:
    assert set(kind.all()) == {sample.name for sample in samples}


@pytest.mark.parametrize(("pattern", "memory"), ILLEGAL, ids=lambda slot: slot.name)
def test_illegal_combinations_are_refused_with_a_repair(pattern: Pattern, memory: Memory) -> None:
    for position in ILLEGAL[pattern, memory]:
        with pytest.raises(IncompatibleConfig) as caught:
            Decoder(config(position, pattern, memory, KERNELS[0]), 5)
        for conflict in caught.value.conflicts:
            assert conflict.rule
            assert conflict.reason
            assert conflict.repair


@every
def test_nothing_of_the_future_enters(config: DecoderConfig) -> None:
    model, inputs = decoder(config), tokens(2, 30)
    changed = inputs.clone()
    changed[:, 17:] = (changed[:, 17:] + 1) % 23
    before, after = model(inputs)[0], model(changed)[0]
    torch.testing.assert_close(before[:, :17], after[:, :17], **EXACT)
    assert not torch.allclose(before[:, 17:], after[:, 17:])


@every
@pytest.mark.parametrize("size", [1, 7, 64])
def test_pieces_equal_one_pass(config: DecoderConfig, size: int) -> None:
    model, inputs = decoder(config), tokens(2, 70)
    with torch.no_grad():
        if config.folds:
            whole, state = model.hidden(inputs)
        else:
            # one piece, so that the model's own cutting is under test as well
            whole, state = Decoder._piece(model, inputs, model.start(2), None, None)
        logits, final = chunked(model, inputs, size)
    torch.testing.assert_close(logits, model.head(whole), **EXACT)
    assert_same_state(final, state)


@every
@pytest.mark.parametrize("kernel", KERNELS[1:], ids=lambda k: k.name)
def test_kernels_equal_the_reference(config: DecoderConfig, kernel: Kernel) -> None:
    """Output, state and gradient, in training over two segments and in evaluation."""
    if replace(config, kernel=kernel).conflicts():
        pytest.skip("this kernel tells neither weights nor sums: the rules K1 and K2 refuse it")
    inputs, starts = tokens(3, 16), torch.zeros(3, 16, dtype=torch.bool)
    starts[1, 5] = not config.memory.restores
    results = []
    for chosen in (config, replace(config, kernel=kernel)):
        model = decoder(chosen).train()
        first, state = model(inputs[:, :8], starts=starts[:, :8])
        second, state = model(inputs[:, 8:], state, starts=starts[:, 8:])
        loss = first.sin().sum() + second.sin().sum()
        (loss if state.loss is None else loss + state.loss.sum()).backward()
        gradients = {n: p.grad for n, p in model.named_parameters()}
        with torch.no_grad():
            evaluated = model.eval()(inputs)[0]
        results.append((first, second, state, gradients, evaluated))
    mine, theirs = results
    torch.testing.assert_close(mine[0], theirs[0], **EXACT)
    torch.testing.assert_close(mine[1], theirs[1], **EXACT)
    assert_same_state(mine[2].detach(), theirs[2].detach())
    torch.testing.assert_close(mine[4], theirs[4], **EXACT)
    for name, gradient in mine[3].items():
        assert gradient is not None, name
        torch.testing.assert_close(gradient, theirs[3][name], **EXACT, msg=name)


@every
@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
def test_a_padded_row_equals_the_row_alone(config: DecoderConfig, training: bool) -> None:
    model = decoder(config).train(training)
    lengths = [8, 3, 0, 5]
    first, second = tokens(4, 8), tokens(4, 6, seed=2)
    valid = torch.arange(8) < torch.tensor(lengths)[:, None]
    with torch.no_grad():
        logits, state = model(first, valid=valid)
        after, _ = model(second, state)
        assert logits.isfinite().all()
        for row, length in enumerate(lengths):
            alone = None
            if length:
                own, alone = model(first[row : row + 1, :length])
                torch.testing.assert_close(logits[row : row + 1, :length], own, **EXACT)
            own, _ = model(second[row : row + 1], alone)
            torch.testing.assert_close(after[row : row + 1], own, **EXACT)


@every
def test_a_document_begins_afresh_in_the_middle_of_a_segment(config: DecoderConfig) -> None:
    model, inputs = decoder(config), tokens(3, 26)
    starts = torch.zeros(3, 26, dtype=torch.bool)
    starts[0, 0] = starts[1, 5] = starts[1, 12] = starts[2, 25] = True
    with torch.no_grad():
        logits, state = model(inputs[:, :14], starts=starts[:, :14])
        rest, state = model(inputs[:, 14:], state, starts=starts[:, 14:])
        logits = torch.cat([logits, rest], 1)
        for row, edges in enumerate([[0, 26], [0, 5, 12, 26], [0, 25, 26]]):
            for low, high in pairwise(edges):
                alone, own = model(inputs[row : row + 1, low:high])
                torch.testing.assert_close(logits[row : row + 1, low:high], alone, **EXACT)
            following = tokens(1, 5, seed=3)
            mine = model(following, state.select(torch.tensor([row])))[0]
            torch.testing.assert_close(mine, model(following, own)[0], **EXACT)


@every
def test_no_gradient_leaks_across_a_document(config: DecoderConfig) -> None:
    if config.memory.restores:
        pytest.skip("a recipe rule (T3) refuses documents in training with zero-filled memory")
    model = decoder(config).train()
    inputs, starts = tokens(1, 16), torch.zeros(1, 16, dtype=torch.bool)
    starts[0, 11] = True
    _, state = model(inputs[:, :8])
    embedded: list[Tensor] = []
    model.embedding.register_forward_hook(lambda _module, _args, out: embedded.append(out))
    logits, _ = model(inputs[:, 8:], state, starts=starts[:, 8:])
    (gradient,) = torch.autograd.grad(logits[:, 3:].sum(), embedded[0])
    assert gradient[:, :3].abs().max() == 0
    assert gradient[:, 3:].abs().max() > 0


@every
def test_rows_of_a_state_can_be_selected_reset_and_saved(config: DecoderConfig, tmp_path) -> None:
    model, inputs, following = decoder(config), tokens(3, 19), tokens(3, 6, seed=2)
    with torch.no_grad():
        _, state = model(inputs)
        expected, _ = model(following, state)
        rows = torch.tensor([2, 0, 0])
        selected, _ = model(following[rows], state.select(rows))
        torch.testing.assert_close(selected, expected[rows], **EXACT)
        afresh, _ = model(following, state.reset(torch.tensor([False, True, False])))
        torch.testing.assert_close(afresh[[0, 2]], expected[[0, 2]], **EXACT)
        torch.testing.assert_close(afresh[1:2], model(following[1:2])[0], **EXACT)
        state.save(tmp_path / "state.safetensors")
        loaded = State.load(tmp_path / "state.safetensors")
        assert torch.equal(model(following, loaded)[0], expected)
        assert loaded.nbytes == state.nbytes


@every
def test_a_state_does_not_grow_once_its_memory_is_full(config: DecoderConfig) -> None:
    model = decoder(config)
    sizes = []
    state = None
    with torch.no_grad():
        for piece in tokens(1, 96).split(8, 1):
            state = model(piece, state)[1]
            sizes.append(state.nbytes)
    grows = config.memory.length is None
    assert (sizes[-1] > sizes[5]) == grows


@every
def test_a_shift_of_all_positions_changes_nothing(config: DecoderConfig) -> None:
    """By 10^9, in float32: a stream of any length loses no precision."""
    if not config.position.relative:
        pytest.skip("an absolute position is meant to change")
    if config.memory.restores:
        pytest.skip("zero-filled slots stand at -M .. -1, which is an absolute place")
    if config.pattern.sinks:
        pytest.skip("the first tokens of a document are an absolute place")
    model, inputs = decoder(config).float(), tokens(2, 32)
    with torch.no_grad():
        _, state = model(inputs[:, :16])
        layers = state.layers
        if config.memory.attaches != "tokens":  # to whose layers each segment begins at 0
            layers = tuple(
                replace(layer, pos=torch.where(layer.pos == EMPTY, EMPTY, layer.pos + 10**9))
                for layer in layers
            )
        shifted = replace(state, next=state.next + 10**9, layers=layers)
        here, there = model(inputs[:, 16:], state)[0], model(inputs[:, 16:], shifted)[0]
    assert (here - there).abs().max() < 1e-5


def assert_compiled_is_the_same(config: DecoderConfig, backend: str) -> None:
    torch._dynamo.reset()
    model, inputs = decoder(config), tokens(2, 24)
    compiled = torch.compile(model, backend=backend)
    state = other = None
    with torch.no_grad():
        for piece in inputs.split(8, 1):
            expected, state = model(piece, state)
            logits, other = compiled(piece, other)
            torch.testing.assert_close(logits, expected, **EXACT)
    assert state is not None
    assert other is not None
    assert_same_state(other, state)


SEGMENTED = [c for c in LEGAL if c.pattern == PATTERNS[2] and c.memory in MEMORIES[1:3]]
SCORED = [replace(SEGMENTED[0], mixer=Softmax(score=score)) for score in SCORES[2:4]]


COMPILED = [c for c in SEGMENTED[1::2] if c.position in (XL(), Rotary(), T5(8, 12))]


@pytest.mark.parametrize("config", [*COMPILED, SCORED[1]], ids=named)
@pytest.mark.filterwarnings("ignore")
def test_compiling_gives_the_same(config: DecoderConfig) -> None:
    assert_compiled_is_the_same(config, "aot_eager")


@pytest.mark.slow
@pytest.mark.parametrize("config", [*COVER, *SEGMENTED[1::2], *SCORED], ids=named)
@pytest.mark.filterwarnings("ignore")
def test_compiling_every_pair_of_choices_gives_the_same(config: DecoderConfig) -> None:
    assert_compiled_is_the_same(config, "aot_eager")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="the real compiler needs a C++ compiler")
@pytest.mark.parametrize("config", SEGMENTED[:4], ids=named)
@pytest.mark.filterwarnings("ignore")
def test_the_real_compiler_gives_the_same(config: DecoderConfig) -> None:
    assert_compiled_is_the_same(config, "inductor")


def test_a_state_of_another_model_is_refused() -> None:
    model = decoder(LEGAL[0])
    _, state = model(tokens(2, 4))
    with pytest.raises(StateError, match="2 rows, the input 1"):
        model(tokens(1, 4), state)
    with pytest.raises(StateError, match="1 layers, the model 2"):
        model(tokens(2, 4), State(state.next, state.layers[:1]))
    wider = decoder(replace(LEGAL[0], kv_heads=4))
    with pytest.raises(StateError, match="it is another model's"):
        wider(tokens(2, 4), state)
