"""Every test asserts something."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PYTEST = {"raises", "warns", "fail"}
HELPERS = ("assert_", "check_", "require_", "test_")
"""How functions begin whose purpose is to assert."""


def functions_of(source: str) -> Iterator[ast.FunctionDef]:
    """The test functions of a file, those of classes too."""
    nodes = ast.walk(ast.parse(source))
    return (node for node in nodes if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"))


def asserts(test: ast.FunctionDef) -> bool:
    """Whether a test has an assertion, expects an exception or calls a helper that asserts."""
    for node in ast.walk(test):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Call):
            owner, _, name = ast.unparse(node.func).rpartition(".")
            if (owner == "pytest" and name in PYTEST) or (owner in ("", "torch.testing") and name.startswith(HELPERS)):
                return True
    return False


@pytest.mark.parametrize("path", sorted(TESTS.rglob("test_*.py")), ids=lambda path: path.relative_to(TESTS).as_posix())
def test_every_test_asserts_something(path: Path) -> None:
    silent = [
        f"{path.name}:{test.lineno} {test.name}" for test in functions_of(path.read_text("utf-8")) if not asserts(test)
    ]
    assert not silent, f"these tests assert nothing: {silent}"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("assert x", True),
        ("with pytest.raises(ValueError): f()", True),
        ("torch.testing.assert_close(a, b)", True),
        ("require_finite(g)", True),
        ("gallery.check('a mug')", False),
        ("gallery.check_it('a mug')", False),
        ("f()", False),
        ("raises(ValueError)", False),
    ],
)
def test_what_counts(body: str, expected: bool) -> None:
    (test,) = functions_of(f"def test_it():\n    {body}\n")
    assert asserts(test) == expected
