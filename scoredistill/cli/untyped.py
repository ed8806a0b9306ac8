"""Constructor arguments without a type, whose values in a recipe would be guessed or lost."""

from __future__ import annotations

import importlib
import inspect
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from scoredistill.cli.errors import UsageError


def untyped(kind: type) -> list[str]:
    """Names of a class's constructor arguments without an annotation, those of its bases to which it passes **kwargs.

    Args:
        kind: any class. Of installed libraries nothing is asked: nobody who writes a recipe can annotate them.
    """
    names: list[str] = []
    for base in kind.__mro__:
        own = vars(base).get("__init__")
        if not inspect.isfunction(own):
            continue
        if not _installed(own.__code__.co_filename):
            parameters = list(inspect.signature(own).parameters.values())[1:]
            named = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
            names += [p.name for p in named if p.annotation is p.empty]
        if not any(p.kind is p.VAR_KEYWORD for p in inspect.signature(own).parameters.values()):
            break
    return list(dict.fromkeys(names))


def require_annotated(config: Any, key: str = "") -> None:
    """Refuse a parsed recipe that names a class with an argument whose type is not known.

    Without a type a required argument that is left out is null, and text that looks like a number becomes one.

    Args:
        config: the recipe or a part of it.
        key: where that part stands.

    Raises:
        UsageError: that names the key, the class and the argument.
    """
    for where, class_path in _classes(config, key):
        module, _, name = class_path.rpartition(".")
        kind = getattr(importlib.import_module(module), name)
        for argument in untyped(kind) if inspect.isclass(kind) else []:
            raise UsageError(
                f"{where}: {class_path} does not say of what type its argument {argument} is, so that its value in a "
                f"recipe would be guessed or lost: annotate it, as in `{argument}: float = 1.0`"
            )


def _classes(config: Any, key: str) -> Iterator[tuple[str, str]]:
    """Every class_path in a parsed recipe, with its key."""
    if isinstance(config, (Namespace, Mapping)):
        items = vars(config) if isinstance(config, Namespace) else config
        if isinstance(items.get("class_path"), str):
            yield key, items["class_path"]
        for name, value in items.items():
            yield from _classes(value, f"{key}.{name}".removeprefix("."))
    elif isinstance(config, Sequence) and not isinstance(config, str):
        for index, value in enumerate(config):
            yield from _classes(value, f"{key}.{index}")


def _installed(file: str) -> bool:
    libraries = {Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib", "stdlib")}
    return any(library in Path(file).resolve().parents for library in libraries)
