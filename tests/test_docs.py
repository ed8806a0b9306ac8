"""Files, headings, tests and recipes that the pages name exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]
PAGES = [page for page in PAGES if not {"_build", "reference"} & set(page.parts)]
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pages
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"https?:", target):
            continue
        name, _, anchor = target.partition("#")
        linked = page if not name else page.parent / name
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


@pages
def test_named_recipes_exist(page: Path) -> None:
    text = page.read_text()
    named = re.findall(r"\brecipes/[\w./-]*\w", text)
    missing = [name for name in named if not (ROOT / name).exists() and not (ROOT / f"{name}.yaml").exists()]
    assert not missing


def test_every_law_names_existing_tests() -> None:
    text = (ROOT / "docs/theory.md").read_text()
    rows = re.findall(r"^\| (\d+) \|.*\| (.+) \|$", text, flags=re.MULTILINE)
    sources = "".join(path.read_text() for path in (ROOT / "tests/laws").glob("*.py"))
    defined = set(re.findall(r"^def (test_\w+)", sources, flags=re.MULTILINE))
    for _, tests in rows:
        names = re.findall(r"`(test_\w+)`", tests)
        assert names
        assert set(names) <= defined
    assert [int(number) for number, _ in rows] == list(range(1, 20))
    # Every test of a law is named.
    assert {name for name in defined if name.startswith("test_law_")} <= set(re.findall(r"`(test_law_\w+)`", text))


def test_papers_are_cited_in_one_style() -> None:
    """`"Title" (year), arXiv:NNNN.NNNNN`. A bare number is for a paper that the sentence has named."""
    texts = [*sorted((ROOT / "scoredistill").rglob("*.py")), *PAGES]
    other = re.compile(r"[^\n]*,\s\d{4},\s+arXiv:|[^\n]*[^\"\s]\s+\(\d{4}\),\s+arXiv:")
    found = {
        f"{path.relative_to(ROOT)}: {match.strip()}" for path in texts for match in other.findall(path.read_text())
    }
    assert not found
