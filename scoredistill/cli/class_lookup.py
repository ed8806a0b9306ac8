"""Finds the classes that recipes name, and checks their kind; nothing is called."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import pkgutil
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

from scoredistill.cli.errors import UsageError
from scoredistill.recipe_library import did_you_mean

NOT_FOR_RECIPES = {
    "__main__",
    "cli",
    "recipe_library",
    "recipe_yaml",
    "start_up",
    "studies",
    "testing",
    "version",
}
SHOWN = 8
"""Maximum number of classes in a message, and half the maximum number of keys."""


def import_public_modules() -> None:
    """Import the modules whose classes recipes may name: a short name works once its class is imported."""
    for module in pkgutil.iter_modules([str(Path(__file__).parent.parent)]):
        if module.name not in NOT_FOR_RECIPES:
            importlib.import_module(f"scoredistill.{module.name}")
    importlib.import_module("scoredistill.training.callbacks")


def find_class(name: object, bases: Sequence[type]) -> type:
    """The class that a recipe names.

    Nothing is called. The module of a dotted path is imported, and the name is refused unless it is a class of the
    right kind.

    Args:
        name: the name of an imported class, or the dotted path of any class.
        bases: the class must be one of these, or a subclass.

    Raises:
        UsageError: if there is no such class, it cannot be imported, or it is of another kind; without the key.
    """
    if not isinstance(name, str):
        raise UsageError(f"expected the name of a class ({one_of(bases)}), got {shown(name)}")
    found = _imported(name, bases) if "." in name else _known(name, bases)
    if not inspect.isclass(found):
        raise UsageError(f"{name} is {_kind(found)} and not a class: expected {one_of(bases)}")
    if not issubclass(found, tuple(bases)):
        raise UsageError(f"{name} is not {_a(bases)}: expected {one_of(bases)}")
    if inspect.isabstract(found):
        if found in bases:
            raise UsageError(f"{name} is an abstract class: name one of its subclasses, {one_of(bases)}")
        missing = sorted(vars(found)["__abstractmethods__"])
        owner = next(base for base in found.__mro__ if missing[0] in vars(base))
        raise UsageError(f"{name} lacks {', '.join(missing)}, which every {owner.__name__} defines")
    return found


def subclasses(base: type) -> Iterator[type]:
    """A class and all its subclasses, each once."""
    seen: dict[type, None] = {}
    todo = [base]
    while todo:
        each = todo.pop(0)
        if each not in seen:
            seen[each] = None
            todo += type.__subclasses__(each)
    return iter(seen)


def choices(bases: Sequence[type]) -> list[str]:
    """Short names of the classes that a recipe may use for one of these."""
    every = [each for base in bases for each in subclasses(base)]
    # The base class of another library is rarely useful.
    every = [each for each in every if each not in bases or each.__module__.startswith("scoredistill.")] or every
    usable = [each for each in every if not inspect.isabstract(each) and not each.__name__.startswith("_")]
    return list(dict.fromkeys(each.__name__ for each in usable if "<locals>" not in each.__qualname__))


def one_of(bases: Sequence[type]) -> str:
    """The classes that a recipe may use for one of these, for messages."""
    names = choices(bases)
    if len(names) == 1:
        return names[0]
    listed = names[:SHOWN] + (["..."] if len(names) > SHOWN else [])
    return f"one of {', '.join(listed)}" if names else f"a subclass of {_or(bases)}"


def there_are(names: Sequence[str]) -> str:
    """The possible names, for messages."""
    if not names:
        return "It has none."
    return f"There are {', '.join(names[: 2 * SHOWN])}{', ...' if len(names) > 2 * SHOWN else ''}."


def shown(value: object) -> str:
    """A value as a message shows it: on one line, shortened."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = " ".join(text.split()) if text.strip() else repr(text)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _known(name: str, bases: Sequence[type]) -> type:
    found = [each for base in bases for each in subclasses(base) if each.__name__ == name]
    if found:
        return found[0]
    ours = (each for each in subclasses(object) if str(each.__module__).startswith("scoredistill."))
    others = [each for each in ours if each.__name__ == name]
    if others:
        raise UsageError(f"{name} is {_a([_family(others[0])])} and not {_a(bases)}: expected {one_of(bases)}")
    hint = did_you_mean(name, choices(bases)) or f"Expected {one_of(bases)}, or the dotted path of your class."
    raise UsageError(f"there is no {_or(bases)} called {shown(name)!r}. {hint}")


def _imported(name: str, bases: Sequence[type]) -> object:
    parts = name.split(".")
    if not all(part.isidentifier() for part in parts):
        raise UsageError(f"{shown(name)!r} is not the dotted path of a class: expected {one_of(bases)}")
    module, rest = _module(parts, bases)
    found: object = module
    for number, part in enumerate(rest):
        if not hasattr(found, part):
            names = [key for key, value in vars(found).items() if inspect.isclass(value)] if number == 0 else []
            hint = did_you_mean(part, names) or did_you_mean(part, choices(bases))
            raise UsageError(f"{'.'.join(parts[: -len(rest)])} has no class {part!r}. {hint}".rstrip())
        found = getattr(found, part)
    return found


def _module(parts: Sequence[str], bases: Sequence[type]) -> tuple[object, Sequence[str]]:
    """The longest prefix that is a module, and the remaining names."""
    for end in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:end])
        try:
            return importlib.import_module(name), parts[end:]
        except ModuleNotFoundError as error:
            lost = error.name or ""
            if name != lost and not name.startswith(f"{lost}."):
                raise UsageError(f"{name} cannot be imported: it needs {lost}, which is not installed") from error
        except BaseException as error:  # the user's module may raise anything
            if isinstance(error, KeyboardInterrupt):
                raise
            raise UsageError(f"{name} cannot be imported: {_where(error)}") from error
    hint = did_you_mean(parts[-1], choices(bases))
    remedy = hint or _where_to_put_modules()
    raise UsageError(f"there is no module {parts[0]!r}. {remedy}")


def _where_to_put_modules() -> str:
    """Which folders this command searches: `export` and `view` leave out the working directory."""
    if os.getcwd() in sys.path:
        return "It must be in the working directory or installed."
    return "This command does not search the working directory: install it, or put its folder into PYTHONPATH."


def _where(error: BaseException) -> str:
    """An error inside a module, with the line that raised it."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, SyntaxError):
        return text
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{text} ({Path(frame.filename).name}, line {frame.lineno})"


def _kind(value: object) -> str:
    return "a module" if inspect.ismodule(value) else "a function" if callable(value) else _a([type(value)])


def _family(found: type) -> type:
    """The kind of one of the package's classes: the last of its bases in the package."""
    return [base for base in found.__mro__ if base.__module__.startswith("scoredistill.")][-1]


def _or(bases: Sequence[type]) -> str:
    return " or ".join(base.__name__ for base in bases)


def _a(bases: Sequence[type]) -> str:
    """The names with an article."""
    name = _or(bases)
    return f"an {name}" if name[0] in "AEIOUaeiou" else f"a {name}"
