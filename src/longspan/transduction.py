"""What tasks have in common that read one sequence and write another about it.

    translation, summarization, answering in words

They differ in how what is written is scored (`Transduction.judge`). The model is an encoder and a
decoder (`model.encoder`, `model.decoder`), or a decoder alone that reads the source before it
writes, with whatever memory it carries.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from longspan.data.pairs.batches import Batches, PairBatch
from longspan.data.pairs.config import PairsConfig
from longspan.data.pairs.corpus import Pairs
from longspan.data.pairs.corpus import read as read_pairs
from longspan.data.pairs.prepared import PairSplits, prepare
from longspan.data.tokenizer import Codec
from longspan.decoding.decode import Decoding, decode
from longspan.decoding.hypothesis import Hypothesis
from longspan.decoding.strategies.beam import Beam
from longspan.decoding.strategies.greedy import Greedy
from longspan.errors import ConfigError, Conflict, DataError, DivergedError, InputError
from longspan.models.decoder import DecoderConfig
from longspan.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from longspan.models.prefix import Prefix
from longspan.models.stepping import prepared
from longspan.start import StartConfig
from longspan.state import State
from longspan.task import (
    Answering,
    Asked,
    Lesson,
    Lessons,
    Material,
    Reply,
    Scores,
    batched,
    device_of,
    smoothed,
)
from longspan.training.config import TrainConfig

Transducer = EncoderDecoder | Prefix
TransducerConfig = EncoderDecoderConfig | DecoderConfig

ROWS = 64
"""Sources that are read and written about at once."""


@dataclass(frozen=True)
class Transduction(Answering):
    """Reads one sequence and writes another.

    Attributes:
        decode: how texts are written where they are evaluated or asked for. In training, held-out
            texts are written greedily.
    """

    begins: ClassVar[bool] = False

    decode: Decoding = field(default_factory=lambda: Decoding(strategy=Beam(beams=4)))

    @abstractmethod
    def judge(self, texts: Sequence[str], references: Sequence[Sequence[str]]) -> Scores:
        """How good texts are, by name; the first score chooses the best checkpoint.

        Args:
            texts: one a source.
            references: of each source one or more.
        """

    @property
    def data(self) -> type[Any]:
        return PairsConfig

    def model(self, tree: Any) -> type[Any]:
        both = isinstance(tree, Mapping) and {"encoder", "cross", "shared", "pointer"} & set(tree)
        return EncoderDecoderConfig if both else DecoderConfig

    def batches(self, model: TransducerConfig, train: TrainConfig) -> str:
        return f"batches of {train.tokens} tokens"

    def sparing(self, model: TransducerConfig, train: TrainConfig) -> str:
        return (
            f"train.tokens (now {train.tokens}; train.accumulate makes up for it) or the model's "
            "width"
        )

    def conflicts(
        self, data: PairsConfig, model: TransducerConfig, train: TrainConfig
    ) -> list[Conflict]:
        found = batched(self, train)
        decoder = model.decoder if isinstance(model, EncoderDecoderConfig) else model
        if train.smoothing and decoder.vocabulary.cutoffs:
            found.append(smoothed(train.smoothing))
        return found

    def prepare(self, data: PairsConfig, codec: Codec | None = None) -> PairSplits:
        return prepare(data, codec)

    def build(self, model: TransducerConfig, codec: Codec) -> Transducer:
        if isinstance(model, EncoderDecoderConfig):
            return EncoderDecoder(model, codec.size, codec.size)
        return Prefix(model, codec.size)

    def started(self, tree: Any, start: StartConfig) -> Any:
        return start.both_tree(tree)

    def differing(self, model: EncoderDecoderConfig, start: StartConfig) -> list[str]:
        return start.both_problems(model)

    def begin(self, model: EncoderDecoder, start: StartConfig) -> None:
        start.begin_both(model)

    def lessons(
        self, material: Material, data: PairsConfig, model: TransducerConfig, train: TrainConfig
    ) -> Lessons:
        assert train.tokens is not None
        for part in (material.train, material.valid):
            _refuse_longer(part, model)
        return _Pairs(Batches(material.train, train.tokens, train.seed), train.smoothing)

    def score(self, model: Any, held_out: Pairs, codec: Codec, tokens: int) -> Scores:
        if not len(held_out):
            return {}
        count = len(held_out)
        if tokens:
            ends = held_out.lengths.sum(1).cumsum()
            count = max(1, int(np.searchsorted(ends, tokens, "right")))
        part = self.first(held_out, count)
        # twice the longest is enough to see that a text does not end
        longest = min(self.decode.max_tokens, 2 * int(part.lengths[:, 1].max()) + 10)
        decoding = Decoding(strategy=Greedy(), max_tokens=longest)
        return replace(self, decode=decoding).examine(model, part, codec)[0]

    def examine(
        self,
        model: Transducer,
        records: Pairs,
        codec: Codec,
        advance: Callable[[int], None] | None = None,
    ) -> tuple[Scores, list[list[Reply]]]:
        read = [records.source(index) for index in range(len(records))]
        found = write(model, read, codec, self.decode, names=records.name, advance=advance)
        replies = [self._replies(texts, codec) for texts in found]
        scores = self.judge([best.text for best, *_ in replies], self.references(records))
        return {**scores, "bits_per_token": likelihood(model, records)}, replies

    def references(self, records: Pairs) -> Sequence[Sequence[str]]:
        assert records.references is not None
        return records.references

    def first(self, records: Pairs, count: int) -> Pairs:
        return records.select(np.arange(min(count, len(records))))

    def read(self, data: PairsConfig, paths: Sequence[str], codec: Codec) -> Pairs:
        if len(paths) > 2:
            raise ConfigError(f"name one table, or two parallel text files, not {len(paths)} files")
        location = paths[0] if len(paths) == 1 else (paths[0], paths[1])
        return read_pairs(location, codec, data.source, data.target, data.separator)

    def fields(self, data: PairsConfig) -> Sequence[str]:
        return data.fields

    def reply(
        self,
        model: Transducer,
        asked: Sequence[Asked],
        data: PairsConfig,
        codec: Codec,
        *,
        alternatives: int = 0,
        advance: Callable[[int], None] | None = None,
    ) -> list[list[Reply]]:
        found = write(
            model,
            [_prompt(codec, data.separator.join(each.texts)) for each in asked],
            codec,
            self.decode,
            alternatives=alternatives,
            names=lambda index: asked[index].place,
            advance=advance,
        )
        return [self._replies(texts, codec) for texts in found]

    def _replies(self, found: Sequence[Hypothesis], codec: Codec) -> list[Reply]:
        return [
            Reply(each.text(codec.piece).decode("utf-8", "replace").strip(), each.score, each)
            for each in found
        ]


def _prompt(codec: Codec, text: str) -> NDArray[np.int64]:
    ids = codec.prompt(text)
    # symbols make no text of what has none
    return codec.source(ids) if len(ids) else ids


@dataclass(frozen=True)
class _Pairs(Lessons):
    batches: Batches
    smoothing: float

    def at(self, model: Any, call: int, state: State | None) -> Lesson:
        batch = self.batches.at(call)
        losses = _losses(model, batch, self.smoothing)
        rows = batch.records[batch.target_valid.nonzero()[:, 0]]

        def where(bad: Sequence[int]) -> str:
            return self.batches.pairs.name(int(rows[bad[0]]))

        read_too = int(batch.source_valid.sum())
        return Lesson(losses, len(losses) + read_too, None, where)


def _losses(model: Transducer, batch: PairBatch, smoothing: float = 0.0) -> Tensor:
    """Negative log-likelihood (N,) in nats of the N tokens of the targets."""
    device = device_of(model)
    return model.nll(
        batch.source.to(device),
        batch.inputs.to(device),
        batch.targets.to(device),
        source_valid=_ragged(batch.source_valid, device),
        valid=_ragged(batch.target_valid, device),
        smoothing=smoothing,
    )


def _ragged(valid: Tensor, device: torch.device) -> Tensor | None:
    return None if bool(valid.all()) else valid.to(device)


@torch.no_grad()
def likelihood(model: Transducer, pairs: Pairs) -> float:
    """Bits per token of the targets, the end of each among them.

    Raises:
        DivergedError: one is no number.
    """
    batches = Batches(pairs, max(4096, int(pairs.lengths.max()) + 1))
    nats, count = 0.0, 0
    for step in range(batches.epoch):
        losses = _losses(model, batches.at(step))
        nats += float(losses.double().sum())
        count += len(losses)
    if not np.isfinite(nats):
        raise DivergedError("the loss of held-out pairs is no number")
    return nats / count / float(np.log(2))


def write(
    model: Transducer,
    sources: Sequence[Any],
    codec: Codec,
    decoding: Decoding,
    *,
    alternatives: int = 0,
    names: Callable[[int], str] = lambda index: f"source {index + 1}",
    advance: Callable[[int], None] | None = None,
) -> Iterator[list[Hypothesis]]:
    """What the model writes about each source, in their order; of each the best first.

    Sources of like length are read together; a row's text does not depend on its neighbours.

    Args:
        model: in evaluation mode.
        sources: ids of each.
        codec: the tokenizer.
        decoding: how.
        alternatives: tell so many candidates of each step.
        names: what errors call a source, counted from 0.
        advance: told how many are done.

    Raises:
        InputError: a source is empty, or longer than the model can take.
        DecodingError: nothing may come next.
    """
    _refuse(model, sources, names)
    found: list[list[Hypothesis]] = [[] for _ in sources]
    order = sorted(range(len(sources)), key=lambda index: len(sources[index]))
    # once, and not with every batch
    step = prepared(model.step, decoding.max_tokens)
    for low in range(0, len(order), ROWS):
        rows = order[low : low + ROWS]
        state = read(model, [sources[row] for row in rows])
        prompts = [[codec.start]] * len(rows)
        texts = decode(
            step,
            prompts,
            state,
            decoding=decoding,
            end=codec.start,
            piece=codec.piece,
            alternatives=alternatives,
        )
        for row, text in zip(rows, texts, strict=True):
            found[row] = text
        if advance is not None:
            advance(len(rows))
    yield from found


@torch.no_grad()
def read(model: Transducer, sources: Sequence[Any]) -> State:
    """The state after reading sources, ids of each."""
    longest = max(map(len, sources))
    tokens = torch.zeros(len(sources), longest, dtype=torch.long)
    lengths = torch.tensor([len(source) for source in sources])
    for row, source in zip(tokens, sources, strict=True):
        row[: len(source)] = torch.from_numpy(np.asarray(source, np.int64))
    valid, device = torch.arange(longest) < lengths[:, None], device_of(model)
    return model.encode(tokens.to(device), _ragged(valid, device))


def _refuse_longer(pairs: Pairs, model: TransducerConfig) -> None:
    """Before training rather than in it: pairs beyond the places of a model.

    Raises:
        DataError: one is; it is named.
    """
    if not isinstance(model, EncoderDecoderConfig) or not len(pairs):
        return
    sides = {"source": (model.encoder, 0), "target": (model.decoder, 1)}
    for column, (side, (config, more)) in enumerate(sides.items()):
        limit = config.position.limit
        lengths = pairs.lengths[:, column] + more  # the start symbol is read too
        worst = int(lengths.argmax())
        if limit is not None and lengths[worst] > limit:
            raise DataError(
                f"{pairs.name(worst)}: the {side} has {lengths[worst]} tokens, more than the "
                f"{limit} places of position='{config.position.name}'; give it more "
                "(position.length), or leave it out (data.longest does, in training)"
            )


def _refuse(model: Transducer, sources: Sequence[Any], names: Callable[[int], str]) -> None:
    config = model.config
    side = config.encoder if isinstance(config, EncoderDecoderConfig) else config
    limit = side.position.limit
    for index, source in enumerate(sources):
        if not len(source):
            raise InputError(f"{names(index)} is empty; leave it out")
        if limit is not None and len(source) > limit:
            raise InputError(
                f"{names(index)} has {len(source)} tokens, more than the {limit} places of "
                f"position='{side.position.name}'; split it, or train with a position without a "
                "limit and, where sources are long, with a window or a memory"
            )
