"""Generation token by token, with the memory as the only context."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from longspan.decoding.sampling import Sampling
from longspan.errors import ConfigError
from longspan.training.run import Run


@dataclass(frozen=True)
class Token:
    """One token of a text.

    Attributes:
        token: its number in the vocabulary.
        bytes: what it stands for.
        bits: its surprisal under the model (before temperature and filters).
        prompt: it was given, not generated.
    """

    token: int
    bytes: bytes
    bits: float
    prompt: bool = False


@torch.no_grad()
def tokens(
    run: Run,
    prompt: str = "",
    *,
    max_tokens: int = 200,
    sampling: Sampling | None = None,
    seed: int | None = None,
    echo: bool = False,
) -> Iterator[Token]:
    """Generates tokens as they come, until `max_tokens` or the end of the document.

    Args:
        run: a loaded run.
        prompt: what the text begins with.
        max_tokens: at most so many are generated.
        sampling: how a token is drawn.
        seed: of the draws; None takes one at random.
        echo: yield the prompt's tokens too, with their surprisal.

    Raises:
        InputError: the prompt has something that the vocabulary does not.
    """
    if max_tokens < 0:
        raise ConfigError(f"max_tokens must be 0 or more, not {max_tokens}")
    sampling = sampling or Sampling()
    model, codec = run.language_model, run.tokenizer
    device = model.head.bias.device
    generator = torch.Generator(device)
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    given = codec.prompt(prompt).tolist()
    inputs = torch.tensor([[codec.start, *given]], device=device)
    h, state = model.hidden(inputs)
    if echo and given:
        nll = model.head.nll(h[0, :-1], inputs[0, 1:])
        for token, nats in zip(given, nll.tolist(), strict=True):
            yield Token(token, codec.piece(token), nats / math.log(2), prompt=True)
    logits = model.head(h[:, -1:])[:, -1]
    for _ in range(max_tokens):
        token = sampling.draw(logits, generator)
        number = int(token)
        if number == codec.start:
            return
        bits = -float(logits.float().log_softmax(-1)[0, number]) / math.log(2)
        yield Token(number, codec.piece(number), bits)
        logits, state = model(token[:, None], state)
        logits = logits[:, -1]


def generate(
    run: Run,
    prompt: str = "",
    *,
    max_tokens: int = 200,
    greedy: bool = False,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int | None = None,
) -> str:
    """The continuation of `prompt`, without the prompt.

        longspan.generate(run, "def main(", max_tokens=200, top_p=0.9, seed=1)

    Bytes that are no UTF-8 come out as the replacement character.

    Raises:
        ConfigError: a setting out of range.
        InputError: the prompt has something that the vocabulary does not.
    """
    sampling = Sampling(greedy=greedy, temperature=temperature, top_k=top_k, top_p=top_p)
    steps = tokens(run, prompt, max_tokens=max_tokens, sampling=sampling, seed=seed)
    content = run.tokenizer.gap(prompt) + run.tokenizer.decode([step.token for step in steps])
    return content.decode("utf-8", errors="replace")
