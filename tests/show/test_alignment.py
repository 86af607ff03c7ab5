"""The grid of an alignment is the attention itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from longspan.errors import ConfigError, InputError
from longspan.models.cross import Alignment
from longspan.show.alignment import alignment
from longspan.show.pictures import Picture


def made(places: int = 3, source: int = 4) -> Alignment:
    generator = torch.Generator().manual_seed(1)
    valid = torch.arange(source) < torch.tensor([source, source - 1])[:, None]
    weights = tuple(
        torch.rand(2, 2, places, source, generator=generator)
        .masked_fill(~valid[:, None, None], -torch.inf)
        .softmax(-1)
        for _ in range(3)
    )
    return Alignment(weights, valid)


def grid(picture: Picture) -> np.ndarray:
    (axes,) = picture.figure.axes
    return np.asarray(axes.images[0].get_array())


def labels(picture: Picture) -> tuple[list[str], list[str]]:
    (axes,) = picture.figure.axes
    x, y = ([text.get_text() for text in a.get_ticklabels()] for a in (axes.xaxis, axes.yaxis))
    return x, y


def test_the_last_layer_and_the_mean_of_its_heads() -> None:
    it = made()
    picture = alignment(it, ["ein", "Haus", "$", " "], ["a", "house", "."])
    np.testing.assert_allclose(grid(picture), it.weights[-1][0].mean(0).numpy(), rtol=1e-6)
    assert labels(picture) == (["ein", "Haus", r"\$", "␣"], ["a", "house", "."])
    assert picture.reading.startswith("alignment, layer 2, mean of 2 heads: 3 tokens about 4;")
    share = float(it.weights[-1][0].mean(0).amax(1).mean())
    assert f"gives {share:.0%} of its attention" in picture.reading


def test_a_chosen_row_layer_and_head_without_padding_and_prompt() -> None:
    it = made()
    picture = alignment(it, ["a", "b", "c"], ["x", "y"], row=1, layer=0, head=1, first=1)
    np.testing.assert_allclose(grid(picture), it.weights[0][1, 1, 1:, :3].numpy(), rtol=1e-6)
    assert "layer 0, head 1" in picture.reading


@pytest.mark.parametrize("form", ["png", "svg"])
def test_it_is_written(form: str, tmp_path: Path) -> None:
    path = tmp_path / f"alignment.{form}"
    alignment(made(), ["Käse", "_", "^", "\\"], ["x", "y", "z"]).save(path)
    start = path.read_bytes()[:5]
    assert start == (b"\x89PNG\r" if form == "png" else b"<?xml")


def test_long_texts_are_not_labelled_word_by_word() -> None:
    it = made(places=80, source=70)
    picture = alignment(it, ["a"] * 70, ["b"] * 80)
    assert grid(picture).shape == (80, 70)
    assert "a" not in labels(picture)[0]


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"layer": 3}, ConfigError, "layer must be 0 to 2, not 3"),
        ({"head": -1}, ConfigError, "head must be 0 to 1, not -1"),
        ({"row": 2}, InputError, "row must be 0 to 1, not 2"),
        ({"source": ["a"]}, InputError, "the source has 4 tokens, and 1 words name them"),
        ({"target": ["a"] * 4}, InputError, "has 3 places from place 0 on, and 4 words"),
        ({"first": 1}, InputError, "has 2 places from place 1 on, and 3 words"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], error: type, said: str) -> None:
    given: dict[str, Any] = {"source": ["a"] * 4, "target": ["x"] * 3} | changes
    with pytest.raises(error, match=said):
        alignment(made(), **given)
