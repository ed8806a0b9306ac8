"""The types of recipe keys: which values each accepts, how a message describes it, and how tensors are read."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import torch
import yaml  # type: ignore[import-untyped]
from jsonargparse._parameter_resolvers import get_signature_parameters
from jsonargparse.typing import get_registered_type, register_type

from scoredistill import recipe_library, recipe_yaml
from scoredistill.cli.class_lookup import choices, find_class, one_of
from scoredistill.recipe_library import SUFFIXES

SEQUENCES = (list, tuple, Sequence, set, frozenset)
NUMBERS = (int, float)


class Word(str):
    """A value from the command line, which is YAML unless its key takes text. jsonargparse passes it on unread."""


@dataclass(frozen=True)
class Parameter:
    """An argument of a constructor.

    Args:
        hint: its type.
        required: whether it has no default.
        typed: whether it is annotated.
    """

    hint: Any
    required: bool
    typed: bool


@cache
def parameters(kind: type, passed: int = 0) -> dict[str, Parameter]:
    """The arguments of a class's constructor by name, including those that it passes to its bases.

    Args:
        kind: the class.
        passed: number of positional arguments that a recipe does not set, such as an optimizer's parameters.
    """
    empty = inspect.Parameter.empty
    return {
        each.name: Parameter(
            Any if each.annotation is empty else each.annotation, each.default is empty, each.annotation is not empty
        )
        for each in get_signature_parameters(kind, "__init__")[passed:]
    }


def members(hint: Any) -> tuple[Any, ...]:
    """The types of a union, or the one type."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def bases_of(hint: Any) -> tuple[list[type], int]:
    """The classes whose subclasses a type accepts, and the number of arguments that the code passes to them.

    `Callable[[A], B]` accepts a subclass of B whose constructor takes an A.
    """
    bases = []
    passed = 0
    for kind in members(hint):
        if get_origin(kind) is Callable and _is_class(get_args(kind)[1]):
            bases.append(get_args(kind)[1])
            passed = len(get_args(kind)[0])
        elif _is_class(kind):
            bases.append(kind)
    return bases, passed


def takes_text(hint: Any) -> bool:
    """Whether the type keeps strings as they are: `str`, `str | None`, `str | Path`, `str | Sequence[str]`."""
    kinds = members(hint)
    return str in kinds and all(kind in (str, Path, type(None)) or get_origin(kind) in SEQUENCES for kind in kinds)


def takes_more_than_classes(hint: Any) -> bool:
    """Whether a type accepts anything that is not a class: a number, a list, a word."""
    return any(kind is not type(None) and not bases_of(kind)[0] for kind in members(hint))


def is_mapping(kind: Any) -> bool:
    """Whether a type is a mapping."""
    origin = get_origin(kind) or kind
    return inspect.isclass(origin) and issubclass(origin, Mapping)


def is_unknown(kind: Any) -> bool:
    """Whether values of this type cannot be checked here."""
    plain = (*NUMBERS, bool, str, type(None), Path, torch.Tensor)
    judged = kind in plain or get_origin(kind) in (*SEQUENCES, Literal, Callable) or is_mapping(kind) or _is_class(kind)
    return not judged and not _restricted(kind)


def of_word(word: Word, kinds: Sequence[Any]) -> Any:
    """Read a value of the command line: text if the key takes text, otherwise YAML or a file with YAML.

    Args:
        word: the value.
        kinds: the types of its key.
    """
    text = str(word)
    if word == "null" and type(None) in kinds:
        return None
    if str in kinds and not (text.startswith("[") and any(get_origin(kind) in SEQUENCES for kind in kinds)):
        return text
    if text.endswith(SUFFIXES):
        return file_of_word(text)
    try:
        return recipe_yaml.load(text)
    except yaml.YAMLError:
        return text


def file_of_word(text: str) -> str:
    """The file that an option names: the user's if it exists, otherwise a shipped one."""
    if not text.endswith(SUFFIXES) or Path(text).exists():
        return text
    try:
        return str(recipe_library.shipped(text).path)
    except recipe_library.RecipeError:
        return text


def accepts(value: Any, kind: Any) -> bool:
    """Whether a type accepts a value without classes."""
    if kind is type(None):
        return value is None
    if get_origin(kind) is Literal:
        return any(value == each and type(value) is type(each) for each in get_args(kind))
    if kind is bool or isinstance(value, bool):
        return kind is bool and (isinstance(value, bool) or value in ("true", "false"))
    if kind is str or kind is Path:
        return isinstance(value, str)
    if kind in NUMBERS or _restricted(kind):
        return _is_number(value, kind)
    if kind is torch.Tensor:
        return isinstance(value, list) and not _why_no_tensor(value)
    return False


def of_elements(kind: Any, count: int) -> Sequence[Any] | None:
    """The type of each of `count` elements, or None if the type does not allow that many."""
    of = get_args(kind)
    if not of:
        return [Any] * count
    if get_origin(kind) is tuple and of[-1] is not Ellipsis:
        return of if len(of) == count else None
    return [of[0]] * count


def described(hint: Any) -> str:
    """The values that a type accepts, for messages."""
    parts = [each for kind in members(hint) for each in _described(kind)]
    return " or ".join(dict.fromkeys(parts))


def remedy(value: Any, kinds: Sequence[Any]) -> str:
    """The remedy for a value of another type, if known."""
    if str in kinds and isinstance(value, (int, float, bool)):
        return ": put it in quotes"
    if torch.Tensor in kinds and isinstance(value, list):
        return f", which is {_why_no_tensor(value)}"
    return ""


def with_option(option: str, bases: Sequence[type]) -> str:
    """The name of a class with this option; if there is none, of any class of the right kind."""
    classes = {name: find_class(name, bases) for name in choices(bases)}
    fitting = [name for name, kind in classes.items() if option.split(".")[0] in parameters(kind)]
    return next(iter(fitting or classes), "CLASS")


def _why_no_tensor(value: Any) -> str:
    try:
        read_tensor(value)
    except ValueError as error:
        return str(error)
    return ""


def _described(kind: Any) -> list[str]:
    if kind is type(None):
        return ["null"]
    if get_origin(kind) is Literal:
        return [str(each) for each in get_args(kind)]
    if get_origin(kind) is tuple and get_args(kind)[-1:] != (Ellipsis,):
        return [f"[{', '.join(described(each) for each in get_args(kind))}]"]
    if get_origin(kind) in SEQUENCES:
        return [f"a list of {described(get_args(kind)[0])}" if get_args(kind) else "a list"]
    if is_mapping(kind):
        return ["names with values"]
    if kind is torch.Tensor:
        return ["a list of numbers"]
    if get_origin(kind) is Callable:
        return [one_of(bases_of(kind)[0])] if bases_of(kind)[0] else ["nothing that a recipe can set"]
    if _restricted(kind):
        return [str(getattr(kind, "_restrictions_str", None) or kind.__name__)]
    return [one_of([kind]) if _is_class(kind) else getattr(kind, "__name__", str(kind))]


def _is_number(value: Any, kind: Any) -> bool:
    if isinstance(value, str):
        try:
            value = int(value) if issubclass(kind, int) else float(value)
        except ValueError:
            return False
    if not isinstance(value, NUMBERS) or (issubclass(kind, int) and not isinstance(value, int)):
        return False
    if not _restricted(kind):
        return True
    try:
        kind(value)
    except (TypeError, ValueError):
        return False
    return True


def _restricted(kind: Any) -> bool:
    """Whether a type is one of jsonargparse's restricted numbers."""
    return inspect.isclass(kind) and issubclass(kind, NUMBERS) and kind not in (*NUMBERS, bool)


def _is_class(kind: Any) -> bool:
    return (
        inspect.isclass(kind)
        and kind.__module__ != "builtins"
        and get_registered_type(kind) is None
        and not issubclass(kind, (int, float, str, Enum, Path, Mapping))
        and get_origin(kind) is None
        and kind is not Any
    )


def read_tensor(value: Any) -> torch.Tensor:
    """A tensor from (nested) lists of numbers; a single number is left to the other types of the field.

    Raises:
        ValueError: if it is something else.
    """
    if type(value) not in (list, tuple):  # excludes jsonargparse's tuple types
        raise ValueError("not a list")
    try:
        return torch.tensor(_numbers(value))
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"not a list of numbers, nor of such lists of equal length: {error}") from error


def _numbers(value: Any) -> Any:
    """Nested lists in which 1e-3, which is text in the YAML of recipes, is a number."""
    if isinstance(value, (list, tuple)):
        return [_numbers(each) for each in value]
    return float(value) if isinstance(value, str) else value


def _write(tensor: torch.Tensor) -> Any:
    """The shortest decimals that give the same tensor: .1, not .10000000149."""
    values = tensor.detach().cpu().numpy()
    return values.astype(str).astype(float).tolist() if tensor.is_floating_point() else values.tolist()


def register_tensors() -> None:
    """Let parameters of type Tensor accept nested lists."""
    register_type(torch.Tensor, _write, read_tensor, type_check=lambda value, kind: isinstance(value, kind))
