"""The files that decide what a run makes beside its recipe: the modules of its classes, and files that it names."""

from __future__ import annotations

import ast
import hashlib
import importlib
import os
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
"""What may be the path of a class."""
DIGITS = 12
"""Of a hash, so many are kept."""


def sources_of(recipe: object) -> str:
    """Every file and the hash of its content, as `NAME=HASH NAME=HASH`, in order.

    Modules of this package, of Python and of installed packages are left out. A class of the user's own brings its
    module's file and, transitively, those of the modules that it imports. The content of folders is ignored.

    Args:
        recipe: resolved, with dotted paths of classes.
    """
    importlib.invalidate_caches()
    texts = sorted(set(_texts(recipe)))
    files = set(_files_of(text for text in texts if DOTTED.fullmatch(text)))
    files |= {Path(text) for text in texts if _is_file(text)}
    known = {_label(path): hashlib.sha256(path.read_bytes()).hexdigest()[:DIGITS] for path in files}
    return " ".join(f"{quote(name)}={digest}" for name, digest in sorted(known.items()))


def changed_files(key: str, other: str) -> list[str]:
    """The files that differ between two keys of a run; none where anything else differs too.

    Args:
        key, other: words, those of `sources_of` among them.
    """
    pairs = [dict(word.split("=") for word in each.split() if "=" in word) for each in (key, other)]
    rests = [[word for word in each.split() if "=" not in word] for each in (key, other)]
    if rests[0] != rests[1]:
        return []
    names = sorted(pairs[0].keys() | pairs[1].keys())
    return [unquote(name) for name in names if pairs[0].get(name) != pairs[1].get(name)]


def _texts(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, Mapping):
        for value in node.values():
            yield from _texts(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _texts(value)


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # too long for a name, or with a null character
        return False


def _files_of(paths: Iterable[str]) -> set[Path]:
    """The files of the user's own modules among dotted paths, and of what these import."""
    found: set[Path] = set()
    waiting = list(paths)
    seen = set(waiting)
    while waiting:
        for module, file in _located(waiting.pop()):
            if file in found or not _is_own(file):
                continue
            found.add(file)
            new = [name for name in _imports(file, module) if name not in seen]
            seen.update(new)
            waiting += new
    return found


def _located(path: str) -> Iterator[tuple[str, Path]]:
    """The modules along a dotted path and their files, as far as it names modules, without importing any."""
    folders: Any = None
    name = ""
    for part in path.split("."):
        name = f"{name}.{part}" if name else part
        spec = PathFinder.find_spec(name, folders)
        if spec is None:
            loaded = getattr(sys.modules.get(name), "__file__", None)  # by a finder of an editable installation
            if loaded is None:
                return
            yield name, Path(loaded)
            folders = getattr(sys.modules[name], "__path__", None)
        else:
            if spec.origin is not None and spec.has_location:
                yield name, Path(spec.origin)
            folders = spec.submodule_search_locations
        if folders is None:
            return


def _imports(file: Path, module: str) -> Iterator[str]:
    """Dotted paths that a module's source imports, anywhere in it."""
    if file.suffix != ".py":
        return
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):  # said by Python when it is imported
        return
    package = module if file.stem == "__init__" else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" if base else alias.name for alias in node.names)


@cache
def _installed() -> tuple[Path, ...]:
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    return tuple({Path(sysconfig.get_path(name)).resolve() for name in names} | {Path(__file__).resolve().parents[1]})


def _is_own(file: Path) -> bool:
    path = file.resolve()
    inside = any(path.is_relative_to(folder) for folder in _installed())
    return path.is_file() and not inside and not {"site-packages", "dist-packages"} & set(path.parts)


def _label(path: Path) -> str:
    """Relative to the working directory where it lies in it, so that the whole can be moved."""
    absolute = path.absolute()
    return os.path.relpath(absolute) if absolute.is_relative_to(Path.cwd()) else str(absolute)
