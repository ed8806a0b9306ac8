"""Cameras, and the pictures that are rendered from them.

World axes are right-handed with y up, and the object's front faces +z (glTF's axes). Scenes are inside [-1, 1]^3.
A camera at azimuth 0 sees the front, at 90 it is at the object's left (+x), and at 180 it sees the back. A camera at
elevation 90 looks straight down.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize


@dataclass(frozen=True)
class Camera:
    """V pinhole cameras.

    Args:
        pose: (V, 4, 4) camera to world; the camera looks along its -z, y up, x right.
        fov: (V,) vertical field of view in degrees, in (0, 180).
    """

    pose: Tensor
    fov: Tensor

    def __post_init__(self) -> None:
        if self.pose.shape[-2:] != (4, 4) or self.fov.shape != self.pose.shape[:1]:
            shapes = f"{tuple(self.pose.shape)} and {tuple(self.fov.shape)}"
            raise ValueError(f"a camera needs pose (V, 4, 4) and fov (V,), got {shapes}")

    @classmethod
    def orbit(
        cls,
        azimuth: Tensor,
        elevation: Tensor,
        radius: Tensor,
        fov: Tensor,
        target: Tensor | None = None,
        offset: Tensor | None = None,
        tilt: Tensor | None = None,
    ) -> Camera:
        """Cameras on a sphere that look at its center.

        Args:
            azimuth, elevation: (V,) degrees.
            radius: (V,) distance from the center, > 0.
            fov: (V,) vertical field of view in degrees.
            target: (V, 3) point that the camera looks at; None: the origin.
            offset: (V, 3) displacement of the camera; None: none.
            tilt: (V, 3) displacement of the unit vector that points up; None: none.
        """
        a, e = torch.deg2rad(azimuth), torch.deg2rad(elevation)
        direction = torch.stack([e.cos() * a.sin(), e.sin(), e.cos() * a.cos()], dim=-1)
        position = radius[:, None] * direction + (0 if offset is None else offset)
        backward = normalize(position - (0 if target is None else target), dim=-1)
        # This vector is also defined at the poles, where +y is parallel to the view.
        up = torch.stack([-e.sin() * a.sin(), e.cos(), -e.sin() * a.cos()], dim=-1)
        right = normalize(torch.linalg.cross(up if tilt is None else up + tilt, backward), dim=-1)
        rotation = torch.stack([right, torch.linalg.cross(backward, right), backward], dim=-1)
        pose = torch.zeros(len(azimuth), 4, 4, dtype=position.dtype, device=position.device)
        pose[:, :3, :3] = rotation
        pose[:, :3, 3] = position
        pose[:, 3, 3] = 1
        return cls(pose, fov)

    @property
    def position(self) -> Tensor:
        """(V, 3) in world units."""
        return self.pose[:, :3, 3]

    @property
    def azimuth(self) -> Tensor:
        """(V,) degrees in [0, 360)."""
        return torch.rad2deg(torch.atan2(self.position[:, 0], self.position[:, 2])) % 360

    @property
    def elevation(self) -> Tensor:
        """(V,) degrees in [-90, 90]."""
        return torch.rad2deg(torch.asin((self.position[:, 1] / self.position.norm(dim=-1)).clamp(-1, 1)))

    def rays(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Rays through the pixels' centers, top row first.

        Returns:
            origins and unit directions, (V, height, width, 3) each.
        """
        dtype, device = self.pose.dtype, self.pose.device
        y = 1 - (torch.arange(height, dtype=dtype, device=device) + 0.5) * (2 / height)
        x = ((torch.arange(width, dtype=dtype, device=device) + 0.5) * (2 / width) - 1) * (width / height)
        half = torch.tan(torch.deg2rad(self.fov) / 2)[:, None, None]
        grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
        local = torch.stack([grid_x * half, grid_y * half, -torch.ones_like(grid_x * half)], dim=-1)
        directions = normalize(torch.einsum("vij,vhwj->vhwi", self.pose[:, :3, :3], local), dim=-1)
        return self.position[:, None, None].expand_as(directions), directions

    def __len__(self) -> int:
        return len(self.fov)

    def __getitem__(self, index: Tensor) -> Camera:
        return Camera(self.pose[index], self.fov[index])

    @classmethod
    def cat(cls, parts: Sequence[Camera]) -> Camera:
        """Concatenate cameras."""
        return cls(torch.cat([part.pose for part in parts]), torch.cat([part.fov for part in parts]))

    def to(self, device: torch.device | str) -> Camera:
        """Move to a device."""
        return Camera(self.pose.to(device), self.fov.to(device))


@dataclass(frozen=True)
class Render:
    """Pictures of n particles from V views.

    Args:
        rgb: (n, V, 3, H, W) colors in [-1, 1] over the background, or latents (n, V, C, H, W).
        opacity: (n, V, H, W) in [0, 1].
        depth: (n, V, H, W) mean distance from the camera to the visible surface, 0 where opacity is below one tenth.
        normals: (n, V, 3, H, W) outward unit normals in world axes, 0 where opacity is below one tenth.
    """

    rgb: Tensor
    opacity: Tensor
    depth: Tensor
    normals: Tensor


def composite_over(color: Tensor, opacity: Tensor, background: Tensor) -> Tensor:
    """Composite colors over a background.

    Args:
        color: (n, R, C), premultiplied by opacity.
        opacity: (n, R).
        background: (n, V, 1 or R / V, C).

    Returns:
        (n, V, R / V, C).
    """
    shape = (len(color), background.shape[1], -1)
    return color.reshape(*shape, color.shape[-1]) + (1 - opacity.reshape(*shape, 1)) * background
