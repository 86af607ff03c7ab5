"""One picture of one component: a position over distance, a pattern's mask, a memory over time.

Each is made by the component itself, of a few tokens, so what is seen is what a layer would do.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from longspan.errors import ConfigError
from longspan.measure.cost import document, met
from longspan.models.decoder import Decoder, DecoderConfig
from longspan.patterns.full import Full
from longspan.patterns.segments import Segments
from longspan.slots import Memory, Pairs, Pattern, Places, Position, Project, Sizes
from longspan.state import EMPTY, Carried

HEADS, HEAD_DIM = 4, 32
"""Of the layer that a position is built for."""

DRAWS = 256
"""Random contents over which a position's scores are averaged."""

SEGMENT = 8
"""Tokens between two writes of a memory that compresses where a segment ends."""

PALER = 0.5
"""How dark a token is that shares its slot, beside 1 of one with a slot of its own."""

SEEN = "#14589c"
DASHES = ["-", "--", "-.", ":"]


@dataclass(frozen=True)
class Picture:
    """A drawing and what it shows in words."""

    figure: Figure
    reading: str

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes it, in the format that the name ends with: png, svg, pdf.

        Raises:
            ConfigError: no such format, or a file that cannot be written.
        """
        try:
            self.figure.savefig(path, dpi=150)
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path} cannot be written: {error}") from error


@torch.no_grad()
def of_position(position: Position, tokens: int) -> Picture:
    """How the same content scores with itself, and what is added to the score, by distance.

    Parameters stand as they are drawn. A position at the input is shown by how alike two places'
    vectors are.
    """
    torch.manual_seed(0)
    figure, title = empty(), f"position {position.name}"
    axes = figure.add_subplot(title=title, xlabel="tokens back", ylabel="score")
    distances = torch.arange(tokens)
    if position.enters == "input":
        vectors = position.entry(HEADS * HEAD_DIM)(distances.flip(0)[None], torch.float32)[0]
        alike = torch.cosine_similarity(vectors[:1], vectors, dim=-1)
        axes.set_ylabel("cosine with the vector of the last place")
        axes.plot(distances.numpy(), alike.numpy(), color=SEEN)
        return Picture(figure, f"{title}: how alike the vectors of two places are, by distance")
    order = position.build(HEADS * HEAD_DIM, HEADS, HEAD_DIM)
    order.begin(0)
    places, _ = Places.of(torch.tensor([tokens - 1]).expand(DRAWS), 1)
    past = torch.arange(tokens - 1).expand(DRAWS, -1)
    pairs = Pairs.of(places, past, Full(), consecutive=True)
    q = torch.randn(DRAWS, HEADS, 1, HEAD_DIM)
    q = q * HEAD_DIM**0.5 / q.norm(dim=-1, keepdim=True)  # so that heads differ by position alone
    turned, keys = order.rotate(q, q.expand(-1, -1, tokens, -1), pairs)
    scores = (turned @ keys.transpose(2, 3) * HEAD_DIM**-0.5).mean(0)
    bias = order.bias(q, pairs)
    if bias is not None:
        scores = scores + bias.dense(HEADS).mean(0)
    for head, row in enumerate(scores[:, 0].flip(-1)):
        axes.plot(
            distances.numpy(), row.numpy(), DASHES[head % len(DASHES)], label=f"head {head + 1}"
        )
    axes.legend(frameon=False)
    reading = f"{title}: mean score of a content with itself, and the bias, as weights are drawn"
    return Picture(figure, reading)


def of_pattern(pattern: Pattern, tokens: int) -> Picture:
    """Which query (row) meets which key (column) in a document of `tokens` tokens, and its cost."""
    mask = document(pattern, tokens).visible[0]
    seen, most = int(mask.sum()), int(mask.sum(1).max())
    dense = tokens * (tokens + 1) // 2 if pattern.causal else tokens**2
    figure = empty(5.0, 5.0)
    title = f"pattern {pattern.name}"
    axes = figure.add_subplot(title=title, xlabel="key", ylabel="query")
    grid(figure, mask)
    reading = (
        f"{title}: {seen:,} of {dense:,} pairs meet ({seen / dense:.0%}), a query sees at most "
        f"{most:,} of {tokens:,} keys\n{met(pattern)}"
    )
    if pattern.reads is not None:
        reading += "\ntokens marked for what they are, or for what precedes them, come on top of it"
    axes.set_title(f"{title}: {seen / dense:.0%} of the pairs", fontsize=10)
    return Picture(figure, reading)


@torch.no_grad()
def of_memory(memory: Memory, tokens: int) -> Picture:
    """Which tokens (columns) are held after each token (row) of a stream.

    Paler those that share a slot with others. Of a memory that folds tokens into something else:
    how strongly each still shows.
    """
    if memory.folds and not memory.length:
        return _of_folds(memory, tokens)
    segment = max(1, SEGMENT // memory.grain) * memory.grain if memory.folds else 1
    keeper = memory.build(Sizes(1, 1, 1, 1, segment)).eval()
    project = _maps(lambda x: (x[:, None], x[:, None]))
    state = keeper.start(1, torch.zeros(()))
    clock, held = torch.zeros(1, dtype=torch.long), torch.zeros(tokens, tokens)
    sizes, whole, shared = [], 0, 0
    for step in range(tokens):
        places, clock = Places.of(clock, 1)
        x = torch.full((1, 1, 1), float(step))
        past = keeper.recall(state, project, None)
        if memory.listens:
            # as if every query attended to all alike
            count = past.pos.shape[1] + 1
            past = keeper.heard(past, torch.full((1, count), 1 / count))
        state = keeper.write(state, past, x, *project(x), places, segment - 1)
        pos, spans = (each[0] for each in keeper.stands(state))
        whole = shared = 0
        for position, span in zip(pos.tolist(), spans.tolist(), strict=True):
            if position != EMPTY and position >= 0:
                held[step, position - span + 1 : position + 1] = 1.0 if span == 1 else PALER
                whole, shared = whole + (span == 1), shared + (span > 1)
        sizes.append(sum(t.numel() for name, t in state.tensors().items() if name != "pos"))
    figure = empty(5.0, 5.0)
    title = f"memory {memory.name}"
    figure.add_subplot(title=title, xlabel="token", ylabel="held after token")
    grid(figure, held)
    more = f", {int((held[-1] == PALER).sum()):,} more in {shared:,} slots" if shared else ""
    reading = f"{title}: after {tokens:,} tokens it holds {whole:,}{more}, and {_grows(sizes)}"
    return Picture(figure, reading)


def _maps(keys: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Project:
    """Maps of a layer that has keys and values alone."""

    def queries(x: Tensor) -> Tensor:
        raise NotImplementedError("nothing is asked here")

    return Project(keys, queries, lambda: _maps(keys))


def _of_folds(memory: Memory, tokens: int) -> Picture:
    """What share of what is held would be another if a token had been another."""
    torch.manual_seed(0)
    segment = max(2, tokens // 8)
    # row i reads another token i, the last row none
    stream = torch.arange(tokens).repeat(tokens + 1, 1)
    stream[:-1].diagonal().add_(tokens)
    following = _around_model if memory.attaches == "tokens" else _in_layer
    shows, sizes = torch.zeros(tokens, tokens), []
    for step, state in enumerate(following(memory, stream, segment)):
        parts = [t.flatten(1) for t in state.held().values() if t.is_floating_point()]
        sizes.append(sum(t.shape[1] for t in parts))
        for part in parts:
            changed, whole = (part[:-1] - part[-1:]).norm(dim=1), part[-1].norm()
            # of its parts the one in which it shows most
            shows[step] = shows[step].maximum(changed / whole.clamp(min=1e-9))
    figure = empty(5.0, 5.0)
    title = f"memory {memory.name}"
    figure.add_subplot(title=title, xlabel="token", ylabel="shows after token")
    # what cannot be missed is as dark as what shows most
    grid(figure, shows.clamp(max=1.0) / shows.max().clamp(1e-9, 1.0))
    reading = (
        f"{title}, segments of {segment}: after {tokens:,} tokens another first token would change "
        f"{_percent(shows[-1, 0])} of what it holds, another last token {_percent(shows[-1, -1])}; "
        f"it {_grows(sizes)}"
    )
    return Picture(figure, reading)


def _in_layer(memory: Memory, stream: Tensor, segment: int) -> Iterator[Carried]:
    """What a memory of a layer carries after each token of a stream (B, N)."""
    dim = HEADS * HEAD_DIM
    keeper = memory.build(Sizes(dim, HEADS, HEADS, HEAD_DIM, segment))
    table = torch.randn(int(stream.max()) + 1, dim)
    maps = torch.randn(2, dim, dim) * dim**-0.5

    def project(x: Tensor) -> tuple[Tensor, Tensor]:
        k, v = (x @ maps[:, None]).unflatten(-1, (HEADS, HEAD_DIM)).transpose(2, 3)
        return k, v

    state = keeper.start(stream.shape[0], table)
    clock = torch.zeros(stream.shape[0], dtype=torch.long)
    for token in stream.split(1, 1):
        x = table[token]
        places, clock = Places.of(clock, 1)
        past = keeper.recall(state, _maps(project), None)
        state = keeper.write(state, past, x, *project(x), places, segment - 1)
        yield state


def _around_model(memory: Memory, stream: Tensor, segment: int) -> Iterator[Carried]:
    """What a memory around a model carries after each token of a stream (B, N)."""
    dim = HEADS * HEAD_DIM
    config = DecoderConfig(
        width=dim,
        layers=2,
        heads=HEADS,
        feed_forward=2 * dim,
        pattern=Segments(segment, 0),
        memory=memory,
    )
    model = Decoder(config, int(stream.max()) + 1).eval()
    state = None
    for token in stream.split(1, 1):
        _, state = model.hidden(token, state)
        yield state.layers[-1]


def _grows(sizes: list[int]) -> str:
    return "grows with the stream" if sizes[-1] > sizes[len(sizes) // 2] else "no longer grows"


def _percent(share: Tensor) -> str:
    return f"{float(share):.2%}" if share < 0.1 else f"{float(share):.0%}"


def empty(width: float = 6.6, height: float = 3.7) -> Figure:
    """A figure of so many inches, with nothing on it."""
    return Figure((width, height), layout="constrained")


def grid(figure: Figure, marks: Tensor) -> None:
    """Numbers (N, M) from 0 to 1 as a grid on the figure's only axes, the darker the higher."""
    (axes,) = figure.axes
    axes.imshow(marks.numpy(), cmap="Blues", vmin=0, vmax=1.3, interpolation="nearest")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
