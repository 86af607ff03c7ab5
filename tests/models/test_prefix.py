"""A decoder that reads before it writes: joined rows are what each row is alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from longspan import LSTM, XL, Cache, Causal, DecoderConfig, MemoryLayer, Recent, Segments
from longspan.models.prefix import Prefix

SIZES: dict[str, Any] = {"width": 8, "layers": 2, "heads": 2, "feed_forward": 12}
MODELS = {
    "causal": DecoderConfig(**SIZES, position=XL(), pattern=Causal(), memory=Cache()),
    "segments": DecoderConfig(**SIZES, position=XL(), pattern=Segments(4, 8), memory=Recent(8)),
    "layer": DecoderConfig(**SIZES, pattern=Segments(4, 0), memory=MemoryLayer(slots=3)),
    "lstm": DecoderConfig(**SIZES, mixer=LSTM()),
}
LENGTHS = [(5, 3), (9, 1), (1, 6)]


@pytest.mark.parametrize("name", MODELS)
def test_a_row_is_what_it_is_alone(name: str) -> None:
    torch.manual_seed(1)
    model = Prefix(MODELS[name], 20).double().eval()
    sources, targets = torch.randint(20, (3, 9)), torch.randint(20, (3, 6))
    read = torch.arange(9) < torch.tensor([s for s, _ in LENGTHS])[:, None]
    written = torch.arange(6) < torch.tensor([t for _, t in LENGTHS])[:, None]
    h = model.taught(sources, targets, source_valid=read, valid=written)
    state = model.encode(sources, read)
    logits, _ = model.decode(targets, state, valid=written)
    torch.testing.assert_close(model.decoder.head(h)[written], logits[written], rtol=0, atol=1e-12)
    for row, (s, t) in enumerate(LENGTHS):
        alone, _ = model.decoder(torch.cat([sources[row, :s], targets[row, :t]])[None])
        torch.testing.assert_close(logits[row, :t], alone[0, s:], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["segments", "layer"])
def test_in_training_segments_are_where_they_are_when_it_writes(name: str) -> None:
    """Memories write between segments, and the gradient flows back through them."""
    torch.manual_seed(1)
    model = Prefix(MODELS[name], 20).double()
    sources, targets = torch.randint(20, (2, 9)), torch.randint(20, (2, 6))
    trained = model.train().taught(sources, targets)
    torch.testing.assert_close(trained, model.eval().taught(sources, targets), rtol=0, atol=1e-12)
    for parameter in model.parameters():
        # some maps begin as zeros, which nothing flows through
        torch.nn.init.normal_(parameter, std=0.5)
    embedded = model.decoder.embedding.tables[0]
    only = torch.zeros_like(targets) + 19
    h = model.train().taught(torch.arange(9)[None].expand(2, -1), only)
    # one number: the sum of a normalised vector is a constant
    (gradient,) = torch.autograd.grad(h[:, -1, 0].sum(), embedded)
    # 15 tokens back, three segments ago
    assert bool(gradient[0].abs().max() > 0)
