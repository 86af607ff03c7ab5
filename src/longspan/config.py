"""Between YAML and dataclasses: strings in, frozen dataclasses out, every problem at once.

A config is a frozen dataclass beside the class that it builds. Where a field is a kind of component
(`Position`, `Memory`, …) the YAML gives its name, or a mapping with its name and its settings:

    memory: cache
    memory: {name: recent, tokens: 512}
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from longspan.errors import ConfigError, did_you_mean
from longspan.registry import Component

C = TypeVar("C")
Tree = dict[str, Any]
NONE: Mapping[str, type[Any]] = types.MappingProxyType({})


def build(cls: type[C], tree: Any, source: str = "") -> C:
    """Makes a `cls` from what YAML gave.

    Args:
        cls: a dataclass.
        tree: nested mappings, lists, numbers, strings, truths and nulls.
        source: the file, for messages.

    Raises:
        ConfigError: every unknown key, wrong type and refused value in `tree`.
    """
    value, problems = attempt(cls, tree)
    if value is None or problems:
        raise ConfigError(problems, source)
    return value


def attempt(
    cls: type[C], tree: Any, where: str = "", kinds: Mapping[str, type[Any]] | None = None
) -> tuple[C | None, list[str]]:
    """As `build`, but gives the problems, and the value where only unknown keys stand against it.

    Args:
        cls: a dataclass, or a kind of component.
        where: dotted key of `tree`, for messages.
        kinds: what fields are whose type the class leaves open.
    """
    reader = _Reader()
    if "members" in vars(cls):
        return reader.component(cls, tree, where), reader.problems  # type: ignore[arg-type]
    return reader.dataclass(cls, tree, where, kinds or {}), reader.problems


def plain(config: Any) -> Any:
    """The inverse of `build`: what YAML or JSON can hold, with every default written out."""
    if isinstance(config, Component):
        return {"name": config.name, **_members(config)}
    if is_dataclass(config):
        return _members(config)
    if isinstance(config, tuple):
        return [plain(value) for value in config]
    return config


def _members(config: Any) -> Tree:
    return {f.name: plain(getattr(config, f.name)) for f in fields(config)}


def read_yaml(text: str, source: str) -> Tree:
    """Parses a recipe.

    Raises:
        ConfigError: not YAML, or no mapping; with the line.
    """
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "it cannot be read"
        raise ConfigError(f"not YAML{where}: {problem}", source) from error
    if not isinstance(tree, dict):
        raise ConfigError("a recipe is a mapping of sections: data, model, train, …", source)
    return tree


def write_yaml(tree: Tree) -> str:
    """YAML in the order of `tree`."""
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=100)


def override(tree: Tree, changes: Mapping[str, Any]) -> Tree:
    """`tree` with values set by dotted keys: {"model.memory.tokens": 512}.

    Naming a component anew ("model.memory": "cache") drops the settings of the old one, whatever
    the order of the changes.
    """
    result = _copy(tree)
    order = {key: (key.count("."), not key.endswith(".name")) for key in changes}
    for key, value in sorted(changes.items(), key=lambda item: order[item[0]]):
        *path, last = key.split(".")
        node = result
        for word in path:
            if isinstance(node.get(word), str):
                node[word] = {"name": node[word]}
            if not isinstance(node.get(word), dict):
                node[word] = {}
            node = node[word]
        old = node.get(last)
        if last == "name" and node.get("name") not in (None, value):
            node.clear()
        if isinstance(value, Mapping) and isinstance(old, dict):
            other = "name" in value and value["name"] != old.get("name")
            node[last] = override({} if other else old, value)
        else:
            node[last] = value
    return result


def differences(old: Any, new: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(dotted key, old value, new value) wherever two trees differ; None where a key is absent."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(k for k in new if k not in old)]:
            dotted = f"{prefix}.{key}" if prefix else key
            yield from differences(old.get(key), new.get(key), dotted)
    elif old != new:
        yield prefix, old, new


def _copy(tree: Any) -> Any:
    return {k: _copy(v) for k, v in tree.items()} if isinstance(tree, dict) else tree


class _Reader:
    """Walks a tree along a type and collects problems instead of stopping at the first."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def dataclass(
        self, cls: type[Any], tree: Any, where: str, kinds: Mapping[str, type[Any]] = NONE
    ) -> Any:
        if not isinstance(tree, Mapping):
            self.problems.append(f"{where or 'the recipe'} must be a mapping, not {_shown(tree)}")
            return None
        hints = get_type_hints(cls) | dict(kinds)
        known = {f.name: f for f in fields(cls) if f.init}
        dotted = {key: f"{where}.{key}" if where else str(key) for key in tree}
        self.problems += [
            f"{dotted[key]} is unknown{did_you_mean(str(key), known)}"
            for key in tree
            if key not in known
        ]
        # an unknown key leaves the rest sound, so that more can be said of it
        before = len(self.problems)
        known_tree = {key: value for key, value in tree.items() if key in known}
        values = {k: self.value(hints[k], value, dotted[k]) for k, value in known_tree.items()}
        missing = [
            name
            for name, f in known.items()
            if name not in tree and f.default is MISSING and f.default_factory is MISSING
        ]
        self.problems += [
            f"{where}.{m} is required" if where else f"{m} is required" for m in missing
        ]
        if len(self.problems) > before or None in (values[k] for k in values if _wants(hints[k])):
            self.problems += self._others(cls, {**dict.fromkeys(missing), **values})
            return None
        try:
            return cls(**values)
        except ConfigError as error:
            self.problems += error.problems
            return None

    def _others(self, cls: type[Any], values: Mapping[str, Any]) -> list[str]:
        """What `cls` says of its sound values where others, None here, are not."""
        try:
            cls(**values)
        except ConfigError as error:
            # of a field that is unsound enough is said
            named = tuple(problem.split(" ")[0] for problem in self.problems)
            fresh = (problem for problem in error.problems if problem not in self.problems)
            return [p for p in fresh if not any(n.endswith(p.split(" ")[0]) for n in named)]
        except (TypeError, AttributeError):
            # it compares a sound value with an unsound one, of which enough is said
            pass
        return []

    def value(self, hint: Any, value: Any, where: str) -> Any:
        origin = get_origin(hint)
        if origin in (Union, types.UnionType):
            return self.union(get_args(hint), value, where)
        if origin is Literal:
            if value not in get_args(hint):
                words = [str(word) for word in get_args(hint)]
                hint_text = did_you_mean(str(value), words)
                self.problems.append(f"{where} cannot be {_shown(value)}{hint_text}")
            return value
        if origin is tuple:
            return self.tuple(get_args(hint), value, where)
        if isinstance(hint, type) and issubclass(hint, Component):
            return self.component(hint, value, where)
        if is_dataclass(hint) and isinstance(hint, type):
            return self.dataclass(hint, value, where)
        return self.scalar(hint, value, where)

    def union(self, hints: Sequence[Any], value: Any, where: str) -> Any:
        if value is None and type(None) in hints:
            return None
        rest = [hint for hint in hints if hint is not type(None)]
        for hint in rest:
            attempt = _Reader()
            result = attempt.value(hint, value, where)
            if not attempt.problems:
                return result
            if len(rest) == 1:
                self.problems += attempt.problems
                return None
        wanted = " or ".join(_named(hint) for hint in rest)
        self.problems.append(f"{where} must be {wanted}, not {_shown(value)}")
        return None

    def tuple(self, hints: Sequence[Any], value: Any, where: str) -> Any:
        if not isinstance(value, list | tuple):
            self.problems.append(f"{where} must be a list, not {_shown(value)}")
            return None
        if hints[-1] is Ellipsis:
            hints = [hints[0]] * len(value)
        if len(hints) != len(value):
            self.problems.append(f"{where} must have {len(hints)} values, not {len(value)}")
            return None
        pairs = enumerate(zip(hints, value, strict=True))
        return tuple(self.value(hint, item, f"{where}[{i}]") for i, (hint, item) in pairs)

    def component(self, kind: type[Component], value: Any, where: str) -> Any:
        tree = {"name": value} if isinstance(value, str) else value
        if not isinstance(tree, Mapping) or not isinstance(tree.get("name"), str):
            self.problems.append(
                f"{where} must name a {kind.kind} or be a mapping with its name, not "
                f"{_shown(value)}{did_you_mean('', kind.all())}"
            )
            return None
        try:
            cls = kind.find(tree["name"])
        except ConfigError as error:
            self.problems.append(f"{where}: {error}")
            return None
        return self.dataclass(cls, {k: v for k, v in tree.items() if k != "name"}, where)

    def scalar(self, hint: Any, value: Any, where: str) -> Any:
        if hint is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if hint is float and isinstance(value, str):
            # YAML reads 1e-3 as a word
            try:
                return float(value)
            except ValueError:
                pass
        exact = isinstance(value, hint) and (hint is bool or not isinstance(value, bool))
        if not exact:
            self.problems.append(f"{where} must be {_named(hint)}, not {_shown(value)}")
        return value


def _wants(hint: Any) -> bool:
    """Whether None can only mean that the value could not be made."""
    return is_dataclass(hint) or (isinstance(hint, type) and issubclass(hint, Component))


NAMES = {int: "a whole number", float: "a number", str: "a word", bool: "true or false"}


def _named(hint: Any) -> str:
    if hint in NAMES:
        return NAMES[hint]
    return "a list" if get_origin(hint) is tuple else getattr(hint, "__name__", str(hint))


def _shown(value: Any) -> str:
    return "null" if value is None else repr(value)
