"""`scoredistill recipes`: list, show and copy the shipped recipes, without torch."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from scoredistill.recipe_library import RecipeError, copy, copy_all, did_you_mean, recipes, references, shipped

USAGE = """\
usage: scoredistill recipes                        list them
       scoredistill recipes show NAME              print one
       scoredistill recipes copy NAME [DEST]       copy one, to a file or into a folder (default: this folder)
       scoredistill recipes copy --all [DEST]      copy all of them, with their folders (default: ./recipes)

NAME is a path as listed; `.yaml` and a leading `recipes/` may be left out. Nothing is ever overwritten.
A recipe may refer to others by relative path (loss: ../losses/sds.yaml). `copy NAME` copies that one file and tells you
what it refers to; `copy --all` keeps the folders, so that every reference still leads somewhere.
"""


class _Parser(argparse.ArgumentParser):
    """Prints the one help text of `scoredistill recipes`, and raises what argparse would print."""

    def format_help(self) -> str:
        return USAGE

    def error(self, message: str) -> NoReturn:
        raise RecipeError(f"{message}; see `scoredistill recipes --help`")


def _list(arguments: Sequence[str]) -> None:
    _Parser().parse_args(arguments)
    found = recipes()
    width = max((len(recipe.name) for recipe in found), default=0)
    for recipe in found:
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
        parser.error("copy needs the NAME of a recipe, or --all")
    if len(words) > (1 if options.all else 2):
        parser.error(f"copy does not know what to do with {words[-1]!r}")
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
        arguments: what stands after `recipes`.

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
    except SystemExit as end:  # argparse's way of ending after --help
        return int(end.code or 0)
    return 0
