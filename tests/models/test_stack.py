"""What a stack is made of: words and sizes that it takes."""

from __future__ import annotations

from typing import Any

import pytest

from longspan import RNN, Recent
from longspan.errors import ConfigError
from longspan.models.stack import StackConfig


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"placement": "Pre"}, r"^model\.placement must be 'pre' or 'post', not 'Pre'$"),
        ({"norm": "layernorm"}, r"^model\.norm must be 'layer' or 'rms', not 'layernorm'$"),
        (
            {"activation": "GELU"},
            r"^model\.activation must be 'relu', 'gelu' or 'swiglu', not 'GELU'$",
        ),
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
