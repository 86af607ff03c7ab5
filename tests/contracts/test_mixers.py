"""What every mixer that is not softmax attention must hold, alone and beside softmax layers.

A mixer inherits these tests by being listed in `samples.py`.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn

from longspan import (
    LSTM,
    Causal,
    Decoder,
    DecoderConfig,
    Encoder,
    EncoderConfig,
    Full,
    Infini,
    NoMemory,
    NoPosition,
    Segments,
    State,
)
from longspan.errors import StateError
from longspan.kernels.reference import Reference
from longspan.mixing import Layer, Mixer, Mixing
from longspan.models.stack import Different
from longspan.slots import Pattern, Places
from tests.contracts.samples import MIXERS, decoder, stack, tokens
from tests.streams import Call, streams

EXACT = {"atol": 1e-10, "rtol": 0.0}
WIDTH = 12


def named(mixer: Mixer) -> str:
    """rnn7.relu: a test's id."""
    return mixer.name + ".".join(str(v) for v in vars(mixer).values() if v is not None)


CAUSAL = [mixer for mixer in MIXERS if mixer.causal]
BOTH_WAYS = [mixer for mixer in MIXERS if mixer.bidirectional]
STACKS = {named(m): stack(m, m) for m in CAUSAL} | {
    f"{named(m)}-softmax": stack(m, softmax=2) for m in CAUSAL
}
# beside a memory that writes where a segment ends, for which the model cuts its input there
FOLDING = {"pattern": Segments(8, 0), "memory": Infini()}
STACKS["lstm-infini"] = replace(stack(LSTM(), softmax=1), **FOLDING)
every = pytest.mark.parametrize("config", STACKS.values(), ids=STACKS)
causal = pytest.mark.parametrize("mixer", CAUSAL, ids=named)
both_ways = pytest.mark.parametrize("mixer", BOTH_WAYS, ids=named)


def mixing(mixer: Mixer, pattern: Pattern) -> Mixing:
    """One layer by itself, in float64 and evaluation mode, every parameter random."""
    torch.manual_seed(0)
    layer = Layer(
        width=WIDTH,
        heads=3,
        kv_heads=3,
        head_dim=4,
        position=NoPosition(),
        pattern=pattern,
        memory=NoMemory(),
        kernel=Reference(),
        norm=nn.LayerNorm(WIDTH),
    )
    made = mixer.build(layer).double().eval()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.4)
    return made


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def places(rows: int, length: int, **masks: Tensor) -> Places:
    return Places.of(torch.zeros(rows, dtype=torch.long), length, **masks)[0]


def in_pieces(model: Decoder, inputs: Tensor, size: int) -> tuple[Tensor, State]:
    state, parts = model.start(inputs.shape[0]), []
    for piece in inputs.split(size, 1):
        logits, state = model(piece, state)
        parts.append(logits)
    return torch.cat(parts, 1), state


def assert_same_state(model: Decoder, a: State, b: State) -> None:
    """Equal numbers in the layers under test, and the same continuation of all of them."""
    assert torch.equal(a.next, b.next)
    for mixer, mine, theirs in zip(model.config.mixers(), a.layers, b.layers, strict=True):
        assert mine.kind == theirs.kind
        if mixer.slots:
            continue
        assert mine.tensors().keys() == theirs.tensors().keys()
        for name, tensor in mine.tensors().items():
            torch.testing.assert_close(tensor, theirs.tensors()[name], **EXACT, msg=name)
    following = tokens(a.batch, 5, seed=9)
    torch.testing.assert_close(model(following, a)[0], model(following, b)[0], **EXACT)


def test_every_mixer_is_sampled() -> None:
    assert set(Mixer.all()) == {"softmax"} | {mixer.name for mixer in MIXERS}


@every
@torch.no_grad()
def test_nothing_of_the_future_enters(config: DecoderConfig) -> None:
    model, inputs = decoder(config), tokens(2, 30)
    changed = inputs.clone()
    changed[:, 17:] = (changed[:, 17:] + 1) % 23
    before, after = model(inputs)[0], model(changed)[0]
    torch.testing.assert_close(before[:, :17], after[:, :17], **EXACT)
    assert not torch.allclose(before[:, 17:], after[:, 17:])


@every
@pytest.mark.parametrize("size", [1, 7, 64])
@torch.no_grad()
def test_pieces_equal_one_pass(config: DecoderConfig, size: int) -> None:
    model, inputs = decoder(config), tokens(2, 70)
    if config.folds:
        whole, state = model.hidden(inputs)
    else:
        # one piece, so that the model's own cutting is under test as well
        whole, state = Decoder._piece(model, inputs, model.start(2), None, None)
    logits, final = in_pieces(model, inputs, size)
    torch.testing.assert_close(logits, model.head(whole), **EXACT)
    assert_same_state(model, final, state)


@every
@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@torch.no_grad()
def test_a_padded_row_equals_the_row_alone(config: DecoderConfig, training: bool) -> None:
    model = decoder(config).train(training)
    lengths = [8, 3, 0, 5]
    first, second = tokens(4, 8), tokens(4, 6, seed=2)
    valid = torch.arange(8) < torch.tensor(lengths)[:, None]
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
@torch.no_grad()
def test_a_row_knows_nothing_of_its_neighbours(config: DecoderConfig) -> None:
    model, inputs = decoder(config), tokens(3, 20)
    changed = inputs.clone()
    changed[1] = (changed[1] + 1) % 23
    before, state = model(inputs)
    after, other = model(changed)
    rows = torch.tensor([0, 2])
    torch.testing.assert_close(before[rows], after[rows], **EXACT)
    assert_same_state(model, state.select(rows), other.select(rows))
    assert not torch.allclose(before[1], after[1])


@every
@torch.no_grad()
def test_a_document_begins_afresh_in_the_middle_of_a_call(config: DecoderConfig) -> None:
    model, inputs = decoder(config), tokens(3, 26)
    starts = torch.zeros(3, 26, dtype=torch.bool)
    starts[0, 0] = starts[1, 5] = starts[1, 12] = starts[2, 25] = True
    logits, state = model(inputs[:, :14], starts=starts[:, :14])
    rest, state = model(inputs[:, 14:], state, starts=starts[:, 14:])
    logits = torch.cat([logits, rest], 1)
    for row, edges in enumerate([[0, 26], [0, 5, 12, 26], [0, 25, 26]]):
        for low, high in pairwise(edges):
            alone, own = model(inputs[row : row + 1, low:high])
            torch.testing.assert_close(logits[row : row + 1, low:high], alone, **EXACT)
        assert_same_state(model, state.select(torch.tensor([row])), own)


@causal
@given(calls=streams())
@settings(max_examples=15, deadline=None)
@torch.no_grad()
def test_every_document_is_as_if_read_alone_in_one_piece(mixer: Mixer, calls: list[Call]) -> None:
    """Rows of any lengths, padded, cut and begun anywhere, against each document by itself."""
    layer = mixing(mixer, Causal())
    carried, clock = layer.begin(3, numbers(1)), torch.zeros(3, dtype=torch.long)
    documents: list[list[list[Tensor]]] = [[[]], [[]], [[]]]
    answers: list[list[list[Tensor]]] = [[[]], [[]], [[]]]
    for index, call in enumerate(calls):
        x = numbers(3, call.length, WIDTH, seed=index)
        where, clock = Places.of(clock, call.length, call.valid, call.starts)
        y, carried = layer.mix(x, carried, where, layer.pairs(carried, where))
        for row, (count, begun) in enumerate(zip(call.counts, call.begun, strict=True)):
            for slot in range(count):
                if slot in begun:
                    documents[row].append([])
                    answers[row].append([])
                documents[row][-1].append(x[row, slot])
                answers[row][-1].append(y[row, slot])
    for row in range(3):
        for document, answer in zip(documents[row], answers[row], strict=True):
            if document:
                where, begun = places(1, len(document)), layer.begin(1, numbers(1))
                pairs = layer.pairs(begun, where)
                alone, own = layer.mix(torch.stack(document)[None], begun, where, pairs)
                torch.testing.assert_close(torch.stack(answer)[None], alone, **EXACT)
        if documents[row][-1]:
            # what is carried is what the newest document alone would have left
            for name, tensor in own.tensors().items():
                mine = carried.tensors()[name][row : row + 1]
                torch.testing.assert_close(mine, tensor, **EXACT, msg=name)


@every
@torch.no_grad()
def test_rows_of_a_state_can_be_selected_reset_and_saved(config: DecoderConfig, tmp_path) -> None:
    model, inputs, following = decoder(config), tokens(3, 19), tokens(3, 6, seed=2)
    _, state = model(inputs)
    before = {i: layer.map(torch.clone) for i, layer in enumerate(state.layers)}
    expected, _ = model(following, state)
    for index, layer in enumerate(state.layers):
        # a state is never written to: it may be gone back to
        for name, tensor in layer.tensors().items():
            assert torch.equal(tensor, before[index].tensors()[name]), name
    rows = torch.tensor([2, 0, 0])
    selected, _ = model(following[rows], state.select(rows))
    torch.testing.assert_close(selected, expected[rows], **EXACT)
    afresh, _ = model(following, state.reset(torch.tensor([False, True, False])))
    torch.testing.assert_close(afresh[[0, 2]], expected[[0, 2]], **EXACT)
    torch.testing.assert_close(afresh[1:2], model(following[1:2])[0], **EXACT)
    assert not torch.allclose(afresh[1:2], expected[1:2]) or remembers_nothing(config)
    state.save(tmp_path / "state.safetensors")
    loaded = State.load(tmp_path / "state.safetensors")
    assert torch.equal(model(following, loaded)[0], expected)
    assert loaded.nbytes == state.nbytes


def remembers_nothing(config: DecoderConfig) -> bool:
    """A convolution of one token has no past."""
    return all(getattr(mixer, "width", 0) == 1 for mixer in config.mixers())


@every
def test_the_gradient_flows_through_the_state(config: DecoderConfig) -> None:
    """Two calls of training, not detached, against the whole at once in the layers under test."""
    if any(mixer.slots for mixer in config.mixers()):
        pytest.skip("softmax layers read a call as a segment, so that two calls are not one")
    model, inputs = decoder(config).train(), tokens(3, 16)
    gradients = []
    for size in (16, 8):
        model.zero_grad()
        logits, _ = in_pieces(model, inputs, size)
        logits.sin().sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        assert gradient is not None, name
        torch.testing.assert_close(gradients[1][name], gradient, **EXACT, msg=name)


@every
def test_no_gradient_leaks_across_a_document(config: DecoderConfig) -> None:
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
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lower_precision_stays_finite(config: DecoderConfig, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model, inputs = Decoder(config, 23).to(dtype), tokens(3, 40)
    starts, valid = torch.zeros(3, 8, dtype=torch.bool), torch.ones(3, 8, dtype=torch.bool)
    starts[1, 3], valid[2, 5:] = True, False
    for training in (True, False):
        model.train(training).zero_grad()
        state, parts = model.start(3), []
        for piece in inputs.split(8, 1):
            logits, state = model(piece, state, valid=valid, starts=starts)
            parts.append(logits)
        logits = torch.cat(parts, 1)
        assert logits.dtype == dtype
        assert logits.isfinite().all()
        logits.float().sin().sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@causal
@torch.no_grad()
def test_a_state_never_grows(mixer: Mixer) -> None:
    model = decoder(stack(mixer, mixer))
    state = model.start(2)
    first = state.nbytes
    for piece in tokens(2, 96).split(8, 1):
        state = model(piece, state)[1]
        assert state.nbytes == first


def shapes(state: State) -> list[dict[str, torch.Size]]:
    return [{n: t.shape for n, t in layer.tensors().items()} for layer in state.layers]


@every
@torch.no_grad()
def test_a_state_of_another_model_is_refused(config: DecoderConfig) -> None:
    model, inputs = decoder(config), tokens(2, 4)
    _, state = model(inputs)
    softmax = decoder(replace(stack(softmax=1), stack=(), layers=config.layers))
    cases = [
        (model, inputs[:1], state, "2 rows, the input 1"),
        (model, inputs, softmax(inputs)[1], "it is another model's"),
        (softmax, inputs, state, "it is another model's"),
        (
            model,
            inputs,
            State(state.next, state.layers[:1]),
            f"1 layers, the model {config.layers}",
        ),
    ]
    larger = decoder(replace(config, width=15, heads=5, head_dim=6))
    _, other = larger(inputs)
    if shapes(larger.start(2)) != shapes(model.start(2)):
        cases += [
            (larger, inputs, state, "it is another model's"),
            (model, inputs, other, "it is another model's"),
        ]
    for asked, read, wrong, message in cases:
        with pytest.raises(StateError, match=message) as caught:
            asked(read, wrong)
        assert "\n" not in str(caught.value)


def assert_compiled_is_the_same(config: DecoderConfig) -> None:
    torch._dynamo.reset()
    model, inputs = decoder(config), tokens(2, 24)
    compiled = torch.compile(model, backend="aot_eager")
    state = other = model.start(2)
    with torch.no_grad():
        for piece in inputs.split(8, 1):
            expected, state = model(piece, state)
            logits, other = compiled(piece, other)
            torch.testing.assert_close(logits, expected, **EXACT)
        assert_same_state(model, other, state)


FIRST = {mixer.name: mixer for mixer in reversed(CAUSAL)}


@pytest.mark.parametrize("mixer", FIRST.values(), ids=named)
@pytest.mark.filterwarnings("ignore")
def test_compiling_gives_the_same(mixer: Mixer) -> None:
    assert_compiled_is_the_same(stack(mixer))


@pytest.mark.slow
@every
@pytest.mark.filterwarnings("ignore")
def test_compiling_every_stack_gives_the_same(config: DecoderConfig) -> None:
    assert_compiled_is_the_same(config)


# Both ways.


@both_ways
@torch.no_grad()
def test_looking_both_ways(mixer: Mixer) -> None:
    """An answer depends on later tokens; padding changes nothing; nothing is carried on."""
    layer, x = mixing(mixer, Full()), numbers(3, 8, WIDTH)
    lengths = [8, 5, 0]
    valid = torch.arange(8) < torch.tensor(lengths)[:, None]
    begun = layer.begin(3, x)

    def mixed(x: Tensor, where: Places) -> Tensor:
        before = layer.begin(len(x), x)
        y, after = layer.mix(x, before, where, layer.pairs(before, where))
        assert {n: t.shape for n, t in after.tensors().items()} == {
            n: t.shape for n, t in before.tensors().items()
        }
        assert layer.fits(after)
        return y

    answers = mixed(x, places(3, 8, valid=valid))
    assert answers.isfinite().all()
    torch.testing.assert_close(answers[:1], mixed(x[:1], places(1, 8)), **EXACT)
    torch.testing.assert_close(answers[1:2, :5], mixed(x[1:2, :5], places(1, 5)), **EXACT)
    changed = x.clone()
    changed[1, 5:], changed[2] = 7.0, -3.0
    again = mixed(changed, places(3, 8, valid=valid))
    torch.testing.assert_close(again[:2][valid[:2]], answers[:2][valid[:2]], **EXACT)
    changed[0, 7] = 5.0
    again = mixed(changed, places(3, 8, valid=valid))
    assert not torch.allclose(again[0, 6], answers[0, 6]) or getattr(mixer, "width", 0) == 1
    assert begun.kind == layer.begin(1, x).kind


@both_ways
@torch.no_grad()
def test_an_encoder_takes_it_between_layers_of_attention(mixer: Mixer) -> None:
    torch.manual_seed(0)
    stack = (Different(), Different(mixer=mixer))
    config = EncoderConfig(width=WIDTH, layers=4, heads=3, feed_forward=8, stack=stack)
    model, inputs, lengths = Encoder(config, 23).double().eval(), tokens(3, 8), [8, 3, 5]
    whole = model(inputs, valid=torch.arange(8) < torch.tensor(lengths)[:, None])
    for row, length in enumerate(lengths):
        alone = model(inputs[row : row + 1, :length])
        torch.testing.assert_close(whole[row : row + 1, :length], alone, **EXACT)


@pytest.mark.parametrize("mixer", MIXERS, ids=named)
def test_a_mixer_that_lacks_a_direction_says_so(mixer: Mixer) -> None:
    sizes = {"width": WIDTH, "layers": 1, "heads": 3, "feed_forward": 8, "mixer": mixer}
    for pattern, has in ((Causal(), mixer.causal), (Full(), mixer.bidirectional)):
        rules = {conflict.rule for conflict in DecoderConfig(**sizes, pattern=pattern).conflicts()}
        assert ("S2" in rules) == (not has)
    assert mixer.causal or mixer.bidirectional
