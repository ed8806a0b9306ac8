"""Time and memory of a training step of SDS and VSD on Stable Diffusion 2.1's architecture, with random weights.

    python benchmarks/sd_step.py [--size full] [--dtype bfloat16] [--device cuda] [--particles 1 4] [--repeats 10]

One camera; the critic is a LoRA on the teacher's network. Three variants take turns in one run: the package's step with
Lightning and one log line per step, the same step as straight-line plain PyTorch, and the step as threestudio composes
it. Metrics are medians over the repeats, ratios are medians over the turns. `mid` is for a CPU. Writes JSON into
benchmarks/results and prints tables.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import diffusers
import torch
from sd_bound import matrix_product, step_flops
from sd_networks import SIZES, random_teacher
from sd_steps import Networks, PlainLoop, adapted
from sd_tables import tables
from sd_toolkit import OWN, by_turns, distillation
from step_meter import CLOCKS, Measured, Meter

import scoredistill
from scoredistill.teachers import DiffusersTeacher
from scoredistill.training import PromptAndCameras

NETWORK = ("teacher", "critic", "critic backward")
STRAIGHT, THREESTUDIO, PRODUCT = "straight line", "threestudio", "matrix product"


def measure(teacher: DiffusersTeacher, args: argparse.Namespace, vsd: bool, particles: int) -> dict[str, Any]:
    """Metrics of one objective and number of particles."""
    size, device = SIZES[args.size], torch.device(args.device)
    teacher.to(device)
    data = PromptAndCameras("a red mug", views=1)
    unet, vae = teacher.denoiser.network.network, teacher.codec.vae  # type: ignore[attr-defined]
    texts = teacher.prompts.texts(["a red mug", ""], device).tokens

    def plain() -> PlainLoop:
        networks = Networks(unet, vae, texts, adapted(unet) if vsd else None)
        return PlainLoop(networks, size.nerf(particles).to(device), data.batch_at)

    others: dict[str, Callable[[Meter], None]] = {STRAIGHT: plain().straight_line, THREESTUDIO: plain().as_threestudio}
    others[PRODUCT] = partial(_ignoring, matrix_product(size.matrix, getattr(torch, args.dtype), device))
    module = distillation(size.nerf(particles), teacher, vsd).to(device)
    found = by_turns(module, data, others, args.repeats + 1, args.clock)
    flops = particles * step_flops(size, vsd)
    rate = 2 * size.matrix**3 / median(each.total for each in found.pop(PRODUCT))
    bound = flops / rate
    return {
        "objective": "VSD" if vsd else "SDS",
        "particles": particles,
        "steps": {name: summary(runs) for name, runs in found.items()},
        "ratios": ratios(found),
        "teraflops": round(flops / 1e12, 4),
        "teraflops_per_second": round(rate / 1e12, 4),
        "bound_ms": round(1e3 * bound, 1),
        "over_bound": round(median(run.total for run in found[OWN]) / bound, 2),
    }


def summary(runs: list[Measured]) -> dict[str, Any]:
    """Medians of a variant's steps, in milliseconds and MiB."""
    stages = dict.fromkeys(stage for run in runs for stage in run.seconds)
    peaks = [run.peak for run in runs if run.peak is not None]
    return {
        "ms": round(1e3 * median(run.total for run in runs), 1),
        "stages_ms": {stage: round(1e3 * median(run.of(stage) for run in runs), 1) for stage in stages},
        "network_ms": round(1e3 * median(run.of(*NETWORK) for run in runs), 1),
        "peak_mib": round(median(peaks) / 2**20) if peaks else None,
    }


def ratios(found: dict[str, list[Measured]]) -> dict[str, float]:
    """Medians of the turns' ratios: to the straight line, and to threestudio's network part, step, and step without its
    decoding.
    """
    turns = list(zip(found[OWN], found[STRAIGHT], found[THREESTUDIO], strict=True))
    made = {
        "to_straight_line": [own.total / straight.total for own, straight, _ in turns],
        "network_to_threestudio": [own.of(*NETWORK) / theirs.of(*NETWORK) for own, _, theirs in turns],
        "step_to_threestudio": [own.total / theirs.total for own, _, theirs in turns],
        "step_to_threestudio_without_decode": [
            own.total / (theirs.total - theirs.of("decode")) for own, _, theirs in turns
        ],
    }
    return {name: round(median(values), 3) for name, values in made.items()}


def _ignoring(work: Callable[[], object], meter: Meter) -> None:
    work()


def described(args: argparse.Namespace, teacher: DiffusersTeacher) -> dict[str, Any]:
    """The machine, the settings and the networks of a measurement."""
    device = torch.device(args.device)
    return {
        "size": args.size,
        "pixels": SIZES[args.size].pixels,
        "unet_parameters": sum(weight.numel() for weight in teacher.denoiser.parameters()),
        "dtype": args.dtype,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "clock": "device" if device.type == "cuda" else args.clock,
        "threads": torch.get_num_threads(),
        "repeats": args.repeats,
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "scoredistill": scoredistill.__version__,
        "python": platform.python_version(),
    }


def main(arguments: list[str] | None = None) -> None:
    """Measure, write and print."""
    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=list(SIZES), default="full" if cuda else "mid")
    parser.add_argument("--dtype", choices=["float32", "float16", "bfloat16"], default="bfloat16" if cuda else None)
    parser.add_argument("--device", default="cuda" if cuda else "cpu")
    parser.add_argument("--particles", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--objectives", choices=["SDS", "VSD"], nargs="+", default=["SDS", "VSD"])
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="of a CPU; cpu: for a busy machine")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results", help="a folder")
    args = parser.parse_args(arguments)
    args.output.mkdir(parents=True, exist_ok=True)  # before anything is measured
    args.dtype = args.dtype or "float32"
    teacher = random_teacher(SIZES[args.size], args.dtype)
    cases: list[dict[str, Any]] = []
    for name, particles in product(args.objectives, args.particles):
        cases.append(measure(teacher, args, name == "VSD", particles))
        report = {**described(args, teacher), "cases": cases}
        (args.output / f"sd_step_{args.size}.json").write_text(json.dumps(report, indent=2) + "\n")
    print(tables(cases))


if __name__ == "__main__":
    main()
