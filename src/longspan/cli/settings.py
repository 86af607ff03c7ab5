"""`--section.key value` on the command line, for verbs that take a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Annotated, Any

import yaml
from cyclopts import Parameter

from longspan.errors import ConfigError

Settings = Annotated[
    str,
    Parameter(
        allow_leading_hyphen=True,
        help="Settings of the recipe, --SECTION.KEY VALUE: --data.path ~/books --train.steps 2000",
    ),
]


def parse(words: Sequence[str]) -> dict[str, Any]:
    """Values by dotted key. A value is read as YAML: 3, 1e-3, true, null, [1, 2], a word.

    Raises:
        ConfigError: a word that is no setting, or a setting without a value.
    """
    changes: dict[str, Any] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise ConfigError(f"{word!r} is no setting; settings are --section.key value")
        key, equals, value = word[2:].partition("=")
        if "." not in key and key != "run":
            raise ConfigError(
                f"--{key} is no option and no setting; settings are --section.key value, "
                "options are listed by --help"
            )
        if not equals:
            if not rest or (rest[0].startswith("--") and len(rest[0]) > 2):
                raise ConfigError(f"--{key} needs a value")
            value = rest.pop(0)
        changes[key.replace("-", "_")] = _value(value)
    return changes


def _value(text: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    # "stdlib:", "-" and 2024-05-01 are paths, though YAML reads a mapping, a list and a date
    meant = text.startswith(("{", "["))
    return text if isinstance(value, dict | list | date) and not meant else value
