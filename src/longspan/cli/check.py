"""`longspan check`."""

from __future__ import annotations

from longspan.cli.settings import Settings, parse
from longspan.config import write_yaml
from longspan.training.recipe import read_recipe, resolved


def check(recipe: str, /, *settings: Settings, show: bool = False) -> None:
    """Say every problem of a recipe at once, without making a tensor.

    Parameters
    ----------
    recipe
        A YAML file, a run's folder, or the name of a recipe that ships.
    settings
        Settings of the recipe: --model.memory.tokens 512
    show
        Print the recipe with every default written out.
    """
    chosen = read_recipe(recipe, parse(settings))
    print(write_yaml(resolved(chosen)) if show else f"{recipe}: no problems")
