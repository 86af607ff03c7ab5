"""Which choices exclude each other: rules with an id, a reason and a repair.

The rules read the traits that components declare, never their names, and run before any tensor
is made. The tests read the same rules: what they allow must pass the contracts, what they refuse
must raise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, fields
from typing import Any

from longspan.comparing import Score
from longspan.errors import ConfigError, Conflict, IncompatibleConfig
from longspan.mixing import Layer, Mixer
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
) -> list[Conflict]:
    """What one attention layer's slots say against each other."""
    found = []
    if memory.attaches == "tokens":
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
    return found + memory_conflicts(pattern, memory, exact=exact)


def attention_conflicts(
    position: Position,
    pattern: Pattern,
    memory: Memory,
    kernel: Kernel,
    score: Score,
    head_dim: int,
    *,
    exact: bool = True,
) -> list[Conflict]:
    """What everything that attention is made of says against one another."""
    return (
        slot_conflicts(position, pattern, memory, kernel, exact=exact)
        + score_conflicts(score, position)
        + pair_conflicts(position, head_dim)
    )


def memory_conflicts(pattern: Pattern, memory: Memory, *, exact: bool = True) -> list[Conflict]:
    """What a pattern says against a memory, a layer's or one around the model."""
    found = []
    if not pattern.causal and memory.carries:
        found.append(
            Conflict(
                "M1",
                f"memory='{memory.name}' carries the past, but pattern='{pattern.name}' looks "
                "both ways and has no past.",
                "Use memory 'none', or a causal pattern.",
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
    # one of these alone: the repair of the next would contradict it
    if pattern.causal and memory.folds and pattern.segment == 1:
        found.append(
            Conflict(
                "M3",
                f"memory='{memory.name}' writes where a segment ends, and pattern="
                f"'{pattern.name}' has no segments.",
                "Use pattern 'segments'.",
            )
        )
    elif pattern.causal and pattern.marks and memory.carries and not memory.marks:
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
        found.append(
            Conflict(
                "M2",
                f"memory='{memory.name}' keeps {memory.length} tokens; pattern='{pattern.name}' "
                f"reaches {reach}. A stream in pieces would differ from one pass.",
                f"Use {_covering(memory, pattern)}, a pattern that reaches back {memory.length}, "
                "or exact=False.",
            )
        )
    return found


def _covering(memory: Memory, pattern: Pattern) -> str:
    """The nearest memory that covers `pattern`, as one writes it."""
    if pattern.reach is None:
        return "memory 'cache'"
    try:
        longer = memory.keeping(pattern.reach)
    except ConfigError:
        longer = memory
    if longer.covers(pattern):
        return written(longer)
    if pattern.sinks:
        return f"Sinks({pattern.reach}, {pattern.sinks})"
    return f"Recent({pattern.reach})"


def written(component: Memory) -> str:
    """As one writes it in Python: what has no default by place, the rest where it differs."""
    words = []
    for f in fields(component):
        value = getattr(component, f.name)
        if f.default is MISSING and not f.kw_only:
            words.append(repr(value))
        elif value != f.default:
            words.append(f"{f.name}={value!r}")
    return f"{type(component).__name__}({', '.join(words)})"


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


def mixer_conflicts(
    mixer: Mixer, layer: Layer, own: Mapping[str, Component | None]
) -> list[Conflict]:
    """What one layer's mixer says against the layer.

    Args:
        own: the slots that the layer names for itself; None where it does not.
    """
    found = []
    if not mixer.slots:
        found += [
            Conflict(
                "S1",
                f"mixer='{mixer.name}' has a state of its own; {slot}='{value.name}' has no place "
                "in it.",
                f"Leave {slot} out there, or use mixer 'softmax'.",
            )
            for slot, value in own.items()
            if value is not None
        ]
    found += mixer.conflicts(layer)
    causal = layer.pattern.causal
    if not (mixer.causal if causal else mixer.bidirectional):
        form = "no causal form" if causal else "no form that looks both ways"
        found.append(
            Conflict(
                "S2",
                f"mixer='{mixer.name}' has {form}, and pattern='{layer.pattern.name}' "
                + ("asks for one." if causal else "looks both ways."),
                "Use it in an encoder with pattern 'full'."
                if causal
                else "Use it in a decoder with a causal pattern, or use mixer 'softmax'.",
            )
        )
    return found


def unused_conflicts(unused: Mapping[str, Any]) -> list[Conflict]:
    """What a stack's own choices are worth that every layer leaves out: nothing is left out
    without a word.
    """
    return [
        Conflict(
            "S3",
            f"no layer takes {name}={_quoted(value)}.",
            f"Leave model.{name} out, or let a layer that names none of its own be mixer "
            "'softmax'.",
        )
        for name, value in unused.items()
    ]


def _quoted(value: Any) -> str:
    return f"'{value.name}'" if isinstance(value, Component) else str(value)


def segment_conflicts(patterns: Iterable[Pattern]) -> list[Conflict]:
    """What the layers' patterns say against each other."""
    segments = sorted({pattern.segment for pattern in patterns if pattern.segment > 1})
    if len(segments) < 2:
        return []
    return [
        Conflict(
            "S4",
            f"layers have segments of {segments} tokens; a stack has one.",
            "Give every layer's pattern the same length.",
        )
    ]


def inside_conflicts(memory: Memory, around: Memory) -> list[Conflict]:
    """What a memory around the model says against that of a layer."""
    return [
        Conflict(
            "S5",
            f"memory='{memory.name}' has no place inside a model that memory='{around.name}' "
            "wraps: a layer sees one segment at a time.",
            "Leave memory out there, or use it for the whole model.",
        )
    ]


def table_conflicts(position: Position, around: Memory, segment: int) -> list[Conflict]:
    """What a position says against the tokens of a memory around the model.

    Args:
        segment: tokens that the layers see at once, those of the memory among them.
    """
    if position.limit is None or position.limit >= segment:
        return []
    return [
        Conflict(
            "P2",
            f"position='{position.name}' has {position.limit} places, and a segment holds "
            f"{segment} tokens with those of memory='{around.name}'.",
            f"Set model.position.length to {segment} or more.",
        )
    ]


def pair_conflicts(position: Position, head_dim: int) -> list[Conflict]:
    """What a position says against the width of heads."""
    if not position.turns or head_dim % 2 == 0:
        return []
    return [
        Conflict(
            "P3",
            f"position='{position.name}' turns pairs of features, and head_dim={head_dim} is odd.",
            f"Set model.head_dim to {head_dim + 1}.",
        )
    ]


def examples(kind: type[Component]) -> list[Component]:
    """One member of every name, with defaults, and `EXAMPLE` where there is none: they agree."""
    every = kind.all().values()
    return [m(**{f.name: EXAMPLE for f in fields(m) if f.default is MISSING}) for m in every]


def agreeing(pattern: Pattern, memory: Memory) -> tuple[Pattern, Memory]:
    """Both, of lengths that suit each other where there are such."""
    if not memory.covers(pattern) and pattern.reach is not None:
        if pattern.segment > 1 and memory.length is not None:
            pattern = pattern.reaching(memory.length)
        else:
            with suppress(ConfigError):
                memory = memory.keeping(pattern.reach)
    return pattern, memory


def refuse(conflicts: Sequence[Conflict], source: str = "") -> None:
    """Raises IncompatibleConfig with all of `conflicts`, if there are any."""
    if conflicts:
        raise IncompatibleConfig(conflicts, source)
