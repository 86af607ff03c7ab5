"""Transformer-XL a second time, from the paper alone (1901.02860), as slowly as it reads.

No state, no memory, no batches of anything: the whole document at once, and one number after
another. Yesterday's hidden states are whatever the layer below gave at those positions, and the
rule of who sees whom is its definition:

    T ⌊q / T⌋ - M ≤ k ≤ q          (section 3.2, with segments of T and a memory of M tokens)

Section 3.3 and appendix B give the score of a query i and a key j,

    q_i · W_kE h_j  +  q_i · W_kR R_(i-j)  +  u · W_kE h_j  +  v · W_kR R_(i-j),

over √d as in 1706.03762, and the layer: attention, residual, norm, feed-forward, residual, norm.
Weights are taken by the names that longspan's `Decoder` gives them, and nothing else of it is used.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Weights = Mapping[str, Tensor]
Document = list[Tensor]
"""A hidden state (C,) for each position."""


@dataclass(frozen=True)
class Naive:
    """Transformer-XL on one document.

    Attributes:
        layers, heads, width: L, H and C.
        segment, memory: T and M.
        clamp: distances beyond it count as it.
        pre_norm: norms before the sublayers instead of after the residuals, and one at the end.
    """

    layers: int
    heads: int
    width: int
    segment: int
    memory: int
    clamp: int | None = None
    pre_norm: bool = False

    def logits(self, weights: Weights, tokens: list[int]) -> Tensor:
        """(T, V), the token after each token; differentiable throughout."""
        hidden = self.embed(weights, tokens)
        for layer in range(self.layers):
            everything = range(len(tokens))
            hidden = self.layer(weights, layer, hidden, everything, hidden)
        return torch.stack([self.head(weights, h) for h in hidden])

    def trained(self, weights: Weights, tokens: list[int]) -> Tensor:
        """As `logits`, but no gradient passes from one segment to the one before it.

        What a segment reads of the ones before is what the same weights make of them, taken as
        given: SG(·) of section 3.2. Today's projections of it are differentiated.
        """
        answers: Document = []
        with torch.no_grad():
            given = [self.embed(weights, tokens)]
            for layer in range(self.layers):
                everything = range(len(tokens))
                given.append(self.layer(weights, layer, given[-1], everything, given[-1]))
        for start in range(0, len(tokens), self.segment):
            today = range(start, min(start + self.segment, len(tokens)))
            hidden = self.embed(weights, [tokens[i] for i in today])
            for layer in range(self.layers):
                readable = given[layer][:start] + hidden
                hidden = self.layer(weights, layer, readable, today, hidden)
            answers += [self.head(weights, h) for h in hidden]
        return torch.stack(answers)

    def embed(self, weights: Weights, tokens: list[int]) -> Document:
        """Rows of the table times √C (1706.03762, section 3.4)."""
        table = weights["embedding.tables.0"]
        return [table[token] * math.sqrt(self.width) for token in tokens]

    def head(self, weights: Weights, h: Tensor) -> Tensor:
        """(V,) scores of the next token."""
        if self.pre_norm:
            h = norm(weights, "norm", h)
        rows, biases = weights["head.tables.0"], weights["head.bias"]
        return torch.stack([row @ h + bias for row, bias in zip(rows, biases, strict=True)])

    def layer(
        self, weights: Weights, layer: int, readable: Document, queries: range, own: Document
    ) -> Document:
        """One layer's answers for the positions `queries`, whose hidden states are `own`.

        Args:
            readable: hidden states from position 0 on, as queries may read them.
        """
        name = f"layers.{layer}"
        first = f"{name}.mixer.norm" if self.pre_norm else f"{name}.mixer_norm"
        second = f"{name}.feed_forward_norm"
        answers = []
        if self.pre_norm:
            readable = [norm(weights, first, h) for h in readable]
        for position, h in zip(queries, own, strict=True):
            attended = self.attend(weights, f"{name}.mixer", readable, position)
            if self.pre_norm:
                h = h + attended
                h = h + feed_forward(weights, f"{name}.feed_forward", norm(weights, second, h))
            else:
                h = norm(weights, first, h + attended)
                h = norm(weights, second, h + feed_forward(weights, f"{name}.feed_forward", h))
            answers.append(h)
        return answers

    def attend(self, weights: Weights, name: str, readable: Document, i: int) -> Tensor:
        """What the query at position i gathers from those that it may see."""
        earliest = max(0, self.segment * (i // self.segment) - self.memory)
        w_q, w_k, w_v = (weights[f"{name}.{part}.weight"] for part in "qkv")
        w_r = weights[f"{name}.order.r.weight"]
        u, v = weights[f"{name}.order.u"], weights[f"{name}.order.v"]
        size = w_q.shape[0] // self.heads
        gathered = []
        for head in range(self.heads):
            rows = slice(head * size, (head + 1) * size)
            query = w_q[rows] @ readable[i]
            scores = []
            for j in range(earliest, i + 1):
                key = w_k[rows] @ readable[j]
                place = w_r[rows] @ self.sinusoid(i - j, readable[i])
                content = query @ key + u[head] @ key
                scores.append((content + query @ place + v[head] @ place) / math.sqrt(size))
            shares = [score.exp() for score in scores]
            whole = sum(shares)
            mixed = torch.zeros_like(query)
            for j, share in zip(range(earliest, i + 1), shares, strict=True):
                mixed = mixed + share / whole * (w_v[rows] @ readable[j])
            gathered.append(mixed)
        return weights[f"{name}.o.weight"] @ torch.cat(gathered)

    def sinusoid(self, distance: int, like: Tensor) -> Tensor:
        """R: sines, then cosines, of the distance at C / 2 wavelengths."""
        if self.clamp is not None:
            distance = min(distance, self.clamp)
        angles = [distance / 10000 ** (2 * i / self.width) for i in range(self.width // 2)]
        waves = [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
        return torch.tensor(waves, dtype=like.dtype)


def norm(weights: Weights, name: str, h: Tensor) -> Tensor:
    """Layer normalisation (1607.06450)."""
    mean = h.mean()
    variance = ((h - mean) ** 2).mean()
    return (h - mean) / (variance + 1e-5).sqrt() * weights[f"{name}.weight"] + weights[
        f"{name}.bias"
    ]


def feed_forward(weights: Weights, name: str, h: Tensor) -> Tensor:
    """max(0, x W1 + b1) W2 + b2 (1706.03762, equation 2)."""
    inner = weights[f"{name}.inner.weight"] @ h + weights[f"{name}.inner.bias"]
    return weights[f"{name}.outer.weight"] @ inner.clamp(min=0) + weights[f"{name}.outer.bias"]
