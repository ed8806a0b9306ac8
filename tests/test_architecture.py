"""The order in which modules may import each other (docs: the layout of the package), and what start-up may load."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise, product
from pathlib import Path

import pytest

import scoredistill

PACKAGE = Path(scoredistill.__file__).parent

# A part may import from the parts above it in a chain, never from those below. Chains share names; parts that no chain
# orders may import from each other, as long as no cycle arises. A new part must be added here.
CHAINS = [
    [
        {"types", "annealing", "ranges", "cache", "files", "version", "distributed", "processes", "start_up"}
        | {"recipe_library", "recipe_yaml"},
        {"diffusion", "divergences", "rendering"},
        {"networks"},
        {"teachers", "critics", "ratios"},
        {"losses"},
        {"distiller"},
        {"training", "testing"},
        {"studies"},
        {"cli"},
        {"__main__"},
    ],
    [{"rendering", "networks"}, {"generators"}, {"distiller"}],
    [{"teachers", "rendering"}, {"evaluation", "data"}, {"training"}],
]
STRANGERS = [("generators", "losses")]  # neither imports the other
LIGHTNING = {"pytorch_lightning", "lightning", "lightning_fabric"}
LIGHTNING_USERS = {"training", "studies", "cli"}
ONLY_IN_FUNCTIONS = {"diffusers", "transformers", "peft"}
TORCH_FREE = {"__main__", "recipe_library", "recipe_yaml", "start_up", "version"}
NAME = re.compile(r"\bscoredistill(?:\.\w+)+")
"""The name of a module in a string, with which it can be imported too: importlib.import_module, python -m."""


@dataclass(frozen=True)
class Import:
    """One import: importer, target, line, and whether it is executed when the importer is imported.

    A module that is named in a string is one too.
    """

    importer: str
    target: str
    line: int
    at_once: bool
    in_string: bool = False

    @property
    def where(self) -> str:
        verb = "names" if self.in_string else "imports"
        return f"{self.importer.replace('.', '/')}.py:{self.line} {verb} {self.target}"


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def import_nodes(node: ast.AST, at_once: bool = True) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Walk the import statements, leaving out those that only a type checker runs."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, at_once
        elif isinstance(child, ast.If) and is_type_checking(child):
            for other in child.orelse:
                yield from import_nodes(ast.Module([other], []), at_once)
        else:
            in_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from import_nodes(child, at_once and not in_function)


def strings(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Walk the string literals, the fixed parts of f-strings included, and leave out docstrings."""
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.value, node.lineno


def targets(node: ast.Import | ast.ImportFrom, package: str) -> list[str]:
    """Name what a statement imports: modules, or modules with a name inside them."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = node.module or ""
    if node.level:
        parents = package.split(".")[: len(package.split(".")) - node.level + 1]
        base = ".".join([*parents, *([base] if base else [])])
    return [f"{base}.{alias.name}" for alias in node.names]


def imports_of(path: Path, root: Path) -> list[Import]:
    module = ".".join(path.relative_to(root).with_suffix("").parts)
    package = module.rpartition(".")[0]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    statements = [
        Import(module, target, node.lineno, at_once)
        for node, at_once in import_nodes(tree)
        for target in targets(node, package)
    ]
    names = [
        Import(module, target, line, at_once=False, in_string=True)
        for text, line in strings(tree)
        for target in NAME.findall(text)
    ]
    return statements + names


def all_imports(package: Path = PACKAGE) -> list[Import]:
    return [found for path in sorted(package.rglob("*.py")) for found in imports_of(path, package.parent)]


def part(module: str) -> str:
    """Name the part of scoredistill that a module belongs to; nothing for the facade and for other packages."""
    names = module.split(".")
    return names[1] if names[0] == "scoredistill" and len(names) > 1 and names[1] != "__init__" else ""


def top(target: str) -> str:
    return target.split(".")[0]


def order() -> set[tuple[str, str]]:
    """All pairs (lower, upper) in the order of the chains, directly or transitively."""
    pairs = {pair for chain in CHAINS for low, high in pairwise(chain) for pair in product(low, high)}
    while more := {(a, d) for a, b in pairs for c, d in pairs if b == c} - pairs:
        pairs |= more
    return pairs


PARTS = {name for chain in CHAINS for layer in chain for name in layer}
ORDER = order()
IMPORTS = all_imports()


def inner(imports: list[Import]) -> list[Import]:
    """Imports from one part of scoredistill to another. `from scoredistill import X` counts where X is a part."""
    return [i for i in imports if part(i.importer) and part(i.target) in PARTS - {part(i.importer)}]


def upward(imports: list[Import]) -> list[str]:
    return [i.where for i in inner(imports) if (part(i.importer), part(i.target)) in ORDER]


def between_strangers(imports: list[Import]) -> list[str]:
    pairs = {frozenset(pair) for pair in STRANGERS}
    return [i.where for i in inner(imports) if frozenset((part(i.importer), part(i.target))) in pairs]


def misplaced_lightning(imports: list[Import]) -> list[str]:
    return [i.where for i in imports if top(i.target) in LIGHTNING and part(i.importer) not in LIGHTNING_USERS]


def eager(imports: list[Import]) -> list[str]:
    return [i.where for i in imports if top(i.target) in ONLY_IN_FUNCTIONS and i.at_once]


def torch_in_torch_free(imports: list[Import]) -> list[str]:
    """Imports of torch, or of a part of scoredistill that may import it, in a module that start-up loads."""
    return [
        i.where
        for i in imports
        if part(i.importer) in TORCH_FREE
        and (top(i.target) == "torch" or (i.at_once and part(i.target) in PARTS - TORCH_FREE))
    ]


def facade_users(imports: list[Import]) -> list[str]:
    """Modules that import a lazy name of the package instead of the module that defines it."""
    return [
        i.where
        for i in imports
        if part(i.importer) and top(i.target) == "scoredistill" and part(i.target) not in PARTS and not i.in_string
    ]


RULES = {
    "upward": upward,
    "between_strangers": between_strangers,
    "misplaced_lightning": misplaced_lightning,
    "eager": eager,
    "torch_in_torch_free": torch_in_torch_free,
    "facade_users": facade_users,
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_rule_holds(rule):
    broken = rule(IMPORTS)
    assert not broken, "\n".join(["against the import order of tests/test_architecture.py:", *broken])


def test_every_part_is_in_the_order():
    parts = {path.stem for path in PACKAGE.glob("*.py")} | {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    unplaced = parts - PARTS - {"__init__"}
    assert not unplaced, f"add {sorted(unplaced)} to CHAINS in tests/test_architecture.py"


def test_parts_import_each_other_without_cycles():
    graph: dict[str, set[str]] = {}
    for found in inner(IMPORTS):
        graph.setdefault(part(found.importer), set()).add(part(found.target))
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"parts import each other in a circle: {' <- '.join(error.args[1])}")


def test_the_order_has_no_cycle():
    assert ("types", "cli") in ORDER
    assert ("rendering", "distiller") in ORDER
    assert ("diffusion", "losses") in ORDER
    assert not any((high, low) in ORDER for low, high in ORDER)


@pytest.mark.parametrize(
    ("file", "code", "rules"),
    [
        ("types.py", "from scoredistill.losses import SDS", ["upward"]),
        ("types.py", "def f():\n    import scoredistill.training.distillation", ["upward"]),
        (
            "types.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from scoredistill.losses import SDS",
            [],
        ),
        ("losses/sds.py", "from scoredistill import distiller", ["upward"]),
        ("losses/sds.py", "from ..generators.base import Generator", ["between_strangers"]),
        ("losses/sds.py", "from .base import Loss", []),
        ("studies/runner.py", "from scoredistill.cli import main", ["upward"]),
        ("studies/runner.py", 'MODULE = "scoredistill.cli.study_worker"', ["upward"]),
        ("types.py", 'def f(name):\n    return f"scoredistill.losses.{name}"', ["upward"]),
        ("losses/sds.py", 'NAMES = ["python -m scoredistill.generators.nerf"]', ["between_strangers"]),
        ("losses/sds.py", '"""Like scoredistill.cli.main."""\nNAME = "scoredistill.version"', []),
        ("generators/nerf/grid.py", "from scoredistill.losses import SDS", ["between_strangers"]),
        ("losses/sds.py", "import pytorch_lightning as pl", ["misplaced_lightning"]),
        ("training/module.py", "import pytorch_lightning as pl", []),
        ("teachers/diffusers.py", "try:\n    from diffusers import X\nexcept ImportError:\n    X = None", ["eager"]),
        ("teachers/diffusers.py", "class A:\n    import peft.tuners", ["eager"]),
        ("teachers/diffusers.py", "class A:\n    def f(self):\n        import transformers", []),
        ("version.py", "import torch.nn", ["torch_in_torch_free"]),
        ("__main__.py", "from scoredistill import cli", ["torch_in_torch_free"]),
        ("__main__.py", "def f():\n    from scoredistill import cli", []),
        ("losses/sds.py", "from scoredistill import Distiller", ["facade_users"]),
        ("__init__.py", "from scoredistill.cli import main", []),
    ],
)
def test_rules_detect_violations(tmp_path, file, code, rules):
    path = tmp_path / "scoredistill" / file
    path.parent.mkdir(parents=True)
    path.write_text(code)
    imports = all_imports(tmp_path / "scoredistill")
    assert [name for name, rule in RULES.items() if rule(imports)] == rules


def part_exists(name: str) -> bool:
    return (PACKAGE / f"{name}.py").is_file() or (PACKAGE / name / "__init__.py").is_file()


def loaded_by(code: str, *names: str) -> tuple[set[str], str]:
    """Run code in a new interpreter, and return the packages that it loaded and its output."""
    program = f"import sys\n{code}\nsys.stderr.write(' '.join(n for n in {names!r} if n in sys.modules))"
    environment = os.environ | {"PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment, timeout=120
    )
    return set(done.stderr.split()), done.stdout


def test_importing_the_package_is_cheap():
    heavy = ("torch", "diffusers", "transformers", "pytorch_lightning", "lightning", "torchmetrics", "torchvision")
    assert loaded_by("import scoredistill", *heavy)[0] == set()


@pytest.mark.slow
def test_the_core_loads_no_heavy_library():
    """Not even transitively. `torch._dynamo` is listed because a module-level torch.compile takes seconds."""
    core = sorted({low for low, high in ORDER if high == "training"} | {"generators"})
    code = "".join(f"import scoredistill.{name}\n" for name in core if part_exists(name))
    heavy = ("diffusers", "transformers", "peft", "pytorch_lightning", "lightning", "torchmetrics", "torch._dynamo")
    assert loaded_by(code, *heavy)[0] == set()


@pytest.mark.parametrize("words", [[], ["--help"], ["--version"], ["recipes"], ["fti"]], ids=" ".join)
def test_start_up_loads_no_torch(words):
    code = f"from scoredistill.__main__ import main\nassert main({words!r}) in (0, 2)\nsys.stderr.write('\\n')"
    loaded, _ = loaded_by(code, "torch", "numpy", "rich", "yaml", "jsonargparse", "pytorch_lightning")
    assert not loaded & {"torch", "numpy", "rich", "yaml", "jsonargparse", "pytorch_lightning"}


def test_python_m_runs_the_command_line():
    done = subprocess.run(
        [sys.executable, "-m", "scoredistill", "--version"],
        capture_output=True,
        text=True,
        cwd=PACKAGE.parent,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (0, f"scoredistill {scoredistill.__version__}\n")
