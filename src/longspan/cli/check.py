"""`longspan check`."""

from __future__ import annotations

from longspan.cli.settings import Settings, parse
from longspan.config import plain, write_yaml
from longspan.training.recipe import is_imported, read_model, read_recipe, resolved


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
    if is_imported(recipe):
        tree = {"model": plain(read_model(recipe, parse(settings)))}
        sound = "no problems; it was imported, and has a model and no more"
    else:
        tree = resolved(read_recipe(recipe, parse(settings)))
        sound = "no problems"
    print(write_yaml(tree) if show else f"{recipe}: {sound}")
