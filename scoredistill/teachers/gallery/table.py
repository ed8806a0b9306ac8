"""Models, which are lists of parts with colors, and tables, which are several models as tensors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property

import torch
from torch import Tensor

from scoredistill.teachers.gallery.sdf import distance
from scoredistill.teachers.gallery.solids import Part

RADIUS = 0.8
"""Radius of the ball around the origin that contains all models, in world units."""

POINTS_AT_ONCE = 1 << 18
"""Maximum number of pairs of a point and a part in one evaluation of distances, which bounds memory."""


@dataclass(frozen=True)
class Model:
    """One variant of a noun.

    Args:
        parts: parts whose union is the object.
        colors: from material to display color, each channel in [0, 1]; a color word replaces the color of "main".
    """

    parts: tuple[Part, ...]
    colors: dict[str, tuple[float, float, float]]

    def fitted(self, radius: float) -> Model:
        """The model centered, and scaled so that its farthest point is at distance `radius` from the origin."""
        axes = torch.eye(3, dtype=torch.float64)
        high = torch.stack([part.support(axes) for part in self.parts]).amax(0)
        low = -torch.stack([part.support(-axes) for part in self.parts]).amax(0)
        shift = (-(low + high) / 2).tolist()
        parts = [part.at(*shift) for part in self.parts]
        directions = _directions(4096)
        # Every direction is within 2.5 degrees of one of 4096, so that they miss at most .1% of the reach.
        reach = 1.001 * max(part.support(directions).max().item() for part in parts)
        return replace(self, parts=tuple(part.resized(radius / reach) for part in parts))


def _directions(n: int) -> Tensor:
    """n evenly spread directions, a Fibonacci lattice on the sphere, (n, 3) float64."""
    i = torch.arange(n, dtype=torch.float64) + 0.5
    height = 1 - 2 * i / n
    angle = math.pi * (1 + math.sqrt(5)) * i
    radius = (1 - height * height).sqrt()
    return torch.stack([radius * angle.cos(), height, radius * angle.sin()], dim=-1)


@dataclass(frozen=True)
class Table:
    """The M parts of K models as tensors, with at most G materials per model.

    Args:
        shape: (10, M) numbers of the solids, see `sdf.distance`.
        inverse: (M, 3, 3) world to solid; `center` (M, 3) are the solids' origins in the world.
        least: (M,) smallest scale of the solid's map; times the solid's distance, a lower bound of the world's.
        low, high: (M, 3) corners of the solid's bounding box in its own frame.
        reach: (M,) radius of the ball around `center` that contains the part.
        bend: (M,) bound on the concave curvature of a solid's distance, see `Part.bend`.
        model: (M,) index of each part's model; `material` (M,) is its index among the model's materials.
        members: (K, P) indices of each model's parts, padded with -1.
        materials: G, the largest number of materials of a model.
    """

    shape: Tensor
    inverse: Tensor
    center: Tensor
    least: Tensor
    low: Tensor
    high: Tensor
    reach: Tensor
    bend: Tensor
    model: Tensor
    material: Tensor
    members: Tensor
    materials: int

    @classmethod
    def compile(cls, models: Sequence[Model]) -> Table:
        """The table of K models, in float64 on the CPU."""
        parts = [(k, part) for k, model in enumerate(models) for part in model.parts]
        linear = torch.stack([part.linear for _, part in parts])
        scales = linear.norm(dim=1)  # the columns' lengths of a rotation times a stretch
        boxes = torch.tensor([part.box() for _, part in parts], dtype=torch.float64)
        corners = boxes.abs().amax(1)
        materials = [list(model.colors) for model in models]
        model = torch.tensor([k for k, _ in parts])
        width = max(len(m.parts) for m in models)
        members = torch.full((len(models), width), -1)
        for k in range(len(models)):
            index = (model == k).nonzero()[:, 0]
            members[k, : len(index)] = index
        return cls(
            shape=torch.tensor([part.shape for _, part in parts], dtype=torch.float64).T.contiguous(),
            inverse=torch.linalg.inv(linear),
            center=torch.stack([part.center for _, part in parts]),
            least=scales.amin(-1),
            low=boxes[:, 0],
            high=boxes[:, 1],
            reach=torch.tensor(
                [_reach(part, corner) for (_, part), corner in zip(parts, corners, strict=True)]
            ).double(),
            bend=torch.tensor([part.bend for _, part in parts]).double(),
            model=model,
            material=torch.tensor([materials[k].index(part.material) for k, part in parts]),
            members=members,
            materials=max(len(m) for m in materials),
        )

    @cached_property
    def columns(self) -> Tensor:
        """(29, M): inverse, center, low, high, shape and bend of each part in one matrix."""
        return torch.cat(
            [self.inverse.flatten(1).T, self.center.T, self.low.T, self.high.T, self.shape, self.bend[None]]
        )

    def to(self, like: Tensor) -> Table:
        """The table with the device and dtype of `like`."""
        moved = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "materials"}
        for name, value in moved.items():
            moved[name] = value.to(like) if value.is_floating_point() else value.to(like.device)
        return replace(self, **moved)

    def distances(self, points: Tensor, model: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Distance bounds and nearest parts of one model at points (N, 3), in chunks of (n,) each."""
        members = self.members[model]
        members = members[members >= 0]
        shape = [row[:, None] for row in self.shape[:, members]]
        for chunk in points.split(max(1, POINTS_AT_ONCE // len(members))):
            x, y, z = torch.einsum("mij,nmj->imn", self.inverse[members], chunk[:, None] - self.center[members])
            bound, index = (distance(shape, x, y, z) * self.least[members][:, None]).min(dim=0)
            yield bound, members[index]


def _reach(part: Part, corner: Tensor) -> float:
    a, c, r, _, h, taper, _, _, edge, _ = part.shape
    if torch.allclose(part.linear.norm(dim=0), part.linear.norm(dim=0).mean()):
        radius = math.hypot(math.hypot(a, c) + r + taper, h) + edge
        return radius * part.linear[:, 0].norm().item()
    # With a stretch: the ball around the image of the box, or for an ellipsoid (all but `edge` zero) its longest axis.
    if max(a, c, r, h, taper) == 0:
        return edge * part.linear.norm(dim=0).max().item()
    return (part.linear.norm(dim=0) * corner).norm().item()
