"""Options of verbs that write text: how it is decoded."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from longspan.config import build, plain
from longspan.decoding.decode import Decoding
from longspan.decoding.search import Filter, Strategy
from longspan.errors import ConfigError

STRATEGY = (
    "beams",
    "groups",
    "diversity",
    "length_penalty",
    "early_stopping",
    "n_best",
    "coverage_penalty",
    "candidates",
    "alpha",
    "ahead",
)
"""Options that are settings of a strategy of that name."""

FILTERS = {
    "prefix": ("prefix", "text"),
    "regex": ("constraint", "regex"),
    "json_schema": ("constraint", "schema"),
    "repetition_penalty": ("repetition", "penalty"),
    "no_repeat": ("no_repeat", "size"),
    "temperature": ("temperature", "value"),
    "top_k": ("top_k", "k"),
    "top_p": ("top_p", "p"),
    "min_p": ("min_p", "p"),
    "typical": ("typical", "p"),
}
"""Filters by option, in the order in which they act: the component, and the field that is set."""

NEUTRAL = {"repetition_penalty": 1, "no_repeat": 0, "temperature": 1, "top_k": 0, "top_p": 1}
NEUTRAL |= {"min_p": 0, "typical": 1}
"""The value of each that means none."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class DecodingOptions:
    """How text is written.

    Parameters
    ----------
    strategy
        What chooses: sample draws, greedy takes the likeliest token, beam and diverse write on
        several texts at once and take the best, contrastive takes what is likely and new,
        speculative draws with a smaller run that writes ahead.
    greedy
        The same as --strategy greedy.
    beams
        Texts that beam and diverse write at once.
    groups
        Groups into which diverse divides its beams.
    diversity
        What a token counts less in diverse for each beam of an earlier group that took it.
    length_penalty
        Beams compare log-probabilities divided by the length to this power; above 0 favours long.
    early_stopping
        When beams are done: true, as soon as enough texts are complete; false, when the best
        unfinished one is no better; never, when it could not become better.
    n_best
        Texts of the beams to print, best first.
    coverage_penalty
        How much beam minds what a text has not looked at of its source.
    candidates
        Likeliest tokens of which contrastive takes one.
    alpha
        How much contrastive minds likeness to what is there, 0 to 1.
    ahead
        Tokens that speculative lets the smaller run write before they are checked.
    prefix
        The text begins with this.
    regex
        The whole text matches this regular expression.
    json_schema
        The text is JSON of the schema in this file.
    temperature
        Below 1 sharpens, above 1 flattens.
    top_k
        Draw from the k most probable; 0 for all.
    top_p
        Draw from the most probable that together reach p.
    min_p
        Draw from what is at least p times as probable as the most probable.
    typical
        Draw from what is nearest to the expected surprisal, until it reaches p.
    repetition_penalty
        Above 1 makes tokens less probable that the text has already.
    no_repeat
        No so many tokens in a row twice; 0 allows all.
    min_tokens
        Write at least so many.
    max_tokens
        Write at most so many.
    stop
        End before this text; may be given several times.
    seed
        The same seed draws the same text.
    """

    strategy: str | None = None
    greedy: Annotated[bool, Parameter(negative="")] = False
    beams: int | None = None
    groups: int | None = None
    diversity: float | None = None
    length_penalty: float | None = None
    early_stopping: Literal["true", "false", "never"] | None = None
    n_best: int | None = None
    coverage_penalty: float | None = None
    candidates: int | None = None
    alpha: float | None = None
    ahead: int | None = None
    prefix: str | None = None
    regex: str | None = None
    json_schema: Path | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical: float | None = None
    repetition_penalty: float | None = None
    no_repeat: int | None = None
    min_tokens: int | None = None
    max_tokens: int | None = None
    stop: Annotated[tuple[str, ...] | None, Parameter(negative="")] = None
    seed: int | None = None

    def over(self, base: Decoding) -> Decoding:
        """What `base` says, but for what the options say.

        Raises:
            ConfigError: settings out of range, or such as the strategy does not take; all at once.
        """
        if self.greedy and self.strategy not in (None, "greedy"):
            raise ConfigError(f"--greedy is a strategy, and so is --strategy {self.strategy}")
        name = "greedy" if self.greedy else self.strategy or base.strategy.name
        chosen = Strategy.find(name)
        takes = {f.name for f in fields(chosen)}
        given = {f.name: v for f in fields(self) if (v := getattr(self, f.name)) is not None}
        problems = [
            f"{_flag(option)} is of the strategy {_owners(option)}, not of {name}"
            for option in given
            if option in STRATEGY and option not in takes
        ]
        problems += [
            f"{_flag(option)} shapes what is drawn from, and {name} draws nothing"
            for option, value in given.items()
            if option in FILTERS and Filter.find(FILTERS[option][0]).draws
            if not chosen.draws and value != NEUTRAL.get(option)
        ]
        if problems:
            raise ConfigError([f"{problem}; leave it out" for problem in problems])
        tree = plain(base)
        if name != base.strategy.name:
            tree["strategy"] = {"name": name}
        for option in STRATEGY:
            if option in given:
                value = given[option]
                words = {"true": True, "false": False}
                tree["strategy"][option] = words.get(value, value)
        # of another strategy, what shapes draws would be left without any
        filters = {f.name: plain(f) for f in base.filters if chosen.draws or not f.draws}
        if self.json_schema is not None:
            given["json_schema"] = _content(self.json_schema)
        for option, (component, field) in FILTERS.items():
            if option not in given:
                continue
            if given[option] == NEUTRAL.get(option):
                filters.pop(component, None)
            else:
                others = filters.setdefault(component, {"name": component})
                filters[component] = others | {field: given[option]}
        tree["filters"] = list(filters.values())
        tree |= {n: given[n] for n in ("min_tokens", "max_tokens", "stop", "seed") if n in given}
        return build(Decoding, tree)


def _content(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error


def _flag(option: str) -> str:
    return "--" + option.replace("_", "-")


def _owners(option: str) -> str:
    owners = [n for n, s in Strategy.all().items() if option in {f.name for f in fields(s)}]
    return " or ".join(owners)
