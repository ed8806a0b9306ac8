"""Time of the rasterizer's forward and backward with antialiasing, per backend; prints JSON.

    python benchmarks/raster.py [--subdivisions 5] [--size 256] [--views 1] [--repeats 20] [--threads 1] [--device cpu]

Renders a sphere's normals and mask from `views` sides, and differentiates the sum of squares with respect to the
vertices. The backends take turns, one call each, and the fastest call counts. On a CPU it is processor time, which
excludes other load on the machine.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from importlib.util import find_spec

import torch
import trimesh
from torch import Tensor
from torch.nn.functional import normalize

from scoredistill.rendering import Backend, Scene, antialias, interpolate, project, rasterize
from scoredistill.rendering.camera import Camera
from scoredistill.rendering.turntable import turntable_cameras


def picture(camera: Camera, vertices: Tensor, faces: Tensor, size: int, backend: Backend) -> Tensor:
    """Normals and mask, (V, 4, size, size)."""
    scene = Scene.of(project(camera, vertices, size, size), faces)
    fragments = rasterize(scene, size, size, backend)
    normals = interpolate(fragments, scene.faces, normalize(vertices, dim=-1).repeat(len(camera), 1))
    return antialias(torch.cat([normals, fragments.mask], dim=1), fragments, scene)


def timed(camera: Camera, vertices: Tensor, faces: Tensor, size: int, backend: Backend) -> tuple[float, float]:
    """Seconds of the forward, and of forward and backward."""
    clock = time.perf_counter if vertices.is_cuda else time.process_time
    points = vertices.clone().requires_grad_()
    start = clock()
    loss = picture(camera, points, faces, size, backend).square().sum()
    loss.item()  # waits for the device
    forward = clock()
    loss.backward()
    assert points.grad is not None
    points.grad[0, 0].item()
    return forward - start, clock() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subdivisions", type=int, default=5)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--views", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    mesh = trimesh.creation.icosphere(args.subdivisions)
    vertices = 0.8 * torch.tensor(mesh.vertices, dtype=torch.float32).to(args.device)
    faces = torch.tensor(mesh.faces, dtype=torch.int64).to(args.device)
    camera = turntable_cameras(args.views).to(args.device)
    backends: list[Backend] = ["torch", "warp"] if find_spec("warp") else ["torch"]
    times: dict[Backend, list[tuple[float, float]]] = {backend: [] for backend in backends}
    for _ in range(args.repeats):
        for backend in backends:
            times[backend].append(timed(camera, vertices, faces, args.size, backend))
    result = {
        "faces": len(faces),
        "size": args.size,
        "views": args.views,
        "coverage": round(picture(camera, vertices, faces, args.size, "torch")[:, 3].mean().item(), 3),
        **{f"{backend}_forward_ms": round(1e3 * min(one for one, _ in times[backend]), 1) for backend in backends},
        **{f"{backend}_both_ms": round(1e3 * min(both for _, both in times[backend]), 1) for backend in backends},
        "device": args.device,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
