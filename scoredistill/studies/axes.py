"""Axes of a study: the varied settings, and the options of `fit` for each value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scoredistill import recipe_library, recipe_yaml
from scoredistill.recipe_library import did_you_mean


class StudyError(Exception):
    """A study's file is invalid; the message names the key and the remedy."""


@dataclass(frozen=True)
class Value:
    """One value of an axis.

    Args:
        name: its name in cells and reports.
        overlays: further recipes, passed as --config.
        options: options of `fit`.
    """

    name: str
    overlays: Sequence[str]
    options: Sequence[str]


@dataclass(frozen=True)
class Axis:
    """One varied setting.

    Args:
        key: its key in the study's file.
        name: short name, the last part of a dotted key.
        values: its values, at least one.
    """

    key: str
    name: str
    values: Sequence[Value]

    def value(self, content: Any, where: str) -> Value:
        """Look up a value by its name.

        Args:
            content: the name, or the value as the file writes it.
            where: key in the file, for the message.

        Raises:
            StudyError: if the axis has no such value.
        """
        names = [value.name for value in self.values]
        name = _named(content)
        result = next((value for value in self.values if value.name == name), None)
        if result is None:
            hint = did_you_mean(name, names) or f"There are {', '.join(names)}."
            raise StudyError(f"{where}: the axis {self.key} has no value {name!r}. {hint}")
        return result


def read_axis(key: str, content: Any, path: Path) -> Axis:
    """Read one entry of `axes:`.

    Args:
        key: a dotted recipe key if `content` is a list of its values, otherwise any name.
        content: a list, or a mapping from names to options (dotted keys with values) or to an overlay recipe.
        path: the study's file; overlays are searched for next to it.

    Raises:
        StudyError: if the content is neither, or empty.
    """
    if isinstance(content, list) and content:
        values = [Value(_named(value), (), words_of({key: value}, path, key)) for value in content]
    elif isinstance(content, dict) and content:
        named = {_named(name): options for name, options in content.items()}  # 1 and true may be names
        values = [_value(name, options, path, f"axes.{key}.{name}") for name, options in named.items()]
    else:
        raise StudyError(f"axes.{key}: expected a list of values, or names with their settings; got {content!r}")
    names = [value.name for value in values]
    duplicate = next((name for name in names if names.count(name) > 1), None)
    if duplicate is not None:
        raise StudyError(f"axes.{key}: {duplicate!r} is listed twice")
    return Axis(key, key.rpartition(".")[2], values)


def _value(name: str, content: Any, path: Path, where: str) -> Value:
    if isinstance(content, str) and content.endswith(recipe_library.SUFFIXES):
        return Value(name, (_beside(content, path),), ())
    if content is not None and not isinstance(content, dict):
        raise StudyError(
            f"{where}: expected dotted keys with values, or the name of an overlay recipe; got {content!r}"
        )
    return Value(name, (), words_of(content or {}, path, where))


def words_of(options: Any, path: Path, where: str) -> list[str]:
    """Convert dotted keys with values to options of `fit`: --key=value.

    Args:
        options: the mapping, with YAML values.
        path: the study's file; a value that names a YAML file is searched for next to it.
        where: its key in the file, for the message.

    Raises:
        StudyError: if the options are not a mapping, or include a key that the study sets.
    """
    if not isinstance(options, Mapping):
        raise StudyError(f"{where}: expected dotted keys with values, got {options!r}")
    for key, instead in (("seed_everything", "seeds"), ("output", "output"), ("config", "recipe"), ("ckpt_path", "")):
        if key in options:
            hint = f": use the study's key {instead}" if instead else ""
            raise StudyError(f"{where}: {key} cannot be set per run, the study sets it{hint}")
    return [_option(str(key), value, path) for key, value in options.items()]


def _option(key: str, value: Any, path: Path) -> str:
    above, _, name = key.rpartition(".")
    if value == "null" and above:  # --key=null would be parsed as None and not as text
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
    """Wrap a single value in a list; None gives an empty list."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
