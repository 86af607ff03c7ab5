"""A run of longspan as the measures see it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from longspan.data import Codec
from longspan.errors import ConfigError
from longspan.measure.cost import cost
from longspan.measure.perplexity import remembered
from longspan.measure.reach.predictor import Predictor, Price, Seen
from longspan.mixers.softmax import Attention
from longspan.models.decoder import PIECE, Decoder
from longspan.slots import Places
from longspan.state import Carried, State
from longspan.training.run import Run


class RunPredictor(Predictor):
    """A decoder with its tokenizer.

    Args:
        name: what the report calls it.
        model: in evaluation mode.
        codec: its tokenizer.
        segment: tokens read at once where its pattern has no segments; None for 512.
    """

    def __init__(self, name: str, model: Decoder, codec: Codec, segment: int | None = None) -> None:
        self.name, self.model, self.codec = name, model, codec
        self.size, self.unit, self.vocabulary = model.size, codec.unit, codec.fingerprint
        own = model.config.segment
        self.segment = own if own > 1 else segment or min(PIECE, 512)
        carries = any(memory.carries for memory in model.config.memories) or model.config.own
        self.memory = remembered(model.config)[0] if carries else 0
        self.layers = len(model.layers)

    @staticmethod
    def of(run: Run) -> RunPredictor:
        """Of a loaded run.

        Raises:
            ConfigError: a run of no language model, or whose tokenizer is not its own.
        """
        model = run.language_model
        if run.tokenizer.size != model.size:
            raise ConfigError(
                f"{run.path}: the tokenizer has {run.tokenizer.size} tokens and the model "
                f"{model.size}: it is another run's; put back its own tokenizer.json"
            )
        trained = (run.config.get("train") or {}).get("segment")
        return RunPredictor(run.path.name, model, run.tokenizer, trained)

    def start(self, batch: int) -> State:
        return self.model.start(batch)

    def losses(self, inputs: Tensor, targets: Tensor, state: State) -> tuple[Tensor, State]:
        device = self.model.head.bias.device
        h, state = self._hidden(inputs.to(device), state)
        h = h[:, h.shape[1] - targets.shape[1] :]
        nats = self.model.head.nll(h.flatten(0, 1), targets.to(device).flatten())
        return nats.view(targets.shape), state

    def carried(self, state: State) -> tuple[Carried, ...]:
        return state.layers

    def carrying(self, state: State, carried: Sequence[Carried]) -> State:
        return replace(state, layers=tuple(carried))

    def remembering(self, tokens: int) -> RunPredictor | None:
        try:
            model = self.model.remembering(tokens)
        except ConfigError:
            return None
        return RunPredictor(self.name, model, self.codec, self.segment)

    def looks(self, inputs: Tensor, state: State, told: Callable[[Seen], None]) -> State:
        tokens = inputs.to(self.model.head.bias.device)
        if self.model.wrapping is not None or self.model.reads is not None:
            # its keys are no tokens of the text, or marked ones that see by maps of their own
            return self.model.hidden(tokens, state)[1]
        return self._each(tokens, state, told)[1]

    def _hidden(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        if _apart(state):
            return self._each(tokens, state)
        return self.model.hidden(tokens, state)

    def _each(
        self, tokens: Tensor, state: State, told: Callable[[Seen], None] | None = None
    ) -> tuple[Tensor, State]:
        """As `Decoder.hidden` of one piece, but layers share no pairs: they may hold other slots
        than one another.
        """
        model = self.model
        places, clock = Places.of(state.next, tokens.shape[1])
        last = state.last
        if model.reads is not None:
            places, last = places.reading(tokens, last, clock)
        x, after = model.placed(model.embedding(tokens), places), []
        for layer, (block, before) in enumerate(zip(model.blocks(), state.layers, strict=True)):
            pairs = block.mixer.pairs(before, places)
            if told is not None and isinstance(block.mixer, Attention) and pairs is not None:
                weights = block.mixer.weights(x, before, places, pairs)
                past = pairs.shape[1] - pairs.shape[0]
                told(Seen(layer, weights, pairs.q_pos, pairs.k_pos, past))
            x, carried = block(x, before, places, pairs)
            after.append(carried)
        h = x if model.norm is None else model.norm(x)
        return h, State(clock, tuple(after), state.sources, last)

    def embedding(self) -> nn.Module:
        return self.model.embedding

    def price(self, after: int) -> Price:
        told = cost(self.model.config, self.size, dtype=self.model.head.bias.dtype)
        state = self.start(1)
        with torch.no_grad():
            for low in range(0, after, self.segment):
                count = min(self.segment, after - low)
                device = self.model.head.bias.device
                zeros = torch.zeros(1, count, dtype=torch.long, device=device)
                _, state = self.model.hidden(zeros, state)
        return Price(told.parameters, told.flops, state.nbytes, after)


def _apart(state: State) -> bool:
    """Whether layers of one kind of memory hold slots at other positions, as one that was changed
    does.
    """
    first: dict[str, Tensor] = {}
    for carried in state.layers:
        pos = carried.tensors().get("pos")
        if pos is not None and not torch.equal(first.setdefault(carried.kind, pos), pos):
            return True
    return False
