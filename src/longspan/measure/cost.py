"""What a model costs before it is trained: parameters, FLOPs, bytes, state.

Counted from the recipe, for one stream in evaluation that is read a segment at a time. A product of
(m, k) and (k, n) counts 2mkn FLOPs; norms, activations and softmax are left out. Bytes a token are
what must be read when tokens come one at a time: every weight once, and the state.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

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
    width = dtype.itemsize
    segment = config.pattern.segment if config.pattern.segment > 1 else 1
    reach = config.pattern.reach
    keys = (reach if reach is not None else PIECE) + segment
    groups: dict[str, set[torch.nn.Parameter]] = {name: set() for name in PARTS}
    seen: set[torch.nn.Parameter] = set()
    for name, parameter in model.named_parameters():
        if parameter not in seen:
            groups[_part(name)].add(parameter)
            seen.add(parameter)
    counts = {name: sum(p.numel() for p in group) for name, group in groups.items()}
    head_dim = config.head_dim or config.width // config.heads
    inner = config.heads * head_dim
    relative = sum(p.numel() for n, p in model.named_parameters() if ".order.r." in n)
    # every distance is projected once a segment, not once a token
    projections = 2 * (counts["projections"] - relative) + 2 * relative * keys / segment
    terms = 3 if relative else 2
    output = sum(t.numel() for t in model.head.tables) + sum(
        p.numel() for p in model.head.projections
    )
    flops = {
        "embedding": 2.0 * sum(p.numel() for p in model.embedding.projections),
        "projections": float(projections),
        "scores": float(config.layers * terms * 2 * inner * keys),
        "feed-forward": 2.0 * counts["feed-forward"],
        "head": 2.0 * output,
    }
    state, growth = _state(model, keys, dtype)
    reads = {name: float(count * width) for name, count in counts.items()}
    reads["embedding"] = float(model.embedding.tables[0].shape[1] * width)
    reads["head"] = float(output * width)
    reads["scores"] = float(state if state is not None else growth * keys)
    parts = {name: Part(counts[name], flops[name], reads[name]) for name in PARTS}
    return Cost(parts, state, growth)


PARTS = ("embedding", "projections", "scores", "feed-forward", "head")


def _part(name: str) -> str:
    if name.startswith("embedding"):
        return "embedding"
    if name.startswith(("head", "norm")):
        return "head"
    if ".feed_forward" in name:
        return "feed-forward"
    return "scores" if name.endswith((".u", ".v")) else "projections"


def _state(model: Decoder, keys: int, dtype: torch.dtype) -> tuple[int | None, int]:
    """Bytes of a full state, or None, and bytes a token while it grows."""
    model = model.to(dtype).eval()
    sizes = []
    for length in (keys, 4 * keys):
        state = State(torch.zeros(1, dtype=torch.long), ())
        for block in model.blocks():
            attention = block.attention
            carried = attention.begin(1, attention.q.weight)
            places, _ = Places.of(torch.zeros(1, dtype=torch.long, device="meta"), length)
            shape = (1, attention.heads, length, attention.head_dim)
            k = torch.empty(shape, dtype=dtype, device="meta")
            x = torch.empty(1, length, attention.dim, dtype=dtype, device="meta")
            past = attention.memory.recall(carried, attention._project, None)
            slack = attention.pattern.segment - 1
            carried = attention.memory.write(carried, past, x, k, k, places, slack)
            state = State(state.next, (*state.layers, carried))
        sizes.append(state.nbytes)
    if sizes[0] == sizes[1]:
        return sizes[0], 0
    return None, (sizes[1] - sizes[0]) // (3 * keys)
