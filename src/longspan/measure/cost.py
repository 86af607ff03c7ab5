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

from longspan.buffer import Hidden
from longspan.models.decoder import PIECE, Decoder, DecoderConfig
from longspan.slots import Places
from longspan.state import State


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
    segment = config.pattern.segment
    reach = PIECE if config.pattern.reach is None else config.pattern.reach
    keys = config.pattern.sinks + reach + segment
    state, growth, hidden = _state(model, keys, dtype)
    numbers, matrices = dict.fromkeys(PARTS, 0), dict.fromkeys(PARTS, 0)
    for name, parameter in model.named_parameters():
        numbers[_part(name)] += parameter.numel()
        if parameter.dim() > 1 and ".order." not in name:
            matrices[_part(name)] += parameter.numel()

    attention = next(model.blocks()).attention
    inner = attention.heads * attention.head_dim
    shared = attention.kv_heads / attention.heads
    # of one layer and token, multiplications: two products for the scores and their values
    projections, scores = matrices["projections"] / config.layers, 2.0 * inner * keys
    if hidden:
        # today's keys and values of yesterday's hidden states
        projections += 2 * inner * config.width * reach / segment * shared
    more = attention.order.products(segment, keys)
    projections, scores = projections + more[0], scores + more[1]

    embedding, head = model.embedding, model.head
    projection = embedding.projections[0].numel() if len(embedding.projections) else 0
    tails = 0 if head.tail_rows is None else head.tail_rows.numel()
    products = {
        "embedding": projection,
        "projections": config.layers * projections,
        "scores": config.layers * scores,
        "feed-forward": matrices["feed-forward"],
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
    reads["scores"] += state if state is not None else growth * keys
    parts = {name: Part(numbers[name], 2.0 * products[name], float(reads[name])) for name in PARTS}
    return Cost(parts, state, growth)


PARTS = ("embedding", "projections", "scores", "feed-forward", "head")


def _part(name: str) -> str:
    if name.startswith(("embedding", "entry")):
        return "embedding"
    if name.startswith(("head", "norm")):
        return "head"
    if ".feed_forward" in name:
        return "feed-forward"
    return "scores" if name.endswith((".u", ".v")) else "projections"


def _state(model: Decoder, keys: int, dtype: torch.dtype) -> tuple[int | None, int, bool]:
    """Bytes of a full state, or None; bytes a token while it grows; whether of hidden states."""
    model = model.to(dtype).eval()
    sizes, hidden = [], False
    full = keys + (model.config.memory.length or 0)
    for length in (full, 2 * full):
        layers = []
        for block in model.blocks():
            attention = block.attention
            carried = attention.begin(1, attention.q.weight)
            places, _ = Places.of(torch.zeros(1, dtype=torch.long, device="meta"), length)
            shape = (1, attention.kv_heads, length, attention.head_dim)
            k = torch.empty(shape, dtype=dtype, device="meta")
            x = torch.empty(1, length, attention.dim, dtype=dtype, device="meta")
            past = attention.memory.recall(carried, attention._project, None)
            slack = attention.pattern.segment - 1
            layers.append(attention.memory.write(carried, past, x, k, k, places, slack))
        hidden = isinstance(layers[0], Hidden)
        sizes.append(State(torch.zeros(1, dtype=torch.long), tuple(layers)).nbytes)
    if sizes[0] == sizes[1]:
        return sizes[0], 0, hidden
    return None, (sizes[1] - sizes[0]) // full, hidden
