"""The site: pages in Markdown, the reference from docstrings, recipes and help texts. Needs no network.

uv run --group docs sphinx-build -W -q docs docs/_build
"""

import contextlib
import importlib
import inspect
import io
import pkgutil
import re
import sys
from pathlib import Path

import scoredistill
from scoredistill.__main__ import COMMANDS, main
from scoredistill.version import __version__

HERE = Path(__file__).parent
REFERENCE = HERE / "reference"

project, release, copyright = "scoredistill", __version__, "the authors of scoredistill"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "scoredistill"
html_copy_source = html_show_sphinx = False
exclude_patterns = ["_build"]
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_default_options = {"members": True, "imported-members": True, "show-inheritance": True}
default_role = "code"
suppress_warnings = ["myst.xref_missing"]  # links to files of the repository; tests/test_docs.py checks them all
SECTION = re.compile(r"(Args|Returns|Raises|Yields):$")


def as_restructured_text(app, what, name, obj, options, lines):
    """Docstrings are plain text: formulas, which stand indented, stay as they are, and a star is a star."""
    made, formula, sections = [], False, False
    for line in lines:
        sections = sections or bool(SECTION.match(line))
        if not sections and line.startswith("    "):
            if not formula and not (made and made[-1]):
                made += ["::", ""]
            formula = True
        elif line.strip():
            formula = False
        made.append(line if formula else re.sub(r"(?<!\w)\*|\*(?!\w)|(?<=\w)_(?!\w)|\|", r"\\\g<0>", line))
    lines[:] = made


def packages() -> list[str]:
    """Every module of the package that says what is public in it, the command line's own left out."""
    found = ["scoredistill"]
    for module in pkgutil.walk_packages(scoredistill.__path__, "scoredistill."):
        private = module.name.startswith("scoredistill.cli") or "._" in module.name
        if module.ispkg and not private and getattr(importlib.import_module(module.name), "__all__", None):
            found.append(module.name)
    return [*found, "scoredistill.divergences", "scoredistill.annealing"]


def write_reference(app):  # noqa: D103
    REFERENCE.mkdir(exist_ok=True)
    names = packages()
    for name in names:
        module = importlib.import_module(name)
        title = f"{name}\n{'=' * len(name)}"
        text = f"{title}\n\n.. automodule:: {name}\n"
        shown = [m for m in names if m.startswith(f"{name}.") and name != "scoredistill"]
        if twice := [k for k, v in vars(module).items() if getattr(v, "__module__", "").startswith(tuple(shown))]:
            text += f"   :exclude-members: {', '.join(twice)}\n\nSee also {', '.join(f':doc:`{m}`' for m in shown)}.\n"
        if not hasattr(module, "__all__"):
            own = [k for k, v in vars(module).items() if inspect.isclass(v) and v.__module__ == name and k[0] != "_"]
            text += f"   :no-imported-members:\n   :members: {', '.join(own)}\n"
        (REFERENCE / f"{name}.rst").write_text(text)
    (REFERENCE / "commands.md").write_text(commands())
    (REFERENCE / "recipes.md").write_text(
        f"# Recipes\n\nWhat `scoredistill recipes` lists.\n\n{fenced(said('recipes'))}"
    )
    listed = "\n".join(["commands", "recipes", *names])
    (REFERENCE / "index.md").write_text(f"# Reference\n\n```{{toctree}}\n:maxdepth: 1\n\n{listed}\n```\n")


def commands() -> str:
    """The help text of every command."""
    parts = ["# Commands\n", fenced(said("--help"))]
    for command in [*COMMANDS, "recipes"]:
        parts += [f"## scoredistill {command}\n", fenced(said(command, "--help"))]
    return "\n".join(parts)


def said(*words: str) -> str:
    """What a command prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        main(list(words))
    return out.getvalue()


def fenced(text: str) -> str:
    """A block of text as it is."""
    return f"```text\n{text.rstrip()}\n```\n"


def setup(app):  # noqa: D103
    app.connect("builder-inited", write_reference)
    app.connect("autodoc-process-docstring", as_restructured_text, priority=400)


sys.setrecursionlimit(10_000)
