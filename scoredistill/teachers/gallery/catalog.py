"""Cached models, tables and pictures of phrases."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import fields, replace
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import pad

from scoredistill.rendering.camera import Camera
from scoredistill.teachers.gallery.render import Light, render
from scoredistill.teachers.gallery.scenes import SCENES
from scoredistill.teachers.gallery.table import Model, Table
from scoredistill.teachers.gallery.vocabulary import COLORS, DEFAULT_SIZE, SIZES, Phrase

Key = tuple[object, ...]


@lru_cache(maxsize=256)
def models(noun: str | None, size: str | None) -> tuple[Model, ...]:
    """The variants of a noun at a size; without a noun, the variants of all nouns in the vocabulary's order."""
    if noun is None:
        return tuple(model for known in SCENES for model in models(known, size))
    radius = DEFAULT_SIZE if size is None else SIZES[size]
    return tuple(model.fitted(radius) for model in SCENES[noun]())


@lru_cache(maxsize=256)
def table(noun: str | None, size: str | None, dtype: torch.dtype, device: torch.device) -> Table:
    """The parts of `models` as tensors."""
    return Table.compile(models(noun, size)).to(torch.empty(0, dtype=dtype, device=device))


def albedo(phrase: Phrase, like: Tensor) -> Tensor:
    """Colors of the variants' materials, (K, G, 3) in [0, 1], where G is the largest number of materials."""
    variants = models(phrase.noun, phrase.size)
    colors = like.new_zeros(len(variants), max(len(model.colors) for model in variants), 3)
    for k, model in enumerate(variants):
        chosen = model.colors if phrase.color is None else model.colors | {"main": COLORS[phrase.color]}
        colors[k, : len(chosen)] = like.new_tensor(list(chosen.values()))
    return colors


class Pictures:
    """Renders pictures on demand and caches the latest ones, because a training step needs each camera several times.

    Args:
        supersample: rays per pixel at edges.
        capacity: maximum size of the cache in bytes.
    """

    def __init__(self, supersample: int, capacity: int) -> None:
        self.supersample = supersample
        self.capacity = capacity
        self._kept: OrderedDict[Key, Light] = OrderedDict()
        self._bytes = 0

    def __call__(self, phrase: Phrase, camera: Camera, height: int, width: int) -> Light:
        """The phrase's variants from V cameras, in the camera's dtype. Only new cameras are rendered."""
        if phrase.noun is None:
            # One noun after another, which shares pictures with prompts for one noun and keeps the arrays small.
            return _side_by_side([self(replace(phrase, noun=noun), camera, height, width) for noun in SCENES])
        scene = (phrase.noun, phrase.size, camera.pose.dtype, camera.pose.device)
        keys: list[Key] = [(*scene, height, width, view) for view in fingerprints(camera.pose, camera.fov)]
        fresh = {key: row for row, key in enumerate(keys) if key not in self._kept}
        lights = {key: self._kept[key] for key in keys if key in self._kept}
        for key in lights:
            self._kept.move_to_end(key)
        if fresh:
            rows = torch.tensor(list(fresh.values()), device=camera.fov.device)
            with torch.inference_mode(False), torch.no_grad():  # a later call with gradients may use the cache
                light = render(table(*scene), camera[rows], height, width, self.supersample)
            lights |= {key: light[slice(i, i + 1)] for i, key in enumerate(fresh)}
            self._keep({key: lights[key] for key in fresh})
        chosen = [lights[key] for key in keys]
        return Light(*(torch.cat([getattr(light, f.name) for light in chosen]) for f in fields(Light)))

    def _keep(self, lights: dict[Key, Light]) -> None:
        for key, light in lights.items():
            # A copy, because a slice would keep the complete batch in memory.
            copy = replace(light, **{f.name: getattr(light, f.name).clone() for f in fields(Light)})
            self._kept[key] = copy
            self._bytes += copy.nbytes
        while self._bytes > self.capacity and self._kept:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes


def _side_by_side(lights: list[Light]) -> Light:
    """Concatenate the variants of several scenes, padded with unlit materials to the same number."""
    materials = max(light.light.shape[2] for light in lights)
    wide = [replace(each, light=pad(each.light, (0, 0, 0, 0, 0, materials - each.light.shape[2]))) for each in lights]
    return Light(*(torch.cat([getattr(light, f.name) for light in wide], dim=1) for f in fields(Light)))


def fingerprints(*values: Tensor) -> list[bytes]:
    """One key per row of (N, ...) tensors, which is equal for equal rows."""
    rows = torch.cat([value.reshape(len(value), -1).double() for value in values], dim=1)
    return [row.tobytes() for row in rows.detach().cpu().numpy()]
