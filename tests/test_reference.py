"""The reference has an entry for every public name, and every class that a public signature mentions is public."""

import ast
import importlib
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import scoredistill

ROOT = Path(__file__).parents[1]
PACKAGE = Path(scoredistill.__file__).parent
SOURCES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if "cli" not in path.parts or path.stem == "load_run"  # `scoredistill.load` is defined there
}
SHOWN = ("__init__", "__new__", "__call__")
"""Special methods that belong to the public signature of a class."""

Definition = tuple[str, str]
"""The module that defines a name, and the name."""


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(SOURCES[module].read_text())


@cache
def defined(module: str) -> dict[str, ast.stmt]:
    """The top-level definitions of a module, by name."""
    found: dict[str, ast.stmt] = {}
    for node in tree(module).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found[node.name] = node
        for target in node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]:
            if isinstance(target, ast.Name):
                found[target.id] = node
    return found


@cache
def imported(module: str) -> dict[str, Definition]:
    """The names that a module imports, also for the type checker only."""
    nodes = [node for node in ast.walk(tree(module)) if isinstance(node, ast.ImportFrom)]
    return {each.asname or each.name: (node.module or "", each.name) for node in nodes for each in node.names}


def definition(module: str, name: str) -> Definition | None:
    """The definition of a name that a module uses; None: it is outside this package."""
    if module not in SOURCES:
        return None
    if name in defined(module):
        return module, name
    return definition(*imported(module)[name]) if name in imported(module) else None


def exports() -> dict[str, list[str]]:
    """Public module -> its `__all__`."""
    found = {module: defined(module).get("__all__") for module in SOURCES}
    return {module: ast.literal_eval(node.value) for module, node in found.items() if isinstance(node, ast.Assign)}


EXPORTS = exports()
PUBLIC = {definition(module, name): f"{module}.{name}" for module, names in EXPORTS.items() for name in names}


def annotations(node: ast.AST) -> Iterator[ast.expr]:
    """The annotations of a function; those of the public members of a class, and its bases; the value of an alias."""
    if isinstance(node, ast.FunctionDef):
        arguments = node.args
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
        yield from (each.annotation for each in every if each and each.annotation)
        yield from [node.returns] if node.returns else []
    elif isinstance(node, ast.ClassDef):
        yield from node.bases
        for member in node.body:
            if isinstance(member, ast.FunctionDef) and (member.name in SHOWN or not member.name.startswith("_")):
                yield from annotations(member)
            elif isinstance(member, ast.AnnAssign) and not ast.unparse(member.target).startswith("_"):
                yield member.annotation
    elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) != "__all__":
        yield node.value


def mentioned(module: str, node: ast.AST) -> Iterator[Definition]:
    """The classes and functions of this package in the annotations of a definition, also in aliases and in quotes."""
    pending: list[ast.AST] = list(annotations(node))
    while pending:
        for each in ast.walk(pending.pop()):
            if isinstance(each, ast.Constant) and isinstance(each.value, str) and each.value.isidentifier():
                pending.append(ast.Name(each.value))
            found = definition(module, each.id) if isinstance(each, ast.Name) else None
            if found is None:
                continue
            target = defined(found[0])[found[1]]
            if isinstance(target, ast.ClassDef | ast.FunctionDef):
                yield found
            elif target is not node:
                yield from mentioned(found[0], target)


def test_every_name_in_an_all_can_be_imported():
    missing = [
        f"{module}.{name}"
        for module, names in EXPORTS.items()
        for name in names
        if not hasattr(importlib.import_module(module), name)
    ]
    assert not missing
    assert all(PUBLIC)


def test_every_class_that_a_public_signature_mentions_is_public():
    private = {
        f"{'.'.join(found)}, in the signature of {path}"
        for (module, name), path in PUBLIC.items()
        for found in mentioned(module, defined(module)[name])
        if found not in PUBLIC
    }
    assert not private, "\n".join(["add to an __all__:", *sorted(private)])


def test_every_public_module_has_a_page():
    pages = runpy.run_path(str(ROOT / "docs/conf.py"))["public_modules"]()
    assert sorted(pages) == sorted(EXPORTS), "only packages, and modules beside them, have an __all__"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("sphinx")  # in the group docs
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "-q", str(ROOT / "docs"), str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=1200)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_every_public_name_has_an_entry_in_the_inventory(site: Path):
    from sphinx.util.inventory import InventoryFile

    inventory = InventoryFile.loads((site / "objects.inv").read_bytes(), uri="")
    entries = {name for kind, found in inventory.data.items() if kind.startswith("py:") for name in found}
    missing = {f"{module}.{name}" for module, names in EXPORTS.items() for name in names} - entries
    assert not missing, "\n".join(["without an entry in the reference:", *sorted(missing)])
    calls = [f"scoredistill.diffusion.{name}.__call__" for name in ("Guidance", "TimeWeight", "TimestepSampler")]
    assert set(calls) <= entries


@pytest.mark.slow
def test_signatures_link_types_sources_and_papers(site: Path):
    pages = {path.stem: path.read_text() for path in (site / "reference").glob("scoredistill*.html")}
    reweight = pages["scoredistill.losses"].partition('id="scoredistill.losses.ScoreDistillation.reweight"')[2]
    assert 'href="#scoredistill.losses.Reweighting"' in reweight.partition("</dt>")[0]
    assert "losses/distillation.html#ScoreDistillation.reweight" in reweight.partition("</dt>")[0]
    classes = {name for _, name in PUBLIC if name[0].isupper()} - {"Generator"}  # torch has one too
    for page, text in pages.items():
        unlinked = re.sub("<a .*?</a>", "", text, flags=re.S)
        papers = re.findall(r"arXiv:[\d.]+", unlinked)
        assert not papers, f"{page} does not link {papers}"
        signatures = re.findall('<em class="sig-param">.*?</em>|<span class="sig-return">.*?</dt>', unlinked, re.S)
        types = {word for each in signatures for word in re.findall('<span class="pre">([A-Z]\\w+)</span>', each)}
        assert not types & classes, f"{page} does not link {types & classes}"
