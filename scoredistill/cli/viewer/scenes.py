"""Finds out from its class whether a run's generator has 3D scenes, because building it may take gigabytes."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass

from scoredistill.generators.scenes import SceneGenerator


@dataclass(frozen=True)
class Scenes:
    """Particles that have meshes.

    Args:
        particles: their number.
        turntables: whether pictures can be rendered; scenes of latents need their teacher's decoder.
    """

    particles: int
    turntables: bool


def find_scenes(recipe: Mapping[str, object]) -> Scenes | None:
    """The scenes of a recipe's generator, or None if it has none.

    Args:
        recipe: resolved, as in config.yaml.
    """
    model = recipe.get("model")
    generator = model.get("generator") if isinstance(model, dict) else None
    if not isinstance(generator, dict):
        return None
    kind = _class(str(generator.get("class_path")))
    if not isinstance(kind, type) or not issubclass(kind, SceneGenerator):
        return None
    settings = generator.get("init_args") or {}
    return Scenes(int(settings.get("particles") or 1), settings.get("latents") is None)


def _class(class_path: str) -> object:
    module, _, name = class_path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name, None)
    except (ImportError, ValueError):  # the class was removed, or is in another working directory
        return None
