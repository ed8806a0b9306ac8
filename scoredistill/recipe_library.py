"""Shipped recipes: search by name, list and copy."""

from __future__ import annotations

import argparse
import difflib
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

SUFFIXES = (".yaml", ".yml")
LONGEST = 100
"""Largest length of a word for which close matches are computed; the time is quadratic in the length."""


class RecipeError(Exception):
    """A recipe was not found or cannot be copied; the message includes the remedy."""


@dataclass(frozen=True)
class Recipe:
    """One shipped recipe.

    Args:
        name: path relative to the recipe root, with forward slashes: `points/vsd.yaml`.
        path: path of the file.
        description: its first comment line, or empty.
    """

    name: str
    path: Path
    description: str


def _either(words: Iterable[str]) -> str:
    words = list(words)
    return f"Did you mean {' or '.join(map(repr, words))}?" if words else ""


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Suggest corrections of a misspelled word.

    Args:
        word: the word.
        choices: the valid words.

    Returns:
        `Did you mean 'a' or 'b'?`, or an empty string if no choice is close.
    """
    if len(word) > LONGEST:
        return ""
    known = list(choices)
    by_case = [choice for choice in known if choice.casefold() == word.casefold()]
    return _either(by_case or difflib.get_close_matches(word, known, n=3, cutoff=0.55))


def root() -> Path:
    """Find the folder of the shipped recipes.

    Returns:
        `scoredistill/recipes` of an installed wheel, or the top-level `recipes` of a checkout.

    Raises:
        RecipeError: if neither exists.
    """
    package = Path(__file__).resolve().parent
    installed = package / "recipes"
    if installed.is_dir():
        return installed
    # A folder of that name next to an installed package may belong to another: only a checkout has a pyproject.toml.
    checkout = package.parent / "recipes"
    if checkout.is_dir() and (package.parent / "pyproject.toml").is_file():
        return checkout
    raise RecipeError("this installation of scoredistill has no recipes: reinstall it, or use your own recipe")


def _describe(path: Path) -> str:
    with path.open(encoding="utf-8-sig") as lines:
        for line in lines:
            text = line.strip()
            if text.startswith("#"):
                return text.lstrip("#").strip()
            if text not in ("", "---"):
                break
    return ""


def recipes(folder: Path | None = None) -> list[Recipe]:
    """List the shipped recipes.

    Args:
        folder: the recipe root; default: the shipped one.

    Returns:
        Every recipe: those of the root first, then folder by folder, by name.
    """
    folder = folder or root()
    paths = sorted(
        (path for path in folder.rglob("*") if path.suffix in SUFFIXES and path.is_file()),
        key=lambda path: (path.parent.relative_to(folder).parts, path.name),
    )
    return [Recipe(path.relative_to(folder).as_posix(), path, _describe(path)) for path in paths]


def _normal(name: str) -> str:
    return name.replace("\\", "/").removeprefix("./").removeprefix("recipes/")


def _look_up(name: str, folder: Path | None) -> Recipe | None:
    known = {recipe.name: recipe for recipe in recipes(folder)}
    names = [_normal(name) + suffix for suffix in ("", *SUFFIXES)]
    return next((known[candidate] for candidate in names if candidate in known), None)


def _hint(name: str, folder: Path | None) -> str:
    """Suggest recipes: those with this file name in other folders, or else those with a similar name."""
    known = [recipe.name.rsplit(".", 1)[0] for recipe in recipes(folder)]
    stem = re.sub(r"\.ya?ml$", "", _normal(name))
    elsewhere = [other for other in known if Path(other).name == Path(stem).name]
    return _either(elsewhere) or did_you_mean(stem, known) or "`scoredistill recipes` lists them."


def shipped(name: str, folder: Path | None = None) -> Recipe:
    """Look up a shipped recipe.

    Args:
        name: `quickstart`, `points/vsd.yaml` or `recipes/points/vsd`.
        folder: the recipe root; default: the shipped one.

    Returns:
        The recipe.

    Raises:
        RecipeError: if there is no such recipe; the message lists close matches.
    """
    recipe = _look_up(name, folder)
    if recipe is None:
        raise RecipeError(f"no recipe is called {name!r}. {_hint(name, folder)}")
    return recipe


def find(name: str | Path, folder: Path | None = None) -> Path:
    """Resolve the value of `--config`.

    An existing file has precedence over a shipped recipe, so that a copied and edited `quickstart.yaml` is used.

    Args:
        name: path of a file, or name of a shipped recipe.
        folder: the recipe root; default: the shipped one.

    Returns:
        The path of an existing file.

    Raises:
        RecipeError: if it is neither; the message lists close matches.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    recipe = _look_up(str(name), folder)
    if recipe is None:
        raise RecipeError(f"{str(name)!r} is neither a file nor a shipped recipe. {_hint(str(name), folder)}")
    return recipe.path


def read(path: Path) -> Any:
    """Read a YAML file.

    Args:
        path: path of the file.

    Raises:
        RecipeError: with file and line, if it cannot be read or is not YAML.
    """
    import yaml  # type: ignore[import-untyped]  # imported here, because listing recipes does not need it

    from scoredistill import recipe_yaml

    try:
        return recipe_yaml.load(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        raise RecipeError(f"{path}{where} is not YAML: {getattr(error, 'problem', None) or error}") from error


def references(path: Path) -> list[str]:
    """List the YAML files that a recipe refers to by relative path.

    Args:
        path: the recipe.

    Returns:
        The distinct references to existing files, as written and in order.
    """
    code = re.sub(r"(^|\s)#.*", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    names = [word for word in re.split(r"[^\w./-]+", code) if word.endswith(SUFFIXES)]
    return [name for name in dict.fromkeys(names) if (path.parent / name).is_file()]


def copy(name: str, destination: Path = Path(), folder: Path | None = None) -> Path:
    """Copy one shipped recipe, without the files that it refers to.

    Args:
        name: see `shipped`.
        destination: a file if it ends in .yaml or .yml; otherwise a folder.
        folder: the recipe root; default: the shipped one.

    Returns:
        The file written.

    Raises:
        RecipeError: if there is no such recipe, or the file already exists.
    """
    source = shipped(name, folder).path
    is_file_name = destination.suffix in SUFFIXES and not destination.is_dir()
    target = destination if is_file_name else destination / source.name
    _copy({source: target})
    return target


def copy_all(destination: Path = Path("recipes"), folder: Path | None = None) -> list[Path]:
    """Copy all recipes with their folders, so that relative references remain valid.

    Args:
        destination: root folder of the copy.
        folder: the recipe root; default: the shipped one.

    Returns:
        The files written.

    Raises:
        RecipeError: if any of the files already exists; then nothing is copied.
    """
    source = folder or root()
    if not recipes(source):
        raise RecipeError(f"there are no recipes to copy in {source}")
    files = sorted(path for path in source.rglob("*") if path.is_file() and not path.name.startswith("."))
    targets = {path: destination / path.relative_to(source) for path in files}
    _copy(targets)
    return list(targets.values())


def _copy(targets: dict[Path, Path]) -> None:
    """Copy files if none of the targets exists."""
    existing = [str(target) for target in targets.values() if target.exists() or target.is_symlink()]
    if existing:
        more = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise RecipeError(f"{existing[0]}{more} already exists: choose another destination, or remove it first")
    try:
        for source, target in targets.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    except OSError as error:
        raise RecipeError(f"cannot write {error.filename}: {error.strerror}") from error


USAGE = """\
usage: scoredistill recipes                        list all recipes
       scoredistill recipes show NAME              print a recipe
       scoredistill recipes copy NAME [DEST]       copy a recipe to a file or into a folder (default: this folder)
       scoredistill recipes copy --all [DEST]      copy all recipes with their folders (default: ./recipes)

NAME is a path as listed; `.yaml` and a leading `recipes/` may be omitted. Existing files are never overwritten.
A recipe may refer to others by relative path (loss: ../losses/sds.yaml). `copy NAME` copies this file only and lists
its references; `copy --all` copies the folders as well, so that all references remain valid.
"""


class _Parser(argparse.ArgumentParser):
    """Prints the help text of `scoredistill recipes`, and raises errors that argparse would print."""

    def format_help(self) -> str:
        return USAGE

    def error(self, message: str) -> NoReturn:
        raise RecipeError(f"{message}; see `scoredistill recipes --help`")


def _list(arguments: Sequence[str]) -> None:
    _Parser().parse_args(arguments)
    shipped_recipes = recipes()
    width = max((len(recipe.name) for recipe in shipped_recipes), default=0)
    for recipe in shipped_recipes:
        sys.stdout.write(f"{recipe.name:{width}}  {recipe.description}".rstrip() + "\n")


def _show(arguments: Sequence[str]) -> None:
    parser = _Parser()
    parser.add_argument("name", metavar="NAME")
    text = shipped(parser.parse_args(arguments).name).path.read_text(encoding="utf-8")
    sys.stdout.write(text if text.endswith("\n") else text + "\n")


def _copy_command(arguments: Sequence[str]) -> None:
    parser = _Parser()
    parser.add_argument("--all", action="store_true")
    parser.add_argument("words", nargs="*")
    options = parser.parse_args(arguments)
    words = list(options.words)
    if not options.all and not words:
        parser.error("copy: expected the NAME of a recipe, or --all")
    if len(words) > (1 if options.all else 2):
        parser.error(f"copy: unexpected argument {words[-1]!r}")
    if options.all:
        written = copy_all(Path(words[0] if words else "recipes").expanduser())
        sys.stdout.write(f"copied {len(written)} files to {words[0] if words else 'recipes'}\n")
        return
    target = copy(words[0], Path(words[1] if len(words) > 1 else ".").expanduser())
    sys.stdout.write(f"copied to {target}\n")
    for reference in references(shipped(words[0]).path):
        sys.stdout.write(f"note: it refers to {reference}, which was not copied; `copy --all` copies every recipe\n")


_ACTIONS: dict[str, Callable[[Sequence[str]], None]] = {"list": _list, "show": _show, "copy": _copy_command}


def main(arguments: Sequence[str]) -> int:
    """Run `scoredistill recipes`.

    Args:
        arguments: the command-line arguments after `recipes`.

    Returns:
        The exit code: 0, or 2 after a message on standard error.
    """
    try:
        if arguments and arguments[0] in ("-h", "--help"):
            sys.stdout.write(USAGE)
            return 0
        action = arguments[0] if arguments else "list"
        if action not in _ACTIONS:
            hint = did_you_mean(action, _ACTIONS) or f"Choose from {', '.join(_ACTIONS)}."
            raise RecipeError(f"there is no action {action!r}. {hint}")
        _ACTIONS[action](arguments[1:])
    except RecipeError as error:
        sys.stderr.write(f"scoredistill recipes: {error}\n")
        return 2
    except SystemExit as end:  # raised by argparse after --help
        return int(end.code or 0)
    return 0
