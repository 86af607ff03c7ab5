"""What holds of all memories beside one another."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from longspan import (
    Attention,
    Cache,
    Compressive,
    Decoder,
    DecoderConfig,
    Infini,
    MemoryLayer,
    Nearest,
    NoMemory,
    Recent,
    Rotary,
    Segments,
    Sinks,
    SinkWindow,
    Tokens,
)
from longspan.errors import StateError
from longspan.measure.perplexity import Score, remembered
from longspan.measure.summary import Plan, _carriers, _memory_row
from longspan.slots import Memory, Places
from longspan.state import Carried

SEGMENT, WIDTH = 8, 12
IN_LAYERS = [
    NoMemory(),
    Cache(),
    Recent(6),
    Sinks(7, 3),
    Compressive(4, 3, 2),
    Compressive(4, 3, 2, "most-used", "none"),
    Infini(),
    MemoryLayer(3, 5),
    Nearest(14, 3),
]
KEEP_KEYS = {"none", "cache", "recent", "nearest"}
"""Their slots are one a token, the newest last: what one has kept another may go on from."""


def layer(memory: Memory) -> Attention:
    torch.manual_seed(0)
    pattern = Segments(SEGMENT, 0)
    return Attention(WIDTH, 2, pattern=pattern, memory=memory, exact=False).eval()


@torch.no_grad()
def carried(memory: Memory) -> Carried:
    """After one segment."""
    made, x = layer(memory), torch.ones(1, SEGMENT, WIDTH)
    begun = made.begin(1, x)
    places, _ = Places.of(torch.zeros(1, dtype=torch.long), SEGMENT)
    return made.mix(x, begun, places, made.pairs(begun, places))[1]


def test_a_state_of_another_memory_is_refused() -> None:
    """Equal shapes do not make two memories understand each other."""
    for writer, reader in product(IN_LAYERS, IN_LAYERS):
        keys = {writer.name, reader.name} <= KEEP_KEYS
        fits = layer(reader).fits(carried(writer))
        assert fits == (writer == reader or keys), (writer, reader)


def test_the_refusal_is_one_line() -> None:
    recent, wrong = layer(Recent(6)), carried(Sinks(7, 3))
    state = recent.start(1)
    with pytest.raises(StateError) as caught:
        recent(torch.ones(1, 4, WIDTH), type(state)(state.next, (wrong,)))
    assert str(caught.value) == (
        "layer 0 of the state is of kind 'sinks' (k (1, 2, 11, 6), v (1, 2, 11, 6), pos (1, 11)), "
        "which does not fit this layer of width 12: it is another model's; "
        "start with state=None"
    )


BESIDE_SEGMENTS = [
    Recent(6),
    Compressive(4, 3, 2),
    Infini(),
    MemoryLayer(3, 5),
    Tokens(2),
    Nearest(14, 3),
    Nearest(14, 3, local=6),
]


def config(memory: Memory) -> DecoderConfig:
    pattern = Segments(SEGMENT, memory.length or 0)
    return DecoderConfig(
        width=WIDTH,
        layers=2,
        heads=2,
        feed_forward=8,
        position=Rotary(),
        pattern=pattern,
        memory=memory,
    )


@pytest.mark.parametrize("memory", BESIDE_SEGMENTS, ids=str)
@torch.no_grad()
def test_without_any_each_segment_starts_from_nothing(memory: Memory) -> None:
    torch.manual_seed(0)
    model = Decoder(config(memory), 23).double().eval()
    for name, parameter in model.named_parameters():
        if name.endswith("gate"):
            # a memory that is not listened to yet shows nothing
            parameter.fill_(1.0)
    stream = torch.randint(0, 23, (1, 3 * SEGMENT))
    bare = model.remembering(0)
    whole, _ = bare(stream)
    alone = torch.cat([bare(piece)[0] for piece in stream.split(SEGMENT, 1)], 1)
    torch.testing.assert_close(whole, alone, atol=1e-10, rtol=0)
    assert not torch.allclose(whole[:, SEGMENT:], model(stream)[0][:, SEGMENT:])


@pytest.mark.parametrize(
    ("memory", "length", "words"),
    [
        (NoMemory(), 0, "memory 0"),
        (Recent(6), 6, "memory 6"),
        (Cache(), None, "memory, all of it"),
        (Infini(), None, "memory infini"),
        (Tokens(2), None, "memory tokens"),
        (Compressive(4, 3, 2), None, "memory compressive 10"),
        (Nearest(14, 3), None, "memory nearest"),
        (Nearest(14, 3, local=6), None, "memory nearest 6"),
    ],
    ids=str,
)
def test_what_is_remembered_is_said(memory: Memory, length: int | None, words: str) -> None:
    """One number only where that is all, and no carrier is left out."""
    made = config(memory)
    assert remembered(made) == (length, words)
    carries = length != 0
    assert memory.carries == carries
    assert _carriers(made) == ([f"memory '{memory.name}'"] if carries else [])


def test_first_tokens_that_stay_are_carried() -> None:
    """Without the newest tokens too, and a report does not call that nothing."""
    made = Decoder(replace(config(Sinks(6, 3)), pattern=SinkWindow(7, 3)), 23)
    assert Sinks(0, 3).carries
    run = SimpleNamespace(path=Path("some"))
    score = Score(*(np.ones(1) for _ in range(3)), seconds=1.0)
    for model, name, note in (
        (made, "memory 0, beside the first 3", "attention keeps the first 3 tokens of the"),
        (Decoder(config(Recent(6)), 23), "no memory", "each segment starts from nothing"),
    ):
        row = _memory_row(run, Plan(), model.remembering(0).config, 0, 6, score, None)
        assert row["name"] == name
        assert row["note"].startswith(note)
