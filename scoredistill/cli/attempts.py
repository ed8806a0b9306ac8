"""Attempts at a run: what was requested, on which files it depends, and which run folder finished it."""

from __future__ import annotations

import ast
import hashlib
import importlib
import os
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from scoredistill.files import load_json, write_json_atomically
from scoredistill.training.run_folder import RunFolder, numbered

COPY = "attempt.json"
"""Copy of the note in the folder of a finished run, in case the file with all notes is damaged."""


@dataclass(frozen=True)
class Attempt:
    """A requested run of `fit`, with the stored note about earlier attempts.

    Args:
        request: the requested run, as JSON; a different request is another attempt. `key` identifies the recipe.
        note: the stored note; empty: none.
        runs: parent of the run folders.
    """

    request: Mapping[str, Any]
    note: Mapping[str, Any]
    runs: Path

    @property
    def _same(self) -> bool:
        return all(self.note.get(key) == value for key, value in self.request.items())

    @property
    def finished(self) -> str | None:
        """The run that finished the same request, or None."""
        run = self.note.get("run") if self._same else None
        folder = None if run is None else self.runs / str(run)
        return str(folder) if folder is not None and RunFolder(folder).config.is_file() else None

    @property
    def _before(self) -> str | None:
        # A run of the same request is resumed; a run that existed before belongs to another request.
        return self.note.get("after") if self._same else self.newest_run

    @property
    def newest_run(self) -> str | None:
        """The newest run that has a checkpoint, or None."""
        run = RunFolder.newest(self.runs)
        return None if run is None else str(run.path)

    @property
    def goes_on(self) -> bool:
        """Whether a run of the same request was stopped, so that it can be resumed."""
        return self.newest_run != self._before

    @property
    def changed(self) -> list[str]:
        """The files that changed since the earlier attempt, if nothing else changed."""
        earlier, key = self.note.get("key"), self.request.get("key")
        return changed_files(earlier, key) if isinstance(earlier, str) and isinstance(key, str) else []

    @property
    def begun(self) -> dict[str, Any]:
        """The note to store before the run starts."""
        return {**self.request, "after": self._before}

    def ended(self, run: str | Path) -> dict[str, Any]:
        """The note to store after the run has finished, with the run's number, so that the folder can be moved."""
        note = {**self.request, "run": Path(run).name}
        write_json_atomically(Path(run) / COPY, note)
        return note


def read_note(path: Path, runs: Path) -> dict[str, Any]:
    """Read the note of an attempt.

    Args:
        path: of the file; if it is damaged, a warning is printed and the copy of the newest run is read.
        runs: parent of the run folders.

    Returns:
        The note; empty if there is none.
    """
    try:
        return load_json(path, dict)
    except FileNotFoundError:
        return {}
    except ValueError as error:
        sys.stderr.write(f"warning: {error}\n")
        return copied_note(runs)


def copied_note(runs: Path) -> dict[str, Any]:
    """The note in the folder of the newest run that has one; empty if there is none.

    Args:
        runs: parent of the run folders.
    """
    for run in reversed(numbered(runs)):
        try:
            return load_json(run / COPY, dict)
        except (OSError, ValueError):
            continue
    return {}


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
