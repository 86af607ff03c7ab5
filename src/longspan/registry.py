"""Finds components by name.

A component is a class that names itself where it is defined,

    class Window(Pattern, name="window"): ...

and lies in the folder of its kind. Adding one is adding one file: the first look-up imports every
file of the folder. Strings exist only at the YAML and command-line edge; Python users import
classes.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import Any, ClassVar

from longspan.errors import ConfigError, did_you_mean


def import_folder(folder: str) -> None:
    """Imports every file of a package, so that what they define makes itself known."""
    package = import_module(folder)
    for module in iter_modules(package.__path__, folder + "."):
        import_module(module.name)


class Component:
    """Base of everything that a recipe can name. A direct subclass founds a kind:

    class Pattern(Component, kind="pattern", folder="longspan.patterns"): ...
    """

    kind: ClassVar[str]
    folder: ClassVar[str]
    name: ClassVar[str]
    members: ClassVar[dict[str, type[Any]]]

    def __init_subclass__(
        cls, *, kind: str | None = None, folder: str | None = None, name: str | None = None
    ) -> None:
        super().__init_subclass__()
        if kind is not None and folder is not None:
            cls.kind, cls.folder, cls.members = kind, folder, {}
        if name is not None:
            if name in cls.members and cls.members[name].__qualname__ != cls.__qualname__:
                raise TypeError(f"two members of {cls.kind} are named {name!r}")
            cls.name = name
            cls.members[name] = cls

    @classmethod
    def all(cls) -> dict[str, type[Any]]:
        """Every member of this kind by name, sorted; imports the kind's folder."""
        import_folder(cls.folder)
        return dict(sorted(cls.members.items()))

    @classmethod
    def find(cls, name: str) -> type[Any]:
        """The member called `name`.

        Raises:
            ConfigError: there is none; the nearest name is suggested.
        """
        if not hasattr(cls, "members"):
            raise TypeError(f"{cls.__name__} is not a kind of component")
        if name not in cls.members:
            cls.all()
        if name not in cls.members:
            raise ConfigError(f"unknown {cls.kind} {name!r}{did_you_mean(name, cls.members)}")
        return cls.members[name]
