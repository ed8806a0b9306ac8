"""Axes of a study: what is varied, and each value's options of `fit`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scoredistill import recipe_library, recipe_yaml
from scoredistill.recipe_library import did_you_mean


class StudyError(Exception):
    """Something is wrong in a study's file; the message names the key and the remedy."""


@dataclass(frozen=True)
class Value:
    """One value of an axis.

    Args:
        name: by which it is known.
        overlays: further --config.
        options: words of `fit`.
    """

    name: str
    overlays: Sequence[str]
    options: Sequence[str]


@dataclass(frozen=True)
class Axis:
    """Something that is varied.

    Args:
        key: as the study's file has it.
        name: short: the last part of a dotted key.
        values: at least one.
    """

    key: str
    name: str
    values: Sequence[Value]

    def value(self, given: Any, where: str) -> Value:
        """One of its values by its name, or as the file writes it.

        Raises:
            StudyError: if there is none.
        """
        names = [value.name for value in self.values]
        found = next((value for value in self.values if value.name == _named(given)), None)
        if found is None:
            hint = did_you_mean(_named(given), names) or f"There are {', '.join(names)}."
            raise StudyError(f"{where}: the axis {self.key} has no value {_named(given)!r}. {hint}")
        return found


def read_axis(key: str, given: Any, path: Path) -> Axis:
    """Read one of the `axes:`.

    Args:
        key: a dotted key of recipes where `given` is a list of its values, else any name.
        given: a list, or a mapping from names to options (dotted keys with values) or to an overlay recipe.
        path: the study's file, beside which overlays are looked for.

    Raises:
        StudyError: if it is neither, or empty.
    """
    if isinstance(given, list) and given:
        values = [Value(_named(value), (), words_of({key: value}, path, key)) for value in given]
    elif isinstance(given, dict) and given:
        named = {_named(name): options for name, options in given.items()}  # 1 and true may be names
        values = [_value(name, options, path, f"axes.{key}.{name}") for name, options in named.items()]
    else:
        raise StudyError(f"axes.{key}: needs a list of values, or names with what each changes; got {given!r}")
    names = [value.name for value in values]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise StudyError(f"axes.{key}: {twice!r} stands there twice")
    return Axis(key, key.rpartition(".")[2], values)


def _value(name: str, given: Any, path: Path, where: str) -> Value:
    if isinstance(given, str) and given.endswith(recipe_library.SUFFIXES):
        return Value(name, (_beside(given, path),), ())
    if given is not None and not isinstance(given, dict):
        raise StudyError(f"{where}: expected dotted keys with values, or the name of an overlay recipe; got {given!r}")
    return Value(name, (), words_of(given or {}, path, where))


def words_of(options: Any, path: Path, where: str) -> list[str]:
    """Dotted keys with values as options of `fit`: --key=value.

    Args:
        options: the mapping; a value is what YAML can hold.
        path: the study's file, beside which a value that names a YAML file is looked for.
        where: the key in it, for the message.

    Raises:
        StudyError: if it is no mapping, or sets what the study sets itself.
    """
    if not isinstance(options, Mapping):
        raise StudyError(f"{where}: expected dotted keys with values, got {options!r}")
    for key, instead in (("seed_everything", "seeds"), ("output", "output"), ("config", "recipe"), ("ckpt_path", "")):
        if key in options:
            hint = f": set the study's {instead}" if instead else ""
            raise StudyError(f"{where}: {key} is the study's own{hint}")
    return [_option(str(key), value, path) for key, value in options.items()]


def _option(key: str, value: Any, path: Path) -> str:
    above, _, name = key.rpartition(".")
    if value == "null" and above:  # as an option's whole value it would be null, and not text
        return f"--{above}={recipe_yaml.dump_line({name: value})}"
    return f"--{key}={_text(value, path)}"


def _text(value: Any, path: Path) -> str:
    if isinstance(value, str):
        return _beside(value, path) if value.endswith(recipe_library.SUFFIXES) else value
    return _named(value)


def _named(value: Any) -> str:
    """A value on one line of YAML."""
    if isinstance(value, str):
        return value
    return recipe_yaml.dump_line(value)


def _beside(name: str, path: Path) -> str:
    beside = path.parent / name
    return str(beside) if beside.is_file() else name


def as_list(value: Any) -> list[Any]:
    """A list of what may be one thing, or nothing."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
