"""From tokens to hidden states and back: embedding and output, whole or adaptive.

Adaptive (1809.10853 for the input, 1609.04309 for the output): a vocabulary sorted by frequency is
cut into clusters; the rarer, the narrower its rows by `div`, each brought to the model's width by a
projection of its own. The output first chooses among the frequent words and the clusters, then
within a cluster. With no cutoffs both are the usual table. Rows and projections may be tied
(1608.05859), as in Transformer-XL.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, linear

from longspan.errors import ConfigError, InputError
from longspan.models.likelihood import likelihood


@dataclass(frozen=True, kw_only=True)
class VocabularyConfig:
    """How wide and how tied.

    Attributes:
        width: of the rows of frequent tokens (d_embed); None for the model's width.
        scaled: the embedding is √C times the rows (1706.03762, section 3.4); BERT's are the rows.
        cutoffs: first token of each cluster but the first, rising; () for one table.
        div: each cluster's rows are this many times narrower than the last one's (div_val).
        tied: input and output use the same rows.
        tied_projections: which clusters' projections the output shares with the input; one truth
            for all, or one for each cluster.
    """

    width: int | None = None
    scaled: bool = True
    cutoffs: tuple[int, ...] = ()
    div: int = 1
    tied: bool = True
    tied_projections: bool | tuple[bool, ...] = True

    def __post_init__(self) -> None:
        if self.width is not None and self.width < 1:
            raise ConfigError(
                f"model.vocabulary.width must be 1 or more, or null, not {self.width}"
            )
        if self.div < 1:
            raise ConfigError(f"model.vocabulary.div must be 1 or more, not {self.div}")
        if list(self.cutoffs) != sorted(set(self.cutoffs)) or any(c < 1 for c in self.cutoffs):
            raise ConfigError(
                f"model.vocabulary.cutoffs must be rising and above 0, not {list(self.cutoffs)}"
            )
        shared = self.tied_projections
        if isinstance(shared, tuple) and len(shared) != len(self.cutoffs) + 1:
            raise ConfigError(
                f"model.vocabulary.tied_projections needs {len(self.cutoffs) + 1} truths, one a "
                f"cluster, not {len(shared)}"
            )

    def clusters(self, size: int, dim: int) -> list[tuple[int, int, int]]:
        """(first token, one past the last, width of a row) of each cluster."""
        width = self.width or dim
        edges = [0, *self.cutoffs, size]
        if edges != sorted(set(edges)):
            raise ConfigError(
                f"model.vocabulary.cutoffs {list(self.cutoffs)} must lie below the {size} tokens "
                "of the vocabulary"
            )
        if width // self.div ** len(self.cutoffs) < 1:
            raise ConfigError(
                f"model.vocabulary.div={self.div} leaves the last cluster no width; "
                "use fewer cutoffs or a smaller div"
            )
        pairs = pairwise(edges)
        return [(low, high, width // self.div**i) for i, (low, high) in enumerate(pairs)]

    def projects(self, dim: int) -> bool:
        """Whether rows are brought to the model's width by a matrix."""
        return self.div > 1 or (self.width or dim) != dim

    def shares(self, cluster: int) -> bool:
        """Whether the output takes the input's projection for `cluster`."""
        shared = self.tied_projections
        return shared[cluster] if isinstance(shared, tuple) else shared


class Embedding(nn.Module):
    """Tokens (B, T) int64 to (B, T, C), scaled by √C unless the config says otherwise.

    Shapes: with div = 1 one table (V, W) and at most one projection (C, W); otherwise a table
    (tokens, W_i) and a projection (C, W_i) a cluster.
    """

    def __init__(self, config: VocabularyConfig, size: int, dim: int) -> None:
        super().__init__()
        self.config, self.size, self.dim = config, size, dim
        self.clusters = config.clusters(size, dim)
        self.scale = dim**0.5 if config.scaled else 1.0
        separate = self.clusters if config.div > 1 else [(0, size, config.width or dim)]
        self.tables = nn.ParameterList(
            nn.Parameter(torch.randn(high - low, width) * dim**-0.5)
            for low, high, width in separate
        )
        self.projections = nn.ParameterList(
            nn.Parameter(torch.randn(dim, width) * width**-0.5)
            for _, _, width in (separate if config.projects(dim) else [])
        )

    def forward(self, tokens: Tensor) -> Tensor:
        if len(self.tables) == 1:
            x = embedding(tokens, self.tables[0])
            x = linear(x, self.projections[0]) if len(self.projections) else x
            return x * self.scale
        x = self.tables[0].new_zeros(*tokens.shape, self.dim)
        for (low, high, _), table, projection in zip(
            self.clusters, self.tables, self.projections, strict=True
        ):
            inside = (tokens >= low) & (tokens < high)
            x[inside] = linear(embedding(tokens[inside] - low, table), projection)
        return x * self.scale


class Head(nn.Module):
    """Hidden states (B, T, C) to logits (B, T, V): log-probabilities if adaptive.

    Args:
        config, size, dim: as for `Embedding`.
        table: the embedding whose rows and projections the config ties to.
    """

    def __init__(self, config: VocabularyConfig, size: int, dim: int, source: Embedding) -> None:
        super().__init__()
        self.config, self.size, self.dim = config, size, dim
        self.clusters = source.clusters
        tables = source.tables
        self.tables = nn.ParameterList(
            tables if config.tied else [nn.Parameter(t.detach().clone()) for t in tables]
        )
        self.projections = nn.ParameterList()
        if config.projects(dim):
            for cluster in range(len(self.clusters)):
                # with div = 1 the input has one projection, the output one a cluster
                own = source.projections[min(cluster, len(source.projections) - 1)]
                tied = config.shares(cluster)
                self.projections.append(own if tied else nn.Parameter(own.detach().clone()))
        self.bias = nn.Parameter(torch.zeros(size))
        tails = len(self.clusters) - 1
        self.tail_rows = nn.Parameter(torch.zeros(tails, self.clusters[0][2])) if tails else None
        self.tail_bias = nn.Parameter(torch.zeros(tails)) if tails else None

    @property
    def adaptive(self) -> bool:
        """Whether the output is in clusters."""
        return len(self.clusters) > 1

    def forward(self, h: Tensor) -> Tensor:
        first = self._scores(h, 0)
        if not self.adaptive:
            return first
        first = first.log_softmax(-1)
        frequent = self.clusters[0][1]
        parts = [first[..., :frequent]]
        for cluster in range(1, len(self.clusters)):
            inside = self._scores(h, cluster).log_softmax(-1)
            parts.append(inside + first[..., frequent + cluster - 1, None])
        return torch.cat(parts, -1)

    def nll(self, h: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
        """Negative log-likelihood (N,) in nats, at least float32, of targets (N,) int64.

        Args:
            h: (N, C). If adaptive, scores are made only for the clusters that occur.
            smoothing: share of the target's probability that all tokens have alike (`likelihood`).

        Raises:
            ConfigError: smoothing over clusters.
        """
        if smoothing and self.adaptive:
            raise ConfigError("smoothing needs one table; leave out model.vocabulary.cutoffs")
        frequent = self.clusters[0][1]
        choice = targets
        for cluster, (low, _, _) in enumerate(self.clusters[1:]):
            choice = torch.where(targets >= low, frequent + cluster, choice)
        loss = likelihood(*self._map(h, 0), choice, smoothing)
        for cluster, (low, high, _) in self._tails():
            inside = ((targets >= low) & (targets < high)).nonzero()[:, 0]
            if len(inside):
                within = likelihood(*self._map(h[inside], cluster), targets[inside] - low)
                loss = loss.index_add(0, inside, within)
        return loss

    def _tails(self) -> Iterator[tuple[int, tuple[int, int, int]]]:
        return ((i, cluster) for i, cluster in enumerate(self.clusters) if i)

    def _scores(self, h: Tensor, cluster: int) -> Tensor:
        return linear(*self._map(h, cluster))

    def _map(self, h: Tensor, cluster: int) -> tuple[Tensor, Tensor, Tensor]:
        """What a cluster's scores are a linear map of, and the map's rows and biases."""
        low, high, _ = self.clusters[cluster]
        rows = self.tables[cluster] if len(self.tables) > 1 else self.tables[0][low:high]
        bias = self.bias[low:high]
        if cluster == 0 and self.tail_rows is not None and self.tail_bias is not None:
            rows = torch.cat([rows, self.tail_rows])
            bias = torch.cat([bias, self.tail_bias])
        if len(self.projections):
            h = h @ self.projections[cluster]
        return h, rows, bias


def check_tokens(tokens: Tensor, size: int) -> None:
    """Refuses what are no tokens of a vocabulary of `size`.

    Raises:
        InputError: not (B, T) int64 with T ≥ 1, or beyond the vocabulary.
    """
    if tokens.dim() != 2 or tokens.shape[1] == 0:
        raise InputError(f"tokens must be (B, T) with T ≥ 1, not {tuple(tokens.shape)}")
    if tokens.dtype != torch.long:
        raise InputError(f"tokens must be int64, not {tokens.dtype}; use tokens.long()")
    if torch.compiler.is_compiling():
        return
    low, high = (int(each) for each in tokens.aminmax())
    if low < 0 or high >= size:
        raise InputError(f"tokens must lie in 0 .. {size - 1}; found {low} .. {high}")
