"""Surprisal of an unbounded stream, in constant memory.

The stream is computed in blocks of a fixed length. What has arrived of a block is scored at once,
padded to the full length, and computed again when more arrives; the memory advances by whole
blocks only. So every number is computed in the same shapes wherever the input was cut, and a
stream that is stopped and picked up gives bit for bit what one unbroken stream gives.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

import torch

from longspan.errors import InputError, StateError
from longspan.state import State
from longspan.training.run import Run

CHUNK = 1 << 12
"""Bytes asked for at a time from a file; a pipe gives what it has. Few, so that what was read is
soon scored; a multiple of the block, so that it is not computed twice."""


@dataclass(frozen=True)
class Surprise:
    """One token of a stream.

    Attributes:
        position: how many tokens came before it.
        token: its number in the vocabulary.
        bytes: what it stands for.
        bits: -log2 of the probability that the model gave it.
    """

    position: int
    token: int
    bytes: bytes
    bits: float

    def __iter__(self) -> Iterator[int | float]:
        """Unpacks as `token, bits`."""
        return iter((self.token, self.bits))


class Stream:
    """A stream in progress.

    Attributes:
        state: the model's memory at the last block boundary.
        tail: tokens of the block since then; its first is known, its later ones are scored.
        pending: bytes that are not a token yet.
        position: tokens scored so far.
    """

    def __init__(self, run: Run) -> None:
        segment = run.language_model.config.segment
        # blocks that end where segments end need no slots for an unfinished one
        self.block = segment if 64 <= segment <= 512 else 256
        self.run = run
        self.state = run.language_model.start(1)
        self.tail = [run.tokenizer.start]
        self.pending = b""
        self.position = 0

    def feed(self, data: bytes, *, final: bool = False) -> Iterator[Surprise]:
        """Scores what `data` completes.

        Args:
            data: the next bytes, cut anywhere.
            final: nothing follows: what is pending is a token too.
        """
        ids, self.pending = self.run.tokenizer.feed(self.pending, data, final)
        return self.feed_tokens(ids)

    def feed_tokens(self, ids: Iterable[int]) -> Iterator[Surprise]:
        """Scores tokens that were made elsewhere."""
        scored = len(self.tail) - 1
        for token in ids:
            if not 0 <= token < self.run.language_model.size:
                raise InputError(
                    f"token {token} is outside 0 .. {self.run.language_model.size - 1}"
                )
            self.tail.append(token)
            if len(self.tail) == self.block + 1:
                yield from self._score(scored)
                scored = 0
        if len(self.tail) - 1 > scored:
            yield from self._score(scored)

    @torch.no_grad()
    def _score(self, scored: int) -> Iterator[Surprise]:
        """Computes the block; yields what came after the `scored` tokens that were known."""
        model, size = self.run.language_model, len(self.tail) - 1
        padded = self.tail + [0] * (self.block - size)
        row = torch.tensor(padded, device=model.head.bias.device)
        h, state = model.hidden(row[None, :-1], self.state)
        nats = model.head.nll(h[0], row[1:])[scored:size].tolist()
        steps = []
        for token, value in zip(self.tail[scored + 1 :], nats, strict=True):
            piece = self.run.tokenizer.piece(token)
            steps.append(Surprise(self.position, token, piece, value / math.log(2)))
            self.position += 1
        if size == self.block:
            self.state, self.tail = state, self.tail[-1:]
        yield from steps

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes all that the continuation needs, the text not yet tokenised included."""
        about = {
            "run": self.run.fingerprint,
            "tail": self.tail,
            "pending": self.pending.hex(),
            "position": self.position,
            "dtype": str(self.run.language_model.head.bias.dtype),
        }
        self.state.save(path, about)

    @staticmethod
    def load(run: Run, path: str | os.PathLike[str]) -> Stream:
        """Picks up what `save` wrote.

        Raises:
            StateError: it is damaged, or another run's.
        """
        about = State.about(path)
        if about.get("run") != run.fingerprint:
            raise StateError(
                f"{path} is the state of another run (or of other weights of this one); "
                "use its own file, or a new one"
            )
        dtype = str(run.language_model.head.bias.dtype)
        if about["dtype"] != dtype:
            raise StateError(
                f"{path} was computed in {about['dtype'].removeprefix('torch.')}, not "
                f"{dtype.removeprefix('torch.')}; use the same --dtype"
            )
        stream = Stream(run)
        stream.state = State.load(path).to(run.language_model.head.bias.device)
        stream.tail, stream.position = about["tail"], about["position"]
        stream.pending = bytes.fromhex(about["pending"])
        return stream


def stream(run: Run, source: bytes | str | BinaryIO | Iterable[int]) -> Iterator[Surprise]:
    """Token after token of `source` with its surprisal in bits.

        for token, bits in longspan.stream(run, open("app.log", "rb")): ...

    Args:
        run: a loaded run.
        source: bytes, a text, a binary file (read as it comes) or token numbers.
    """
    state = Stream(run)
    if isinstance(source, str):
        source = source.encode()
    if isinstance(source, bytes):
        yield from state.feed(source, final=True)
    elif isinstance(read := getattr(source, "read1", getattr(source, "read", None)), Callable):
        # a pipe's read1 gives what there is instead of waiting for a full chunk
        while data := read(CHUNK):
            yield from state.feed(data)
        yield from state.feed(b"", final=True)
    else:
        yield from state.feed_tokens(int(token) for token in source)
