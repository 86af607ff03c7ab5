"""Texts of a form: what a prefix and a constraint leave is what the form allows, and all of it."""

from __future__ import annotations

import json
import re
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

import longspan
from longspan import Beam, Decoding, Draft, NoRepeat, Sample, Speculative, decode
from longspan.decoding.filters.prefix import Prefix
from longspan.decoding.generate import hypotheses
from longspan.decoding.search import Filter
from longspan.errors import ConfigError, DecodingError, InputError
from tests.decoding.table import Table

pytest.importorskip("llguidance", reason="the extra 'constraints' is not installed")

from longspan import Constraint

PIECES = [b"", b"a", b"b", b"c", b"ab", b"1", b"a1", b"\xc3", b"\xa4", b"bc"]
"""With several ways to spell a text, and characters in parts; the first ends a text."""
END = 0
TABLE, OTHER = Table.drawn(len(PIECES), 1, scale=1.0), Table.drawn(len(PIECES), 2, scale=1.0)
REGEX = r"(ab|c)+1?|ä{2}"


def given(*filters: Filter, **limits: Any) -> dict[str, Any]:
    decoding = Decoding(filters=filters, **limits)
    return {"decoding": decoding, "end": END, "piece": PIECES.__getitem__}


def texts(found: Any) -> list[bytes]:
    return [text.text(PIECES.__getitem__) for row in found for text in row]


def begins(content: bytes) -> bool:
    """Whether something that matches REGEX begins with these bytes, by trying."""
    rests = (b"".join(rest) for n in range(4) for rest in product(PIECES[1:], repeat=n))
    return any(matches(content + rest) for rest in rests)


def matches(content: bytes) -> bool:
    try:
        return re.fullmatch(REGEX, content.decode()) is not None
    except UnicodeDecodeError:
        return False


def test_what_may_come_next_is_what_leads_to_a_match() -> None:
    """Each token after each of many texts, by Python's own expressions."""
    acting = Constraint(regex=REGEX).begin(PIECES.__getitem__, END)
    seen = 0
    for length in range(3):
        every = product(range(1, len(PIECES)), repeat=length)
        ways = [w for w in every if begins(b"".join(PIECES[t] for t in w))]
        tokens = torch.tensor(ways, dtype=torch.int64).reshape(len(ways), length)
        left = acting(torch.zeros(len(ways), len(PIECES)), tokens) == 0
        for way, row in zip(ways, left.tolist(), strict=True):
            content = b"".join(PIECES[t] for t in way)
            want = [matches(content), *(begins(content + piece) for piece in PIECES[1:])]
            assert row == want, content
            seen += 1
    assert seen > 15


STRATEGIES = {"sample": Sample(), "beam": Beam(beams=4, n_best=4), "speculative": Speculative()}


@pytest.mark.parametrize("name", STRATEGIES)
def test_texts_match(name: str) -> None:
    strategy = STRATEGIES[name]
    how = given(Constraint(regex=REGEX), strategy=strategy, max_tokens=12, seed=1)
    if name == "speculative":
        how["draft"] = Draft(OTHER)
    prompts = [[1], [2, 3], [7, 0, 4]] * (1 if name == "beam" else 20)
    found = decode(TABLE, prompts, **how)
    ended = [text for row in found for text in row if text.finish == "end"]
    assert len(ended) >= 3
    assert all(matches(content) for content in texts([ended]))
    assert len(set(texts([ended]))) > 2
    for row in found:
        for text in row:
            assert text.finish == "end" or begins(text.text(PIECES.__getitem__))


def test_a_constrained_beam_finds_the_likeliest_text_of_the_form() -> None:
    """Against all texts of up to four tokens."""
    best, chance = (), -torch.inf
    for length in range(1, 4):
        for way in product(range(1, len(PIECES)), repeat=length):
            if re.fullmatch(rb"[ab]{2,3}1", b"".join(PIECES[t] for t in way)):
                text, total = [1, *way], 0.0
                for place, token in enumerate([*way, END]):
                    total += float(TABLE.after(text[: place + 1]).log_softmax(-1)[token])
                best, chance = max((best, chance), (way, total), key=lambda each: each[1])
    how = given(
        Constraint(regex="[ab]{2,3}1"),
        strategy=Beam(beams=60, length_penalty=0.0, early_stopping="never"),
        max_tokens=4,
    )
    ((found,),) = decode(TABLE, [[1]], **how)
    assert (found.tokens, found.finish) == (best, "end")
    assert found.score == pytest.approx(chance, abs=1e-5)


def test_json_of_a_schema(trained: Path) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"enum": ["x", "yz"]}, "ok": {"type": "boolean"}},
        "required": ["name", "ok"],
        "additionalProperties": False,
        # a model that knows nothing would write spaces for ever
        "x-guidance": {"whitespace_flexible": False},
    }
    run = longspan.load(trained, device="cpu")
    constraint = Constraint(schema=json.dumps(schema))
    for seed in range(3):
        how = Decoding(strategy=Sample(), filters=(constraint,), max_tokens=120, seed=seed)
        (found,) = hypotheses(run, "a prompt that is no JSON", decoding=how)
        if found.finish == "end":
            content = json.loads(found.text(run.tokenizer.piece))
            assert content["name"] in ("x", "yz")
            assert isinstance(content["ok"], bool)
            assert len(content) == 2
            break
    else:
        pytest.fail("no text was finished")


@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)
def test_a_text_begins_with_its_prefix_and_goes_on(strategy: Any) -> None:
    prompts = [[1], [2, 3]] * (1 if isinstance(strategy, Beam) else 20)
    how = given(Prefix("abcä1a"), strategy=strategy, max_tokens=14, min_tokens=9, seed=2)
    if isinstance(strategy, Speculative):
        how["draft"] = Draft(OTHER)
    found = decode(TABLE, prompts, **how)
    assert all(content.startswith("abcä1a".encode()) for content in texts(found))
    assert len({text.tokens for row in found for text in row}) > 2


def test_every_way_to_spell_a_prefix_is_open() -> None:
    acting = Prefix("abc").begin(PIECES.__getitem__, END)

    def after(*tokens: int) -> set[bytes]:
        logits = acting(torch.zeros(1, len(PIECES)), torch.tensor([[-1, -1, *tokens]]))
        return {PIECES[t] for t in (logits[0] == 0).nonzero()[:, 0].tolist()}

    assert after() == {b"a", b"ab"}
    assert after(1) == {b"b", b"bc"}
    assert after(4) == {b"c"}
    assert after(1, 9) == after(4, 3) == set(PIECES)
    # a token may say more than the end of a prefix
    beyond = Prefix("cb").begin(PIECES.__getitem__, END)
    logits = beyond(torch.zeros(1, len(PIECES)), torch.tensor([[3]]))
    assert {PIECES[t] for t in (logits[0] == 0).nonzero()[:, 0].tolist()} == {b"b", b"bc"}


def test_a_dead_end_is_not_entered() -> None:
    """`ab` is spelt by one token and by none other: what begins otherwise never gets on."""
    pieces = [b"", b"a", b"ab", b"d"]
    acting = Prefix("abd").begin(pieces.__getitem__, END)
    logits = acting(torch.zeros(1, 4), torch.zeros(1, 0, dtype=torch.int64))
    assert (logits[0] == 0).tolist() == [False, False, True, False]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "a constraint is a regex or a schema, one of them"),
        ({"regex": "a", "schema": "{}"}, "one of them"),
        ({"regex": "(ab"}, "constraint.regex cannot be followed: .*unclosed group"),
        ({"schema": "{no"}, "constraint.schema is not JSON"),
        ({"schema": '{"type": "objct"}'}, "constraint.schema cannot be followed: .*objct"),
    ],
)
def test_a_bad_constraint_is_refused_when_it_is_made(settings: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        Constraint(**settings)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_met_is_said() -> None:
    with pytest.raises(DecodingError, match="no token of the vocabulary can begin"):
        decode(TABLE, [[1]], **given(Constraint(regex="x+")))
    with pytest.raises(DecodingError, match=r"row 0 after 1 tokens: nothing may come.*constraint"):
        decode(TABLE, [[1]], **given(Constraint(regex="cz")))
    with pytest.raises(DecodingError, match="row 0: every beam came to where nothing may come"):
        decode(TABLE, [[1]], **given(Constraint(regex="cz"), strategy=Beam()))
    with pytest.raises(DecodingError, match="no_repeat bans"):
        decode(TABLE, [[1]], **given(Constraint(regex="c{9}"), NoRepeat(1)))
    with pytest.raises(DecodingError, match="no tokens of the vocabulary spell the prefix 'ax'"):
        decode(TABLE, [[1]], **given(Prefix("ax")))
    with pytest.raises(ConfigError, match="prefix must not be empty"):
        Prefix("")
    for each in (Prefix("a"), Constraint(regex="a")):
        with pytest.raises(InputError, match="needs the bytes of a token"):
            decode(TABLE, [[1]], decoding=Decoding(filters=(each,)), end=END)
    # a text that its length ends says so
    ((short,),) = decode(TABLE, [[1]], **given(Constraint(regex="c{9}"), max_tokens=4))
    assert (short.tokens, short.finish) == ((3,) * 4, "length")
