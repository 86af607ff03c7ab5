"""What a stack is made of: words and sizes that it takes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from longspan import RNN, XL, Decoder, Recent
from longspan.errors import ConfigError
from longspan.kernels.reference import Reference
from longspan.models.stack import StackConfig
from longspan.slots import Memory
from tests.contracts.samples import MEMORIES, PATTERNS, VOCABULARY, config, tokens


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"placement": "Pre"}, r"^model\.placement must be 'pre' or 'post', not 'Pre'$"),
        ({"norm": "layernorm"}, r"^model\.norm must be 'layer' or 'rms', not 'layernorm'$"),
        (
            {"activation": "GELU"},
            r"^model\.activation must be 'relu', 'gelu' or 'swiglu', not 'GELU'$",
        ),
        ({"epsilon": 0.0}, r"^model\.epsilon must be above 0, not 0\.0$"),
        (
            {"norm": None, "heads": 0},
            r"model\.heads must be 1 or more, not 0\n.*model\.norm must be",
        ),
    ],
)
def test_a_word_that_is_none_of_those_known_is_refused(wrong: dict[str, Any], said: str) -> None:
    sizes = {"width": 8, "layers": 1, "heads": 2, "feed_forward": 8}
    with pytest.raises(ConfigError, match=said):
        StackConfig(**{**sizes, **wrong})


def test_so_it_is_in_a_component() -> None:
    with pytest.raises(ConfigError, match=r"^mixer\.nonlinearity must be 'tanh' or 'relu', not "):
        RNN(nonlinearity="gelu")
    with pytest.raises(ConfigError, match=r"memory\.init must be .*\n.*memory\.store must be "):
        Recent(3, init="zero", store="hid")


@pytest.mark.parametrize("memory", MEMORIES, ids=str)
@torch.no_grad()
def test_maps_with_biases_and_a_first_norm_keep_a_decoder_whole_in_pieces(memory: Memory) -> None:
    configs = (config(XL(), pattern, memory, Reference()) for pattern in PATTERNS)
    whole = next(each for each in configs if not each.conflicts())
    torch.manual_seed(0)
    own = replace(whole, bias=True, first_norm=True, epsilon=1e-3)
    model = Decoder(own, VOCABULARY).double().eval()
    for name, parameter in model.named_parameters():
        nn.init.normal_(parameter, 1.0 if name.endswith("norm.weight") else 0.0, 0.3)
    x = tokens(2, 24)
    expected, _ = model(x)
    state, pieces = None, []
    for piece in x.split(5, 1):
        logits, state = model(piece, state)
        pieces.append(logits)
    torch.testing.assert_close(torch.cat(pieces, 1), expected, rtol=0, atol=1e-10)
    for name in "qkvo":
        for block in model.blocks():
            attention: Any = block.mixer
            getattr(attention, name).bias.zero_()
        without, _ = model(x)
        # a bias of keys adds the same to all scores of a query, but where a position compares too
        assert not torch.allclose(without, expected, rtol=0, atol=1e-6) or name == "k"
        expected = without
