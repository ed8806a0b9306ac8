"""Recipes of one family differ only in their objective."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

RECIPES = Path(__file__).parents[1] / "recipes"
FAMILIES = {
    **{name: sorted((RECIPES / name).glob("*.yaml")) for name in ("points", "line", "digits")},
    "gallery": [
        RECIPES / "quickstart.yaml",
        *(p for p in (RECIPES / "gallery").glob("*.yaml") if p.stem != "diversity"),
    ],
}
OBJECTIVE = ("loss", "critic_optimizer", "plan")
"""Keys of `model` that define the objective; a trained critic has an optimizer and a plan."""


def without_objective(path: Path) -> dict[str, Any]:
    recipe = yaml.safe_load(path.read_text())
    recipe["model"] = {key: value for key, value in recipe["model"].items() if key not in OBJECTIVE}
    return {key: value for key, value in recipe.items() if key != "output"}


@pytest.mark.parametrize("members", FAMILIES.values(), ids=FAMILIES)
def test_a_family_differs_in_its_objective_alone(members: list[Path]) -> None:
    assert len(members) >= 4
    first, *others = map(without_objective, members)
    assert all(other == first for other in others)
    losses = [str(yaml.safe_load(path.read_text())["model"]["loss"]) for path in members]
    assert len(set(losses)) == len(members)


WHOLE = [path for path in sorted(RECIPES.rglob("*.yaml")) if path.parent.name != "losses"]


@pytest.mark.parametrize("path", WHOLE, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_section_has_a_comment_above(path: Path) -> None:
    lines = path.read_text().splitlines()
    keys = {i: line for i, line in enumerate(lines) if re.match(r"( {2})?[a-z]", line)}
    bare = [
        line for i, line in keys.items() if not re.match(r" *(class_path|init_args)", line) and "#" not in lines[i - 1]
    ]
    assert not bare
