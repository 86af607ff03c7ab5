"""`longspan show`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from longspan.cli.settings import Settings, parse
from longspan.config import build, override
from longspan.errors import ConfigError
from longspan.show.pictures import of_memory, of_pattern, of_position
from longspan.slots import Memory, Pattern, Position


@dataclass(frozen=True)
class Shown:
    """What was named; the others None."""

    position: Position | None = None
    pattern: Pattern | None = None
    memory: Memory | None = None


PICTURES = {"position": of_position, "pattern": of_pattern, "memory": of_memory}


def show(
    *settings: Settings,
    position: str = "",
    pattern: str = "",
    memory: str = "",
    tokens: int = 64,
    to: Path | None = None,
) -> None:
    """Draw one component: a position over distance, a pattern's mask, a memory over time.

    Parameters
    ----------
    settings
        Settings of what is drawn: --pattern window --pattern.width 16
    position
        A position by name.
    pattern
        A pattern by name.
    memory
        A memory by name.
    tokens
        Of the document or stream that is drawn.
    to
        The picture, .png or .svg; NAME.png if not given.
    """
    named = {"position": position, "pattern": pattern, "memory": memory}
    chosen = {kind: name for kind, name in named.items() if name}
    tree = override(chosen, parse(settings))
    if len(chosen) != 1 or tree.keys() != chosen.keys():
        raise ConfigError("name one component: --position, --pattern or --memory NAME")
    if tokens < 2:
        raise ConfigError(f"--tokens must be 2 or more, not {tokens}")
    ((kind, name),) = chosen.items()
    picture = PICTURES[kind](getattr(build(Shown, tree), kind), tokens)
    path = to or Path(f"{name}.png")
    picture.save(path)
    print(picture.reading)
    print(path)
