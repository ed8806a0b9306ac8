"""The files on which a run depends in addition to its recipe: the modules of its classes, and files that it names."""

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
"""A possible dotted path of a class."""
DIGITS = 12
"""Number of digits of a hash that are kept."""


def sources_of(recipe: object) -> str:
    """Every file and the hash of its content, as `NAME=HASH NAME=HASH`, sorted.

    Modules of this package, of Python and of installed packages are excluded. A class of the user adds the file of its
    module and, transitively, the files of the modules that it imports. The contents of folders are ignored.

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
    """The files that differ between two keys of a run; empty if anything else differs too.

    Args:
        key, other: keys, which contain the words of `sources_of`.
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
    except (OSError, ValueError):  # too long for a file name, or with a null character
        return False


def _files_of(paths: Iterable[str]) -> set[Path]:
    """The files of the user's modules in dotted paths, and of the modules that these import."""
    files: set[Path] = set()
    waiting = list(paths)
    seen = set(waiting)
    while waiting:
        for module, file in _located(waiting.pop()):
            if file in files or not _is_users(file):
                continue
            files.add(file)
            new = [name for name in _imports(file, module) if name not in seen]
            seen.update(new)
            waiting += new
    return files


def _located(path: str) -> Iterator[tuple[str, Path]]:
    """The modules along a dotted path and their files, without importing any."""
    folders: Any = None
    name = ""
    for part in path.split("."):
        name = f"{name}.{part}" if name else part
        spec = PathFinder.find_spec(name, folders)
        if spec is None:
            loaded = getattr(sys.modules.get(name), "__file__", None)  # from the finder of an editable installation
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
    """The dotted paths that a module's source imports, at any place."""
    if file.suffix != ".py":
        return
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):  # importing the module reports it
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


def _is_users(file: Path) -> bool:
    path = file.resolve()
    inside = any(path.is_relative_to(folder) for folder in _installed())
    return path.is_file() and not inside and not {"site-packages", "dist-packages"} & set(path.parts)


def _label(path: Path) -> str:
    """The path relative to the working directory if it is inside, so that the directory can be moved."""
    absolute = path.absolute()
    return os.path.relpath(absolute) if absolute.is_relative_to(Path.cwd()) else str(absolute)
