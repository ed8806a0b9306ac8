"""Times the gallery: renders of all variants of a prompt, and the score at a cached camera.

    python benchmarks/gallery.py [--device cuda] [--size 64] [--repeats 30]

Prints one JSON object; times are medians in milliseconds.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable

import torch

import scoredistill
from scoredistill.rendering.camera import Camera
from scoredistill.teachers.gallery import Gallery
from scoredistill.types import Condition

PROMPTS = ("a toy", "a mug", "a snowman", "a donut", "")


def median(work: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Milliseconds of one call, after two warm-up calls."""
    times = []
    for _ in range(repeats + 2):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(1e3 * (time.perf_counter() - start))
    return round(statistics.median(times[2:]), 2)


def orbit(views: int, device: torch.device) -> Camera:
    """Cameras around the object."""
    azimuth = torch.arange(views, device=device) * (360 / views) + 30
    even = torch.ones_like(azimuth)
    return Camera.orbit(azimuth, 20 * even, 2.6 * even, 40 * even)


def measure(prompt: str, size: int, repeats: int, device: torch.device) -> dict[str, float]:
    """Metrics of one prompt."""
    cold, warm = Gallery(cache_bytes=0), Gallery()
    one, four = orbit(1, device), orbit(4, device)
    x = torch.randn(16, 3, size, size, device=device)
    t = torch.linspace(0.1, 0.9, 16, device=device)
    condition = Condition(prompt, camera=four[torch.arange(16, device=device) % 4])
    return {
        "variants": cold.variant_count(prompt),
        "render_1_camera": median(lambda: cold.renders(prompt, one, size, size), repeats, device),
        "render_4_cameras": median(lambda: cold.renders(prompt, four, size, size), repeats, device),
        "score_16_rows_4_cameras": median(lambda: cold(x, t, condition), repeats, device),
        "score_16_rows_4_cameras_seen_before": median(lambda: warm(x, t, condition), repeats, device),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=30)
    args = parser.parse_args()
    device = torch.device(args.device)
    result = {
        "scoredistill": scoredistill.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
        "size": args.size,
        "milliseconds": {
            prompt or "(no prompt)": measure(prompt, args.size, args.repeats, device) for prompt in PROMPTS
        },
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
