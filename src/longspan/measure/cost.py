"""What a model costs before it is trained: parameters, FLOPs, bytes, state.

Counted from the recipe, for one stream in evaluation with a full memory that is read a segment at a
time (a token at a time where the pattern has no segments). A product of (m, k) and (k, n) counts
2mkn FLOPs; norms, biases, activations and softmax are left out. A pattern without limit is taken
after 1,024 tokens. Of an adaptive vocabulary the embedding of a frequent token and the output of
all tokens are counted. Bytes a token are what must be read when tokens come one at a time: every
weight that is used once, and the state.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from longspan.models.decoder import Decoder, DecoderConfig
from longspan.slots import Pairs, Pattern, Places
from longspan.tiles import tiling


@dataclass(frozen=True)
class Part:
    """One part of the cost.

    Attributes:
        parameters: numbers that are learned.
        flops: of a forward pass, a token.
        bytes: read a token, when tokens come one at a time.
    """

    parameters: int
    flops: float
    bytes: float


@dataclass(frozen=True)
class Cost:
    """What a model costs.

    Attributes:
        parts: embedding, projections, scores, feed-forward, head.
        state: bytes of one stream's state once it is full; None if it grows with the stream.
        growth: bytes that the state grows a token, where it grows.
    """

    parts: dict[str, Part]
    state: int | None
    growth: int

    @property
    def parameters(self) -> int:
        """Of the whole model."""
        return sum(part.parameters for part in self.parts.values())

    @property
    def flops(self) -> float:
        """A token, forward. Training costs about three times as much."""
        return sum(part.flops for part in self.parts.values())


def cost(config: DecoderConfig, size: int, *, dtype: torch.dtype = torch.float32) -> Cost:
    """Counts what a decoder with a vocabulary of `size` costs; no weight is made.

    Args:
        config: of the decoder.
        size: V.
        dtype: of weights and state.
    """
    with torch.device("meta"):
        model = Decoder(config, size)
    states = _states(model, dtype)
    numbers, matrices = dict.fromkeys(PARTS, 0), dict.fromkeys(PARTS, 0)
    for name, parameter in model.named_parameters():
        numbers[_part(name)] += parameter.numel()
        if parameter.dim() > 1 and not any(part in name for part in APART):
            matrices[_part(name)] += parameter.numel()
    # of a token, multiplications beside those of its matrices
    more = [block.mixer.products() for block in model.blocks()]

    embedding, head = model.embedding, model.head
    projection = embedding.projections[0].numel() if len(embedding.projections) else 0
    tails = 0 if head.tail_rows is None else head.tail_rows.numel()
    # tokens that the layers see for each one of the stream
    runs = 1.0 if model.wrapping is None else model.wrapping.runs
    products = {
        "embedding": projection,
        "projections": runs * (matrices["projections"] + sum(projected for projected, _ in more)),
        "scores": runs * sum(scores for _, scores in more),
        "feed-forward": runs * matrices["feed-forward"],
        "head": sum(p.numel() for p in (*head.tables, *head.projections)) + tails,
    }
    reads = {name: count * dtype.itemsize for name, count in numbers.items()}
    reads["embedding"] = (embedding.tables[0].shape[1] + projection) * dtype.itemsize
    reads["head"] = dtype.itemsize * sum(
        p.numel()
        for p in {
            p for name, p in model.named_parameters(remove_duplicate=False) if _part(name) == "head"
        }
    )
    clock = torch.long.itemsize * (1 + (model.reads or 0))
    # what wraps the layers has no keys, and never grows
    keys = [block.mixer.keys for block in model.blocks()] + [0] * (len(states) - config.layers)
    reads["scores"] += clock + sum(
        growth * met if full is None else full
        for (full, growth), met in zip(states, keys, strict=True)
    )
    parts = {name: Part(numbers[name], 2.0 * products[name], float(reads[name])) for name in PARTS}
    constant = [full for full, _ in states if full is not None]
    state = clock + sum(constant) if len(constant) == len(states) else None
    return Cost(parts, state, sum(growth for _, growth in states))


@dataclass(frozen=True)
class Met:
    """Which keys a query meets in one long call, on average.

    Attributes:
        length: tokens of the call.
        seen: keys that a query sees.
        computed: keys whose scores are computed; all of the call's if it is computed whole.
    """

    length: int
    seen: float
    computed: float

    def __str__(self) -> str:
        how = "tiles compute" if self.computed < self.length else "computed whole, it meets"
        return (
            f"in a call of {self.length:,} tokens a query sees {self.seen:,.0f} keys on average; "
            f"{how} {self.computed:,.0f}"
        )


def document(pattern: Pattern, length: int) -> Pairs:
    """The pairs of a document of `length` tokens, none of which is marked for what it is."""
    places, clock = Places.of(torch.zeros(1, dtype=torch.long), length)
    if pattern.reads is not None:
        none = torch.full((1, pattern.reads), -1)
        places, _ = places.reading(torch.full_like(places.pos, -1), none, clock)
    return Pairs.of(places, places.pos[:, :0], pattern, consecutive=True)


def met(pattern: Pattern, length: int = 4096) -> Met:
    """Counts the pairs of a call of `length` tokens from the beginning of a document."""
    pairs = document(pattern, length)
    tiles = tiling(pairs, heads=1)
    if tiles is None:
        return Met(length, float(pairs.visible.sum()) / length, length)
    return Met(length, tiles.visible / length, tiles.computed / length)


APART = (".order.", ".keeper.", ".comparison.", ".wide.")
"""In a layer, those whose products the layer counts itself."""

PARTS = ("embedding", "projections", "scores", "feed-forward", "head")


def _part(name: str) -> str:
    if name.startswith(("embedding", "entry", "wrapping")):
        return "embedding"
    if name.startswith(("head", "norm")):
        return "head"
    if ".feed_forward" in name:
        return "feed-forward"
    if ".comparison." in name or name.endswith((".u", ".v")):
        return "scores"
    return "projections"


def _states(model: Decoder, dtype: torch.dtype) -> list[tuple[int | None, int]]:
    """Of each layer, and of what wraps them: bytes when full, or None; bytes a token it grows."""
    model = model.to(dtype).eval()
    like = torch.empty((), dtype=dtype, device="meta")
    # shapes cost nothing: longer than any memory
    full, states = 2**24, []
    for block in model.blocks():
        one, two = (
            sum(t.nbytes for t in block.mixer.after(n, like).tensors().values())
            for n in (full, 2 * full)
        )
        states.append((one, 0) if one == two else (None, (two - one) // full))
    if model.wrapping is not None:
        around = model.wrapping.start(1, like).tensors().values()
        states.append((sum(t.nbytes for t in around), 0))
    return states
