"""View words and cameras: the directions of "front view", "side view", "back view" and "overhead view".

    front       azimuth within 45 degrees of 0         back    azimuth within 45 degrees of 180
    side        all other azimuths                     overhead    elevation of 60 degrees or more, any azimuth

The first three end at an elevation of 60 degrees. The limits belong to front, back and overhead.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from scoredistill.rendering.camera import Camera

View = Literal["front", "side", "back", "overhead"]

HALF_SECTOR = 45.0
OVERHEAD = 60.0
"""Limits of the views in degrees."""

RADIUS = 2.6
FOV = 40.0
ELEVATION = 15.0
ELEVATION_OVERHEAD = 75.0
"""The canonical cameras, in world units and degrees."""


def canonical(count: int, view: View | None = None) -> Camera:
    """The fixed cameras over which a prompt without a camera is averaged: a ring, restricted to a view.

    Args:
        count: number of cameras in the full ring, a multiple of 4 so that each view has some.
        view: the view; "overhead": another ring at an elevation of 75 degrees; None: the full ring.

    Returns:
        float64 cameras in the order of azimuth, starting from 0.
    """
    azimuth = torch.arange(count, dtype=torch.float64) * (360 / count)
    from_front = 180 - (azimuth - 180).abs()
    if view in ("front", "side", "back"):
        near_front = from_front <= HALF_SECTOR
        near_back = from_front >= 180 - HALF_SECTOR
        azimuth = azimuth[{"front": near_front, "back": near_back, "side": ~near_front & ~near_back}[view]]
    even = torch.ones_like(azimuth)
    return Camera.orbit(
        azimuth, even * (ELEVATION_OVERHEAD if view == "overhead" else ELEVATION), even * RADIUS, even * FOV
    )


def obey(camera: Camera, view: View | None) -> Camera:
    """Turn cameras that contradict a view word by the smallest angle that makes it true. Others are unchanged.

    The camera turns around the origin, along its parallel and then its meridian, at its distance. A negative prompt
    "a mug, front view" at a camera behind the object thus means pictures of the front, as in a model without cameras.

    Args:
        camera: V cameras.
        view: the view; None: no change.
    """
    if view is None:
        return camera
    azimuth = (camera.azimuth + 180) % 360 - 180
    elevation = camera.elevation
    match view:
        case "overhead":
            turned = azimuth
            raised = elevation.clamp(min=OVERHEAD)
        case "front":
            turned = azimuth.clamp(-HALF_SECTOR, HALF_SECTOR)
            raised = elevation.clamp(max=OVERHEAD)
        case "back":
            from_back = (azimuth % 360 - 180).clamp(-HALF_SECTOR, HALF_SECTOR)
            turned = from_back + 180
            raised = elevation.clamp(max=OVERHEAD)
        case "side":
            from_front = azimuth.abs().clamp(HALF_SECTOR, 180 - HALF_SECTOR)
            turned = torch.where(azimuth < 0, -from_front, from_front)
            raised = elevation.clamp(max=OVERHEAD)
    turn = _about_y(turned) @ _about_x(elevation - raised) @ _about_y(-azimuth)
    kept = ((turned - azimuth) % 360 == 0) & (raised == elevation)
    return Camera(torch.where(kept[:, None, None], camera.pose, turn @ camera.pose), camera.fov)


def opposite(camera: Camera) -> Camera:
    """The cameras on the opposite side, turned by 180 degrees around the y axis."""
    return Camera(_about_y(torch.full_like(camera.fov, 180.0)) @ camera.pose, camera.fov)


def _about_y(degrees: Tensor) -> Tensor:
    """(V,) -> (V, 4, 4)."""
    c, s = torch.deg2rad(degrees).cos(), torch.deg2rad(degrees).sin()
    o, i = torch.zeros_like(c), torch.ones_like(c)
    return torch.stack([c, o, s, o, o, i, o, o, -s, o, c, o, o, o, o, i], dim=-1).reshape(-1, 4, 4)


def _about_x(degrees: Tensor) -> Tensor:
    """(V,) -> (V, 4, 4)."""
    c, s = torch.deg2rad(degrees).cos(), torch.deg2rad(degrees).sin()
    o, i = torch.zeros_like(c), torch.ones_like(c)
    return torch.stack([i, o, o, o, o, c, -s, o, o, s, c, o, o, o, o, i], dim=-1).reshape(-1, 4, 4)
