"""Only texts of a form: a regular expression, or JSON of a schema, by llguidance.

llguidance says which tokens may follow the bytes that are written, and whether the text may end
there: the end token is banned before. What it is told of a vocabulary are the bytes of each token,
so that every tokenizer will do. A text that ends by its length may be unfinished: its `finish` is
"length". Its expressions are those of Rust's regex crate; of JSON schemas it says what it does not
know.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from longspan.decoding.search import NOTHING, Acting, Filter, Pieces
from longspan.errors import ConfigError, DecodingError, InputError


@dataclass(frozen=True, kw_only=True)
class Constraint(Filter, name="constraint"):
    """Bans what leads out of the form.

    Attributes:
        regex: an expression that the whole text must match; None for none.
        schema: a JSON schema, as JSON, that the text must be an instance of; None for none.
    """

    alone: ClassVar[bool] = True

    regex: str | None = None
    schema: str | None = None

    def __post_init__(self) -> None:
        if (self.regex is None) == (self.schema is None):
            raise ConfigError("a constraint is a regex or a schema, one of them")
        if self.schema is not None:
            try:
                json.loads(self.schema)
            except ValueError as error:
                raise ConfigError(f"constraint.schema is not JSON: {error}") from error
        said = _library().LLMatcher.validate_grammar(self._grammar())
        if said and not said.startswith("WARNING"):
            what = "schema" if self.regex is None else "regex"
            raise ConfigError(f"constraint.{what} cannot be followed: {' '.join(said.split())}")

    def _grammar(self) -> str:
        matcher = _library().LLMatcher
        if self.regex is None:
            return matcher.grammar_from_json_schema(self.schema)
        return matcher.grammar_from_regex(self.regex)

    def begin(self, pieces: Pieces | None, end: int | None) -> Acting:
        if pieces is None or end is None:
            raise InputError(
                "a constraint needs the bytes of a token and one that ends a text: "
                "piece=codec.piece, end=codec.start"
            )
        return _Following(self._grammar(), pieces, end)

    def __call__(self, logits: Tensor, tokens: Tensor) -> Tensor:
        raise NotImplementedError("it acts on bytes: `begin` gives what acts")


class _Following:
    """What follows the rows of one search.

    Attributes:
        matchers: after each text of this call and the one before, so that a row goes on from where
            it was, whichever beam it continues.
    """

    def __init__(self, grammar: str, piece: Pieces, end: int) -> None:
        self.grammar, self.piece, self.end = grammar, piece, end
        self.first: Any = None
        self.matchers: dict[tuple[int, ...], Any] = {}
        self.before: dict[tuple[int, ...], Any] = {}

    def __call__(self, logits: Tensor, tokens: Tensor) -> Tensor:
        if self.first is None:
            self._begin(logits.shape[-1])
        self.before, self.matchers = self.matchers, {}
        rows = [tuple(t for t in row if t != NOTHING) for row in tokens.tolist()]
        masks: dict[tuple[int, ...], Tensor] = {}
        for text in rows:
            if text not in masks:
                self.matchers[text] = self._after(text)
                masks[text] = _allowed(self.matchers[text], logits.shape[-1])
        allowed = torch.stack([masks[text] for text in rows]).to(logits.device)
        return logits.masked_fill(~allowed, -torch.inf)

    def _begin(self, size: int) -> None:
        library = _library()
        pieces = [self.piece(token) for token in range(size)]
        vocabulary = library.LLTokenizer(library.TokenizerWrapper(_Vocabulary(pieces, self.end)))
        self.first = library.LLMatcher(vocabulary, self.grammar, log_level=0)
        if not bool(_allowed(self.first, size).any()):
            raise DecodingError(
                "no token of the vocabulary can begin what the constraint asks for; ask for "
                "something that its bytes can spell"
            )

    def _after(self, text: tuple[int, ...]) -> Any:
        """A matcher that has read a text, in as few steps as what is known allows."""
        for known in (self.matchers, self.before):
            if text in known:
                return known[text]
            if text[:-1] in known:
                matcher = known[text[:-1]].deep_copy()
                matcher.consume_token(text[-1])
                return matcher
        matcher = self.first.deep_copy()
        matcher.consume_tokens(list(text))
        return matcher


def _allowed(matcher: Any, size: int) -> Tensor:
    """(V,) bool, what may come next; nothing where there is no way on."""
    mask = torch.frombuffer(bytearray(matcher.compute_logit_bias()), dtype=torch.uint8) > 0
    # with no way on it would end the text, and say that this is an error
    return torch.zeros(size, dtype=torch.bool) if matcher.is_error() else mask[:size]


class _Vocabulary:
    """The vocabulary as llguidance asks for it."""

    def __init__(self, pieces: Sequence[bytes], end: int) -> None:
        self.tokens = pieces
        self.eos_token_id, self.bos_token_id, self.special_token_ids = end, None, [end]
        self.known = {piece: token for token, piece in enumerate(pieces) if piece}
        self.longest = max(map(len, self.known), default=0)

    def __call__(self, text: bytes) -> list[int]:
        """Tokens of a text, the longest that fits each time, as far as they can spell it."""
        found, place = [], 0
        while place < len(text):
            fits = (
                (token, length)
                for length in range(min(self.longest, len(text) - place), 0, -1)
                if (token := self.known.get(text[place : place + length])) is not None
            )
            token, length = next(fits, (None, 0))
            if token is None:
                break
            found.append(token)
            place += length
        return found


def _library() -> Any:
    try:
        import llguidance
    except ImportError as error:
        raise ConfigError(
            "a constraint needs llguidance; pip install 'longspan[constraints]'"
        ) from error
    return llguidance
