"""Every test asserts something, and every tolerance has its reason."""

import ast
import io
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PYTEST = {"raises", "warns", "fail"}
HELPERS = ("assert_", "check_", "require_", "test_")
"""Prefixes of functions that assert."""

TOLERANCES = {"abs", "rel", "atol", "rtol"}
ROUNDING = 1e-3
"""The smallest tolerance that is not plain rounding."""

ABOVE = 3
"""Number of lines above a tolerance in which its comment may be."""

DIRECTIVES = ("type:", "noqa", "fmt:", "pragma:")
"""Prefixes of comments for tools."""


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
def test_which_statements_count_as_assertions(body: str, expected: bool) -> None:
    (test,) = functions_of(f"def test_it():\n    {body}\n")
    assert asserts(test) == expected


def explained(source: str) -> set[int]:
    """Lines with a comment."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = ((token.start[0], token.string.lstrip("# ")) for token in tokens if token.type == tokenize.COMMENT)
    return {line for line, text in comments if text and not text.startswith(DIRECTIVES)}


def bare_tolerances(source: str) -> list[int]:
    """Lines with a literal tolerance of a thousandth or more and without a comment."""
    comments, found = explained(source), set()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.keyword) or node.arg not in TOLERANCES or not isinstance(node.value, ast.Constant):
            continue
        value, line = node.value.value, node.value.lineno
        if isinstance(value, int | float) and value >= ROUNDING and comments.isdisjoint(range(line - ABOVE, line + 1)):
            found.add(line)
    return sorted(found)


def test_a_tolerance_has_its_reason_beside_it() -> None:
    bare = [
        f"{path.relative_to(TESTS.parent).as_posix()}:{line}"
        for path in sorted(TESTS.rglob("*.py"))
        for line in bare_tolerances(path.read_text("utf-8"))
    ]
    assert not bare, (
        f"these tolerances have no reason beside them: {', '.join(bare)}. Tighten each to what rounding leaves, "
        f"compute it from what bounds the error (a standard error, a cell, a time step), or derive it in a comment on "
        f"its line or in the {ABOVE} lines above"
    )


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("f(x, atol=0.05)", [1]),
        ("f(x,\n  rtol=0,\n  atol=1)", [3]),
        ("'\\n# in a string'\nf(x, rel=0.05)", [2]),
        ("f(x, abs=0.05)  # noqa: S101", [1]),
        ("# far away\n\n\n\nf(x, abs=0.05)", [5]),
        ("# half a cell\n\n\nf(x, abs=0.05)", []),
        ("f(x, abs=0.05)  # half a cell", []),
        ("f(x, abs=1e-4)", []),
        ("f(x, abs=3 * error)", []),
        ("f(x, bound=0.05)", []),
    ],
)
def test_which_tolerances_are_bare(body: str, expected: list[int]) -> None:
    assert bare_tolerances(body) == expected
