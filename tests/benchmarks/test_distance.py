"""The tasks of `benchmarks/distance.py`, told by loops, and what its accuracy says of a model that
remembers so far and no further.
"""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot

import longspan
from longspan import State

PATH = Path(longspan.__file__).parents[2] / "benchmarks" / "distance.py"
pytestmark = pytest.mark.skipif(
    not PATH.is_file(), reason="the benchmarks are not beside the package"
)


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = spec_from_file_location("distance", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    assert "distance" not in sys.modules
    return module


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Remembers:
    """Writes what it is asked for as far as it lies among the last `kept` tokens of the source,
    and a token that is no symbol where it does not.
    """

    def __init__(self, bench: ModuleType, task: str, kept: int) -> None:
        self.bench, self.task, self.kept = bench, task, kept

    def eval(self) -> None: ...

    def train(self) -> None: ...

    def encode(self, source: Tensor) -> State:
        marks = self.bench.SYMBOLS
        known = source.clone()
        known[:, : max(0, source.shape[1] - self.kept)] = self.bench.BEGIN
        if self.task == "recall":
            marked = (known >= marks) & (known < 2 * marks)
            answers = [
                int(row[mask]) - marks if mask.any() else self.bench.BEGIN
                for row, mask in zip(known, marked, strict=True)
            ]
            known = torch.tensor(answers)[:, None]
        if self.task == "reverse":
            known = known.flip(1)
        return State(torch.zeros(len(source), dtype=torch.long), last=known)

    def decode(self, target: Tensor, state: State) -> tuple[Tensor, State]:
        assert state.last is not None
        step = int(state.next[0])
        answer = one_hot(state.last[:, step : step + 1], self.bench.VOCABULARY)
        return answer, State(state.next + 1, last=state.last)


@pytest.mark.parametrize("task", ["copy", "reverse"])
def test_symbols_come_again(bench: ModuleType, task: str) -> None:
    source, target = bench.episodes(task, 7, 5, drawn())
    assert source.shape == (5, 7)
    for read, wanted in zip(source.tolist(), target.tolist(), strict=True):
        assert wanted == (read if task == "copy" else list(reversed(read)))
    assert source.min() >= 0
    assert source.max() < bench.SYMBOLS
    assert len(set(source.flatten().tolist())) > 8


@pytest.mark.parametrize("distance", [1, 5, 20])
def test_one_symbol_is_marked_so_far_back(bench: ModuleType, distance: int) -> None:
    source, target = bench.episodes("recall", 20, 6, drawn(), distance)
    assert target.shape == (6, 1)
    for read, (wanted,) in zip(source.tolist(), target.tolist(), strict=True):
        marked = [place for place, symbol in enumerate(read) if symbol >= bench.SYMBOLS]
        assert marked == [20 - distance]
        assert read[marked[0]] - bench.SYMBOLS == wanted


def test_distances_to_learn_from_are_drawn_by_octaves(bench: ModuleType) -> None:
    source, _ = bench.episodes("recall", 64, 4000, drawn())
    back = 64 - (source >= bench.SYMBOLS).int().argmax(1)
    assert int(back.min()) == 1
    assert int(back.max()) == 64
    octaves = [((back > 2**n) & (back <= 2 ** (n + 1))).double().mean() for n in range(1, 6)]
    assert all(abs(share - 1 / 6) < 0.04 for share in octaves)


@pytest.mark.parametrize("kept", [4, 1000])
@pytest.mark.parametrize("task", ["copy", "reverse", "recall"])
def test_accuracy_tells_how_far_a_model_remembers(bench: ModuleType, task: str, kept: int) -> None:
    table = bench.accuracy(Remembers(bench, task, kept), task, rows=8)
    assert tuple(table) == bench.DISTANCES[task]
    for distance, share in table.items():
        if task == "copy":
            assert share == pytest.approx(min(1, kept / distance))
        elif task == "reverse":
            # the k-th symbol from the end is asked for after 2 k - 1 steps
            assert share == (distance <= 2 * kept - 1)
        else:
            assert share == (distance <= kept)


def test_what_is_handed_over_is_all_that_there_is(bench: ModuleType) -> None:
    """With one stack for both, two sequences are read as one."""
    torch.manual_seed(0)
    model = bench.built("lstm").eval()
    model.writer = model.reader
    source, target = bench.episodes("copy", 9, 3, drawn())
    logits, _ = model.decode(bench.before(target), model.encode(source))
    whole, _ = model.reader(torch.cat([source, bench.before(target)], 1))
    assert torch.allclose(logits, whole[:, 9:], atol=1e-5)


@pytest.mark.parametrize("name", ["gru", "rnn + attention", "transformer"])
def test_it_reads_what_it_wrote(bench: ModuleType, name: str) -> None:
    torch.manual_seed(0)
    model = bench.built(name).eval()
    with torch.no_grad():
        # as they begin, tied models repeat what they read
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=1.0)
    source, _ = bench.episodes("copy", 6, 4, drawn())
    tokens = bench.written(model, source, 6)
    logits, _ = model.decode(bench.before(tokens), model.encode(source))
    assert torch.equal(tokens, logits.argmax(-1))
    assert len(set(tokens.flatten().tolist())) > 1


def test_all_models_have_as_many_parameters(bench: ModuleType) -> None:
    counts = [bench.parameters(bench.built(name)) for name in bench.MODELS]
    assert max(counts) <= 1.02 * min(counts)


def test_a_parameter_that_no_loss_depends_on_does_not_count(bench: ModuleType) -> None:
    model = bench.built("rnn")
    last = model.reader.layers[-1]
    idle = [last.mixer.o, last.feed_forward, last.feed_forward_norm, model.reader.norm]
    missing = sum(p.numel() for module in idle for p in module.parameters())
    every = sum(p.numel() for p in model.parameters())
    assert bench.parameters(model) <= every - missing
