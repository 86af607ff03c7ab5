"""Which choices exclude each other: rules with an id, a reason and a repair.

The rules read the traits that components declare, never their names, and run before any tensor
is made. The tests read the same rules: what they allow must pass the contracts, what they refuse
must raise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, fields

from longspan.comparing import Score
from longspan.errors import Conflict, IncompatibleConfig
from longspan.registry import Component
from longspan.slots import Kernel, Memory, Pattern, Position

EXAMPLE = 8
"""A length that every member takes, so that those of patterns and memories agree."""


def slot_conflicts(
    position: Position,
    pattern: Pattern,
    memory: Memory,
    kernel: Kernel | None = None,
    *,
    exact: bool = True,
    around: bool = False,
) -> list[Conflict]:
    """What one attention layer's slots say against each other.

    Args:
        around: the memory may be one that wraps the model.
    """
    found = []
    if memory.attaches == "tokens" and not around:
        found.append(
            Conflict(
                "M5",
                f"memory='{memory.name}' wraps a whole decoder, not a layer.",
                "Give it to a Decoder as the memory of all layers (model.memory), or use another.",
            )
        )
    if position.enters == "input":
        found.append(
            Conflict(
                "P1",
                f"position='{position.name}' is added to the model's input, not in a layer.",
                "Give it to a Decoder or Encoder, or add position.entry(dim)(…) to x and use "
                "NoPosition().",
            )
        )
    if position.weighs and kernel is not None and not kernel.weighs:
        found.append(
            Conflict(
                "K1",
                f"position='{position.name}' adds to the values by the weights, which "
                f"kernel='{kernel.name}' never forms.",
                "Use kernel 'auto', 'blocked' or 'reference'.",
            )
        )
    if len(pattern.near()) > 1 and kernel is not None and not kernel.sums:
        found.append(
            Conflict(
                "K2",
                f"pattern='{pattern.name}' merges answers over two sets of keys by their sums, "
                f"which kernel='{kernel.name}' does not tell.",
                "Use kernel 'auto', 'blocked' or 'reference'.",
            )
        )
    if not pattern.causal and memory.carries:
        found.append(
            Conflict(
                "M1",
                f"memory='{memory.name}' carries the past, but pattern='{pattern.name}' looks "
                "both ways and has no past.",
                "Use memory 'none', or a causal pattern.",
            )
        )
    if pattern.causal and memory.folds and pattern.segment == 1:
        found.append(
            Conflict(
                "M3",
                f"memory='{memory.name}' writes where a segment ends, and pattern="
                f"'{pattern.name}' has no segments.",
                "Use pattern 'segments'.",
            )
        )
    if pattern.segment > 1 and pattern.segment % memory.grain:
        found.append(
            Conflict(
                "M4",
                f"memory='{memory.name}' takes {memory.grain} tokens at a time, which do not "
                f"divide the pattern's segment of {pattern.segment}.",
                f"Use a segment that is a multiple of {memory.grain}, or another memory.rate.",
            )
        )
    forgets = memory.carries and not memory.folds and not memory.marks
    if pattern.causal and pattern.marks and forgets:
        found.append(
            Conflict(
                "M6",
                f"memory='{memory.name}' keeps tokens, but not which of them pattern="
                f"'{pattern.name}' has marked to stay in sight.",
                "Use memory 'cache'.",
            )
        )
    elif pattern.causal and exact and not memory.covers(pattern):
        reach = "without limit" if pattern.reach is None else f"back {pattern.reach}"
        if pattern.sinks:
            reach += f" and to the first {pattern.sinks}"
        remedy = "memory 'cache'" if pattern.reach is None else f"Recent({pattern.reach})"
        if pattern.sinks and pattern.reach is not None:
            remedy = f"Sinks({pattern.reach}, {pattern.sinks})"
        found.append(
            Conflict(
                "M2",
                f"memory='{memory.name}' keeps {memory.length} tokens; pattern='{pattern.name}' "
                f"reaches {reach}. A stream in pieces would differ from one pass.",
                f"Use {remedy}, a pattern that reaches back {memory.length}, or exact=False.",
            )
        )
    return found


def score_conflicts(score: Score, position: Position) -> list[Conflict]:
    """What an attention layer's score says against its position."""
    if score.multiplies or not position.turns:
        return []
    return [
        Conflict(
            "C1",
            f"position='{position.name}' is told by the product of queries and keys, which "
            f"score='{score.name}' never forms.",
            "Use score 'scaled', 'dot' or 'general', or another position, such as 't5'.",
        )
    ]


def examples(kind: type[Component]) -> list[Component]:
    """One member of every name, with defaults, and `EXAMPLE` where there is none: they agree."""
    every = kind.all().values()
    return [m(**{f.name: EXAMPLE for f in fields(m) if f.default is MISSING}) for m in every]


def agreeing(pattern: Pattern, memory: Memory) -> Pattern:
    """The pattern as it goes with a memory that keeps no tokens before the segment."""
    if memory.length == 0 and pattern.segment > 1 and pattern.reach is not None:
        return pattern.reaching(0)
    return pattern


def refuse(conflicts: Sequence[Conflict], source: str = "") -> None:
    """Raises IncompatibleConfig with all of `conflicts`, if there are any."""
    if conflicts:
        raise IncompatibleConfig(conflicts, source)
