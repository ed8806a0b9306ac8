"""Classes of a recipe say of what type their arguments are."""

import inspect
from pathlib import Path
from textwrap import dedent

import pytest
import torch
from jsonargparse import ArgumentParser

from scoredistill.cli.errors import UsageError
from scoredistill.cli.names import import_public_modules, known_classes
from scoredistill.cli.untyped import require_annotated, untyped
from scoredistill.losses import SDS


class Typed(SDS):
    def __init__(self, c: float = 1.0, *, d: str | None = None) -> None:
        super().__init__()


class Untyped(SDS):
    def __init__(self, a, b: int, c=1.0, *, d=None) -> None:  # type: ignore[no-untyped-def]
        super().__init__()


class Handing(Untyped):
    def __init__(self, e: int, **settings: object) -> None:
        super().__init__(**settings)  # type: ignore[arg-type]


class Inheriting(Untyped):
    pass


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (Typed, []),
        (Untyped, ["a", "c", "d"]),
        (Handing, ["a", "c", "d"]),
        (Inheriting, ["a", "c", "d"]),
        (torch.optim.SGD, []),
        (ArgumentParser, []),
        (object, []),
    ],
)
def test_arguments_without_annotation_are_named(kind: type, names: list[str]) -> None:
    assert untyped(kind) == names


def test_every_class_of_ours_is_annotated() -> None:
    import_public_modules()
    ours = known_classes()
    assert "SDS" in ours
    assert {name: untyped(kind) for name, kind in ours.items() if inspect.isclass(kind) and untyped(kind)} == {}


@pytest.mark.parametrize("nested", ["model.loss", "model.loss.init_args.weight", "trainer.callbacks.1"])
def test_a_recipe_with_such_a_class_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nested: str) -> None:
    (tmp_path / "own_untyped.py").write_text(
        dedent("""
        from scoredistill.diffusion import UniformWeight

        class Half(UniformWeight):
            def __init__(self, c):
                self.c = c
        """)
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    half = {"class_path": "own_untyped.Half", "init_args": {"c": None}}
    sds = "scoredistill.losses.SDS"
    recipes = {
        "model.loss": {"model": {"loss": half}},
        "model.loss.init_args.weight": {"model": {"loss": {"class_path": sds, "init_args": {"weight": half}}}},
        "trainer.callbacks.1": {"trainer": {"callbacks": [{"class_path": sds}, half]}},
    }
    message = rf"^{nested}: own_untyped.Half does not say of what type its argument c is.*as in `c: float = 1.0`"
    with pytest.raises(UsageError, match=message):
        require_annotated(recipes[nested])
    require_annotated({"model": {"loss": {"class_path": sds, "init_args": {"weight": None}}}})
