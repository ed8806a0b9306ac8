"""Whether a run's generator holds scenes that can be turned, by its class alone: building it may take gigabytes."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass

from scoredistill.generators.scenes import SceneGenerator


@dataclass(frozen=True)
class Scenes:
    """Particles that have meshes.

    Args:
        particles: how many.
        turntables: whether pictures of them can be rendered; scenes of latents need their teacher's decoder.
    """

    particles: int
    turntables: bool


def find_scenes(recipe: Mapping[str, object]) -> Scenes | None:
    """The scenes of a recipe's generator, or None where it makes something else.

    Args:
        recipe: resolved, as in config.yaml.
    """
    model = recipe.get("model")
    generator = model.get("generator") if isinstance(model, dict) else None
    if not isinstance(generator, dict):
        return None
    found = _class(str(generator.get("class_path")))
    if not isinstance(found, type) or not issubclass(found, SceneGenerator):
        return None
    settings = generator.get("init_args") or {}
    return Scenes(int(settings.get("particles") or 1), settings.get("latents") is None)


def _class(class_path: str) -> object:
    module, _, name = class_path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name, None)
    except (ImportError, ValueError):  # a class that is no longer there, or not from this working directory
        return None
