"""Triangle meshes for the rasterizer's tests, and cameras around them."""

import torch
import trimesh
from torch import Tensor

from scoredistill.rendering import Scene, project
from scoredistill.rendering.camera import Camera

Surface = tuple[Tensor, Tensor]


def surface(name: str) -> Surface:
    """Vertices and faces: "sphere0" (20 faces) to "sphere5" (20,480) of radius 1, "torus", "cube", "square"."""
    if name == "square":  # open, facing +z
        vertices = torch.tensor([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]])
        return vertices, torch.tensor([[0, 1, 2], [0, 2, 3]])
    if name.startswith("sphere"):
        mesh = trimesh.creation.icosphere(int(name[-1]))
    elif name == "torus":
        mesh = trimesh.creation.torus(0.7, 0.3, 64, 32)
    else:
        mesh = trimesh.creation.box((1.2, 1.2, 1.2))
    return torch.tensor(mesh.vertices.copy()).to(torch.float64), torch.tensor(mesh.faces.copy())


def orbit(*azimuth: float, elevation: float = 20.0, radius: float = 2.6, fov: float = 41.5) -> Camera:
    a = torch.tensor(azimuth, dtype=torch.float64)
    return Camera.orbit(a, a * 0 + elevation, a * 0 + radius, a * 0 + fov)


def seen(camera: Camera, mesh: Surface, height: int, width: int) -> Scene:
    return Scene.of(project(camera, mesh[0], height, width), mesh[1])


def cast(camera: Camera, mesh: Surface, height: int, width: int) -> Tensor:
    """Distances along the rays of one camera to the first hit, (height, width), infinite where there is none.

    By Möller and Trumbore's intersection (1997) of every ray with every face.
    """
    origin, direction = (x[0].reshape(-1, 1, 3) for x in camera.rays(height, width))
    a, b, c = mesh[0][mesh[1]].unbind(1)
    p = torch.linalg.cross(direction, (c - a).expand(len(direction), -1, -1))
    det = (p * (b - a)).sum(-1)
    u = (p * (origin - a)).sum(-1) / det
    q = torch.linalg.cross(origin - a, (b - a).expand(len(direction), -1, -1))
    v, distance = (q * direction).sum(-1) / det, (q * (c - a)).sum(-1) / det
    hit = (u >= 0) & (v >= 0) & (u + v <= 1) & (distance > 0)
    return torch.where(hit, distance, torch.inf).amin(dim=1).view(height, width)
