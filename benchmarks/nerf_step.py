"""Time of a NeRF training step with and without skipping empty space, and the PSNR that each reaches; prints JSON.

    python benchmarks/nerf_step.py [--steps 80] [--particles 4] [--views 2] [--samples 64] [--threads 2]

The particles are fitted to pictures of a solid ball, colored by position, on random backgrounds. The two runs take
turns, one step each, so that other load on the machine slows both; times are medians over the last quarter.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from statistics import median

import torch
from torch import Tensor
from torch.optim import Adam

from scoredistill.generators.nerf import NeRF
from scoredistill.rendering.camera import Camera
from scoredistill.types import Batch, Condition

RADIUS = 0.6


def cameras(views: int, rng: torch.Generator) -> Camera:
    """Random cameras around the object."""
    azimuth, elevation = 360 * torch.rand(views, generator=rng), 80 * torch.rand(views, generator=rng) - 20
    return Camera.orbit(azimuth, elevation, torch.full((views,), 2.5), torch.full((views,), 40.0))


def ball(camera: Camera, size: int, background: Tensor) -> Tensor:
    """(V, 3, H, W) pictures of the ball in [-1, 1], four rays per pixel."""
    origins, directions = camera.rays(2 * size, 2 * size)
    middle = -(origins * directions).sum(-1, keepdim=True)
    half = RADIUS**2 - (origins + middle * directions).square().sum(-1, keepdim=True)
    surface = origins + (middle - half.clamp(min=0).sqrt()) * directions
    picture = torch.where(half > 0, surface / RADIUS, background[:, None, None])
    return torch.nn.functional.avg_pool2d(picture.permute(0, 3, 1, 2), 2)


class Run:
    """One NeRF, its optimizer and the times of its steps."""

    def __init__(self, args: argparse.Namespace, skip: bool) -> None:
        self.nerf = NeRF(args.particles, resolution=args.resolution, samples=args.samples, skip=skip)
        self.optimizer = Adam(self.nerf.parameters(), lr=0.15, betas=(0.9, 0.99), eps=1e-15, fused=True)
        self.rng = torch.Generator().manual_seed(0)
        self.views, self.resolution, self.steps = args.views, args.resolution, args.steps
        self.seconds: list[float] = []

    def step(self, index: int) -> None:
        """One update toward the pictures of random cameras."""
        camera = cameras(self.views, self.rng)
        start = time.perf_counter()
        self.nerf.on_progress(index, index / self.steps, self.rng)
        sample = self.nerf(Batch(Condition(camera=camera)), self.rng)
        rendered = time.perf_counter()
        assert sample.condition is not None
        assert sample.condition.background is not None
        target = ball(camera, self.resolution, sample.condition.background[: self.views])
        drawn = time.perf_counter()
        (sample.x.unflatten(0, (-1, self.views)) - target).square().mean().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.seconds.append(time.perf_counter() - drawn + rendered - start)

    def psnr(self) -> float:
        """Peak signal-to-noise ratio over eight held-out cameras, in dB, the mean over particles."""
        camera = cameras(8, torch.Generator().manual_seed(1))
        error = self.nerf.render(camera, 64, 64).rgb - ball(camera, 64, torch.ones(8, 3))
        return float((10 * torch.log10(4 / error.square().mean((1, 2, 3, 4)))).mean())

    def milliseconds(self) -> float:
        """Median time of the last quarter's steps."""
        return 1e3 * median(self.seconds[-max(1, self.steps // 4) :])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    settings = {"steps": 80, "particles": 4, "views": 2, "resolution": 64, "samples": 64, "threads": 2}
    for name, default in settings.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    skipping, full = Run(args, skip=True), Run(args, skip=False)
    for index in range(args.steps):
        skipping.step(index)
        full.step(index)
    result = {
        **vars(args),
        "skipping_ms": round(skipping.milliseconds(), 1),
        "full_ms": round(full.milliseconds(), 1),
        "ratio": round(full.milliseconds() / skipping.milliseconds(), 2),
        "skipping_psnr": round(skipping.psnr(), 2),
        "full_psnr": round(full.psnr(), 2),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
