"""`longspan new`."""

from __future__ import annotations

from pathlib import Path

from longspan.errors import ConfigError
from longspan.training.recipe import recipe_text


def new(name: str, path: Path | None = None, /) -> None:
    """Write a recipe that ships with longspan to a file, to edit.

    Parameters
    ----------
    name
        Of the recipe (`longspan list`).
    path
        The file to write; NAME.yaml in this folder if none is given.
    """
    text = recipe_text(name)
    target = path or Path(f"{Path(name).stem}.yaml")
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise ConfigError(f"{target} exists already; name another file") from error
    except OSError as error:
        raise ConfigError(f"{target} cannot be written: {error.strerror}") from error
    print(target)
