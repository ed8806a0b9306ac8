"""The site: pages in Markdown, the reference from docstrings, recipes and help texts. Needs no network.

uv run --group docs sphinx-build -W -q docs docs/_build
"""

import ast
import contextlib
import importlib
import inspect
import io
import pkgutil
import re
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import scoredistill
from scoredistill.__main__ import COMMANDS, main
from scoredistill.version import __version__

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import objectives_page  # noqa: E402

REFERENCE = HERE / "reference"

project, release, copyright = "scoredistill", __version__, "the authors of scoredistill"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
myst_enable_extensions = ["deflist", "dollarmath"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "scoredistill"
html_copy_source = html_show_sphinx = False
exclude_patterns = ["_build", "reference/objectives_measured.md"]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True, "special-members": "__call__", "show-inheritance": True}
python_maximum_signature_line_length = 88
default_role = "code"
suppress_warnings = ["myst.xref_missing"]  # links to files of the repository; tests/test_docs.py checks them all
SECTION = re.compile(r"(Args|Returns|Raises|Yields):$")
COLON = "\N{RATIO}"
ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})")


def as_restructured_text(app, what, name, obj, options, lines):
    """Docstrings are plain text: indented formulas become literal blocks, and a star is a star."""
    result, formula, sections = [], False, False
    for line in lines:
        sections = sections or bool(SECTION.match(line))
        if not sections and line.startswith("    "):
            if not formula and not (result and result[-1]):
                result += ["::", ""]
            formula = True
        elif line.strip():
            formula = False
        line = line if formula else re.sub(r"(?<!\w)\*|\*(?!\w)|(?<=\w)_(?!\w)|\|", r"\\\g<0>", line)
        result.append(re.sub(r"(: \w)\.(?= |$)", r"\1\\.", line) if sections else line)  # "rows: B." has no list
    if what in ("attribute", "property") and result:  # Napoleon takes the words before a colon as its type
        result[0] = result[0].replace(":", COLON)
    lines[:] = result


def restore_colons(app, what, name, obj, options, lines):
    """Put back what was hidden from Napoleon."""
    lines[:] = [line.replace(COLON, ":") for line in lines]


def skip_member(app, what, name, obj, skip, options):
    """Leave out a `__call__` without a docstring, and the fields of a named tuple, which its docstring lists."""
    document = getattr(obj, "__doc__", None) or ""
    without_text = name == "__call__" and not document
    return True if without_text or document.startswith("Alias for field number") else skip


def process_signature(app, what, name, obj, options, signature, return_annotation):
    """Leave out the signature of a class that has none of its own, and defaults that a dataclass makes anew."""
    if what == "class" and re.fullmatch(r"\(\*args(: \S+)?, \*\*kwargs(: \S+)?\)", signature or ""):
        return "", None
    return signature and signature.replace("<factory>", "..."), return_annotation


@cache
def public_modules() -> list[str]:
    """The modules that define `__all__`: the packages and the single files beside them, without the command line."""
    found = pkgutil.walk_packages(scoredistill.__path__, "scoredistill.")
    names = [module.name for module in found if module.ispkg or module.name.count(".") == 1]
    names = [name for name in names if not re.search(r"\.(cli|_)", name)]
    return ["scoredistill", *(name for name in names if getattr(importlib.import_module(name), "__all__", None))]


@cache
def tree(module: str) -> ast.Module:
    """The source of a module, parsed."""
    return ast.parse(inspect.getsource(importlib.import_module(module)))


def definition(module: str, name: str) -> tuple[str, int]:
    """The module that defines a public name of another, and the position in that module's body."""
    for position, node in enumerate(tree(module).body):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", node)]
        if name in {getattr(target, "id", getattr(target, "name", None)) for target in targets}:
            return module, position
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.ImportFrom) and name in {alias.name for alias in node.names}:
            return definition(node.module, name)
    raise LookupError(f"{module} does not define {name}")


def imported(module: str) -> set[str]:
    """The modules that a module imports from at its top level."""
    return {node.module for node in tree(module).body if isinstance(node, ast.ImportFrom)}


@cache
def homes() -> dict[tuple[str, str], str]:
    """(Defining module, name) -> the public module with its entry: the narrowest package around the definition."""
    result: dict[tuple[str, str], str] = {}
    for module in public_modules():  # packages come before what is in them
        for name in importlib.import_module(module).__all__:
            source, _ = definition(module, name)
            if f"{source}.".startswith(f"{module}.") or (source, name) not in result:
                result[source, name] = module
    return result


def entries(module: str) -> tuple[list[str], list[str]]:
    """Names of a public module that have their entry on its page, bases first; paths of the others."""
    found = {name: definition(module, name) for name in importlib.import_module(module).__all__}
    paths = {name: homes()[source, name] for name, (source, _) in found.items()}
    sources = sorted({source for source, _ in found.values()})
    order = TopologicalSorter({source: [s for s in sources if s in imported(source)] for source in sources})
    order = list(order.static_order())
    here = [name for name in found if paths[name] == module]
    here.sort(key=lambda name: (order.index(found[name][0]), found[name][1]))
    return here, [f"{paths[name]}.{name}" for name in found if paths[name] != module]


def entry(module: str, name: str) -> str:
    """The directive that documents a public name."""
    value = getattr(importlib.import_module(module), name)
    if inspect.isclass(value) or inspect.isfunction(value):
        return f".. auto{'class' if inspect.isclass(value) else 'function'}:: {module}.{name}\n"
    source, position = definition(module, name)
    node, *after = tree(source).body[position : position + 2]
    text = ast.literal_eval(after[0].value) if after and isinstance(after[0], ast.Expr) else ""
    return f".. py:data:: {name}\n   :value: {ast.unparse(node.value)}\n\n   {' '.join(text.split())}\n"


def page(module: str) -> str:
    """The page of a public module."""
    here, elsewhere = entries(module)
    parts = [f"{module}\n{'=' * len(module)}", f".. automodule:: {module}\n   :no-members:"]
    if elsewhere:
        parts.append(f"Also exported: {', '.join(f':py:obj:`{path}`' for path in elsewhere)}.")
    parts.append(f".. py:currentmodule:: {module}")
    return "\n\n".join([*parts, *(entry(module, name) for name in here)]) + "\n"


def run_type_checking_imports() -> None:
    """Import into each module what it imports only for the type checker, so that annotations resolve to classes."""
    for source in {source for source, _ in homes()}:
        for node in tree(source).body:
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                exec(compile(ast.Module(node.body, []), source, "exec"), vars(importlib.import_module(source)))


def write_reference(app):  # noqa: D103
    run_type_checking_imports()
    REFERENCE.mkdir(exist_ok=True)
    names = public_modules()
    for old in REFERENCE.glob("*.rst"):
        if old.stem not in names:
            old.unlink()
    for name in names:
        (REFERENCE / f"{name}.rst").write_text(page(name))
    (REFERENCE / "commands.md").write_text(commands())
    (REFERENCE / "recipes.md").write_text(
        f"# Recipes\n\nWhat `scoredistill recipes` lists.\n\n{fenced(said('recipes'))}"
    )
    (REFERENCE / "objectives.md").write_text(objectives_page.page())
    (REFERENCE / "objectives_measured.md").write_text(objectives_page.measurements())
    listed = "\n".join(["objectives", "commands", "recipes", *names])
    (REFERENCE / "index.md").write_text(f"# Reference\n\n```{{toctree}}\n:maxdepth: 1\n\n{listed}\n```\n")


def short_names() -> dict[str, str]:
    """Public classes that a single word names -> their path."""
    paths: dict[str, list[str]] = {}
    for (_, name), module in homes().items():
        paths.setdefault(name, []).append(f"{module}.{name}")
    return {name: found[0] for name, found in paths.items() if len(found) == 1 and re.match("[A-Z][A-Za-z]", name)}


def add_links(app, doctree):
    """Link each arXiv number to its paper, and each class that a page or docstring names as code to its entry."""
    from docutils import nodes
    from sphinx.addnodes import pending_xref

    def linked(node):
        while node := node.parent:
            if isinstance(node, nodes.reference | nodes.title | nodes.FixedTextElement | pending_xref):
                return True
        return False

    for node in list(doctree.findall(nodes.Text)):
        pieces = ARXIV.split(node.astext())
        if len(pieces) > 1 and not linked(node) and not isinstance(node.parent, nodes.literal):
            new = [nodes.Text(pieces[0])]
            for number, text in zip(pieces[1::2], pieces[2::2], strict=True):
                new.append(nodes.reference("", f"arXiv:{number}", refuri=f"https://arxiv.org/abs/{number}"))
                new.append(nodes.Text(text))
            node.parent.replace(node, new)
    paths = short_names()
    for node in list(doctree.findall(nodes.literal)):
        name, dot, member = node.astext().partition(".")
        if name in paths and re.fullmatch(r"\w*", member) and not linked(node):
            target = paths[name] + dot + member
            settings = {"refdomain": "py", "reftype": "obj", "refdoc": app.env.docname, "refwarn": False}
            xref = pending_xref("", node.deepcopy(), reftarget=target, **settings)
            node.parent.replace(node, xref)


def add_aliases(app, env):
    """Enter a name under every public path in the inventory; those beside its home lead to the same entry."""
    objects = env.domains.python_domain.objects
    for module in public_modules():
        for path in entries(module)[1]:
            alias = f"{module}.{path.rpartition('.')[2]}"
            objects.setdefault(alias, objects[path]._replace(aliased=True))


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
    app.connect("autodoc-process-docstring", restore_colons, priority=600)
    app.connect("autodoc-process-signature", process_signature)
    app.connect("autodoc-skip-member", skip_member)
    app.connect("doctree-read", add_links)
    app.connect("env-updated", add_aliases)


sys.setrecursionlimit(10_000)
