"""Entry point of the command line: handles what needs no torch, and passes everything else to `scoredistill.cli`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

if __name__ == "__main__" and sys.path[0] in ("", os.getcwd()):
    del sys.path[0]  # `python -m` puts the working directory there, before the libraries

from scoredistill import start_up
from scoredistill.version import __version__

# Commands that `scoredistill.cli.main` runs, with their help.
COMMANDS = {
    "fit": "train a generator with a recipe",
    "stages": "run recipes in sequence, each from the result of the previous one",
    "ablate": "run a recipe with all combinations of some settings, and compare",
    "report": "write the report of a study again",
    "validate": "validate a checkpoint",
    "test": "test a checkpoint",
    "predict": "write samples of a checkpoint",
    "export": "write a trained generator's mesh, pictures or weights",
    "view": "show a run in the browser: curves, pictures, meshes",
}

HELP = """\
usage: scoredistill COMMAND [options]

Distill a diffusion model's score into NeRFs, meshes and one-step generators.

commands:
{commands}
  recipes    list, show and copy the shipped recipes

options:
  -h, --help     show this help
  --version      show the version

Quick start:           scoredistill fit --config recipes/quickstart.yaml
Options of a command:  scoredistill COMMAND --help
""".format(commands="\n".join(f"  {name:9}  {what}" for name, what in COMMANDS.items()))


def _reject(word: str) -> int:
    from scoredistill.recipe_library import did_you_mean

    if word.startswith("-"):
        message = f"{word} must come after a command, as in `scoredistill fit {word}`; see `scoredistill --help`"
    else:
        choices = [*COMMANDS, "recipes"]
        hint = did_you_mean(word, choices) or f"Choose from {', '.join(choices)}."
        message = f"there is no command {word!r}. {hint}"
    sys.stderr.write(f"scoredistill: {message}\n")
    return 2


def _answer(arguments: Sequence[str]) -> int:
    command = arguments[0] if arguments else "--help"
    if command in ("-h", "--help"):
        sys.stdout.write(HELP)
        return 0
    if command == "--version":
        sys.stdout.write(f"scoredistill {__version__}\n")
        return 0
    if command == "recipes":
        from scoredistill import recipe_library

        return recipe_library.main(arguments[1:])
    if command in COMMANDS:
        from scoredistill.processes import end_with_parent

        end_with_parent()
        from scoredistill import cli  # imports torch and Lightning, which takes seconds

        return cli.main(list(arguments))
    return _reject(command)


def main(argv: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the arguments after `scoredistill`; None: those of the process, whose streams and signals are then
            prepared for a long run, see `start_up`.

    Returns:
        The exit code.
    """
    if argv is None:
        start_up.prepare()
        argv = sys.argv[1:]
    try:
        return _answer(argv)
    except KeyboardInterrupt:
        return 130  # as shells report for an interrupted program


if __name__ == "__main__":
    sys.exit(main())
