"""Embedding and output, whole and adaptive (1809.10853 and 1609.04309)."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from longspan import ConfigError
from longspan.models.vocabulary import Embedding, Head, VocabularyConfig
from tests.dispatch import Made

SIZE, DIM = 50, 12
CONFIGS = {
    "whole": VocabularyConfig(),
    "as the rows are": VocabularyConfig(scaled=False),
    "narrow": VocabularyConfig(width=5),
    "wide, untied": VocabularyConfig(width=20, tied=False, tied_projections=False),
    "two clusters": VocabularyConfig(cutoffs=(30,)),
    "narrow clusters of one width": VocabularyConfig(width=5, cutoffs=(10, 30)),
    "narrowing": VocabularyConfig(cutoffs=(10, 30), div=2),
    "narrowing, untied": VocabularyConfig(
        cutoffs=(1, 49), div=3, tied=False, tied_projections=(False, True, False)
    ),
}
every = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
adaptive = pytest.mark.parametrize("config", list(CONFIGS.values())[4:], ids=list(CONFIGS)[4:])
EXACT = {"atol": 1e-11, "rtol": 0.0}


def pair(config: VocabularyConfig, size: int = SIZE, dim: int = DIM) -> tuple[Embedding, Head]:
    """In float64, every parameter random."""
    torch.manual_seed(0)
    embedding = Embedding(config, size, dim)
    head = Head(config, size, dim, embedding)
    both = nn.ModuleList([embedding, head]).double()
    for parameter in both.parameters():
        nn.init.normal_(parameter, std=0.5)
    return embedding, head


def states(*shape: int) -> Tensor:
    return torch.randn(*shape, DIM, generator=torch.Generator().manual_seed(1)).double()


@every
def test_an_embedding_is_a_row_projected_and_scaled(config: VocabularyConfig) -> None:
    embedding, _ = pair(config)
    tokens = torch.arange(SIZE).view(5, 10)
    made = embedding(tokens)
    assert made.shape == (5, 10, DIM)
    for token in range(SIZE):
        cluster = sum(token >= cutoff for cutoff in config.cutoffs) if config.div > 1 else 0
        low = (0, *config.cutoffs)[cluster]
        row = embedding.tables[cluster][token - low]
        if len(embedding.projections):
            row = embedding.projections[cluster] @ row
        row = row * math.sqrt(DIM) if config.scaled else row
        torch.testing.assert_close(made.view(SIZE, DIM)[token], row, **EXACT)


@adaptive
def test_log_probabilities_sum_to_one(config: VocabularyConfig) -> None:
    _, head = pair(config)
    made = head(states(2, 3))
    assert made.shape == (2, 3, SIZE)
    torch.testing.assert_close(made.exp().sum(-1), torch.ones(2, 3).double(), **EXACT)


@every
def test_the_loss_of_every_token_is_minus_its_log_probability(config: VocabularyConfig) -> None:
    _, head = pair(config)
    h, targets = states(SIZE), torch.arange(SIZE).flip(0)
    expected = -head(h).log_softmax(-1).gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(head.nll(h, targets), expected, **EXACT)


@every
def test_and_so_is_its_gradient(config: VocabularyConfig) -> None:
    embedding, head = pair(config)
    h, targets = states(SIZE).requires_grad_(), torch.arange(SIZE)
    leaves = [h, *nn.ModuleList([embedding, head]).parameters()]
    expected = -head(h).log_softmax(-1).gather(1, targets[:, None]).sum()
    mine, theirs = (
        torch.autograd.grad(loss, leaves, allow_unused=True)
        for loss in (head.nll(h, targets).sum(), expected)
    )
    for a, b in zip(mine, theirs, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, **EXACT)


@pytest.mark.parametrize("cutoffs", [(10,), (10, 30), (5, 20, 40)])
def test_it_is_the_adaptive_softmax_of_torch(cutoffs: tuple[int, ...]) -> None:
    """Which has no projection for frequent tokens and no biases within clusters."""
    _, head = pair(VocabularyConfig(cutoffs=cutoffs, div=2))
    theirs = nn.AdaptiveLogSoftmaxWithLoss(DIM, SIZE, list(cutoffs), 2.0, head_bias=True).double()
    with torch.no_grad():
        head.projections[0].copy_(torch.eye(DIM))
        head.bias[cutoffs[0] :] = 0
        theirs.head.weight.copy_(torch.cat([head.tables[0], head.tail_rows]))
        theirs.head.bias.copy_(torch.cat([head.bias[: cutoffs[0]], head.tail_bias]))
        for cluster, tail in enumerate(theirs.tail, 1):
            tail[0].weight.copy_(head.projections[cluster].T)
            tail[1].weight.copy_(head.tables[cluster])
    h, targets = states(SIZE), torch.arange(SIZE)
    torch.testing.assert_close(head(h), theirs.log_prob(h), **EXACT)
    torch.testing.assert_close(head.nll(h, targets), -theirs(h, targets).output, **EXACT)


@pytest.mark.parametrize("div", [1, 2])
def test_the_loss_never_makes_a_score_of_every_token_for_every_place(div: int) -> None:
    """Forward and backward, with every cluster among the targets."""
    size, places = 1000, 64
    config = VocabularyConfig(cutoffs=(20, 100), div=div)
    _, head = pair(config, size)
    targets = torch.arange(places) * 2
    targets[-4:] = torch.tensor([100, 500, 998, 999])
    with Made() as made:
        head.nll(states(places).requires_grad_(), targets).sum().backward()
    # the clusters hold 20, 80 and 900 tokens: no tensor has a row a place and a column of each
    assert not {(places, 80), (places, 900), (places, 1000)} & made.shapes
    assert made.largest["cpu"] < places * size / 4
    with Made() as made:
        head(states(places))
    assert (places, size) in made.shapes


def test_clusters_that_do_not_occur_are_not_computed() -> None:
    _, head = pair(VocabularyConfig(cutoffs=(10, 30), div=2))
    head.nll(states(4), torch.tensor([0, 3, 9, 31])).sum().backward()
    assert head.projections[1].grad is None
    assert head.projections[2].grad is not None


def test_the_loss_is_at_least_float32() -> None:
    for config in CONFIGS.values():
        _, head = pair(config)
        low = head.bfloat16()
        loss = low.nll(states(6).bfloat16(), torch.tensor([0, 9, 10, 29, 30, 49]))
        assert loss.dtype == torch.float32


@every
def test_what_is_tied_is_one_parameter(config: VocabularyConfig) -> None:
    embedding, head = pair(config)
    both = nn.ModuleDict({"embedding": embedding, "head": head})
    names = [name for name, _ in both.named_parameters()]
    for i, table in enumerate(head.tables):
        assert (table is embedding.tables[i]) == config.tied
        assert (f"head.tables.{i}" in names) == (not config.tied)
    for i, projection in enumerate(head.projections):
        own = embedding.projections[min(i, len(embedding.projections) - 1)]
        assert (projection is own) == config.shares(i)
        assert (f"head.projections.{i}" in names) == (not config.shares(i))
    assert len({id(p) for p in both.parameters()}) == len(names)


def test_widths_of_clusters() -> None:
    config = VocabularyConfig(width=64, cutoffs=(15, 40, 70), div=4)
    assert config.clusters(110, 16) == [(0, 15, 64), (15, 40, 16), (40, 70, 4), (70, 110, 1)]
    assert VocabularyConfig(cutoffs=(15,)).clusters(20, 8) == [(0, 15, 8), (15, 20, 8)]
    assert VocabularyConfig().clusters(20, 8) == [(0, 20, 8)]


def test_parameters_are_as_many_as_the_clusters_need() -> None:
    embedding, head = pair(VocabularyConfig(cutoffs=(10, 30), div=2))
    tables = 10 * 12 + 20 * 6 + 20 * 3
    projections = 12 * (12 + 6 + 3)
    assert sum(p.numel() for p in embedding.parameters()) == tables + projections
    own = SIZE + 2 * DIM + 2
    assert sum(p.numel() for p in head.parameters()) == tables + projections + own


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"div": 0}, "div must be 1 or more, not 0"),
        ({"width": 0}, "width must be 1 or more, or null, not 0"),
        ({"cutoffs": (5, 5)}, r"cutoffs must be rising and above 0, not \[5, 5\]"),
        ({"cutoffs": (9, 5)}, r"cutoffs must be rising and above 0, not \[9, 5\]"),
        ({"cutoffs": (0, 5)}, r"cutoffs must be rising and above 0, not \[0, 5\]"),
        (
            {"cutoffs": (5,), "tied_projections": (True,)},
            "tied_projections needs 2 truths, one a cluster, not 1",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=r"model\.vocabulary\." + message):
        VocabularyConfig(**settings)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (VocabularyConfig(cutoffs=(10, 50)), r"cutoffs \[10, 50\] must lie below the 50 tokens"),
        (VocabularyConfig(cutoffs=(10, 60)), r"cutoffs \[10, 60\] must lie below the 50 tokens"),
        (VocabularyConfig(cutoffs=(10, 30), div=4), "div=4 leaves the last cluster no width"),
    ],
)
def test_clusters_that_do_not_fit_are_refused(config: VocabularyConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Embedding(config, SIZE, DIM)
