"""scoredistill export: meshes and turntables of a trained generator."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch
import yaml  # type: ignore[import-untyped]
from jsonargparse import ArgumentParser

from scoredistill.cli.errors import UsageError, explain
from scoredistill.cli.workspace import Workspace, find_checkpoint
from scoredistill.generators.base import Generator
from scoredistill.rendering.turntable import save_animation, to_bytes, turntable_cameras
from scoredistill.training.run_folder import numbered_folder

AVERAGE, TRAINED = "average.module.", "distiller.generator."


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see `scoredistill export --help`")


def export(argv: Sequence[str]) -> None:
    """Write a trained generator's meshes and turntables, and say where.

    Args:
        argv: the options.

    Raises:
        UsageError: if there is no such run, or its generator has nothing of the kind.
    """
    options = _parser().parse_args(argv)
    checkpoint, run = find_checkpoint(".", options.run)
    if checkpoint is None or run is None or not run.config.is_file():
        raise UsageError(f"{options.run} is neither a run folder nor a checkpoint in one: config.yaml is missing")
    generator = load_generator(run.config, checkpoint)
    writers = _writers(generator, options)
    particles = _particles(options.particles, generator)
    names = [f"particle_{particle}.{kind}" for particle in particles for kind in (*options.format, *options.turntable)]
    workspace = _workspace(options.output, run.path, names)
    try:
        for write in writers:
            write(particles, workspace.folder)
    except BaseException:
        workspace.discard()
        raise
    for name in names:
        sys.stdout.write(f"wrote {workspace.folder / name}\n")


def load_generator(config: Path, checkpoint: Path) -> Generator:
    """Build a run's generator alone, with the weights that are evaluated: the moving average where there is one.

    Args:
        config: the run's resolved recipe.
        checkpoint: of that run.

    Raises:
        UsageError: if the checkpoint is of another generator.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Generator, "generator", fail_untyped=False)
    recipe = yaml.safe_load(config.read_text(encoding="utf-8"))
    try:
        parsed = parser.parse_object({"generator": recipe["model"]["generator"]})
        generator: Generator = parser.instantiate_classes(parsed).generator
    except (argparse.ArgumentError, KeyError, TypeError) as error:
        raise UsageError(f"{config}: {explain(str(error), ['generator'])}") from error
    stored = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    prefix = AVERAGE if any(key.startswith(AVERAGE) for key in stored) else TRAINED
    weights = {key.removeprefix(prefix): value for key, value in stored.items() if key.startswith(prefix)}
    try:
        generator.load_state_dict(weights)
    except RuntimeError as error:
        raise UsageError(f"{checkpoint} is not of the generator in {config}: {error}") from error
    return generator.eval().to("cuda" if torch.cuda.is_available() else "cpu")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="scoredistill export",
        description="Write each particle's mesh, and pictures from all around it.",
    )
    add = parser.add_argument
    add("run", metavar="RUN", help="a run folder, or a checkpoint in one")
    add(
        "--format",
        nargs="*",
        default=["glb"],
        choices=["glb", "obj", "ply", "stl"],
        help="of the meshes: glb (default), obj, ply, stl; none: no meshes",
    )
    add(
        "--turntable",
        nargs="*",
        default=[],
        choices=["webp", "gif", "mp4"],
        help="animations to write: webp, gif, mp4; none by default",
    )
    add("--resolution", type=int, help="lattice points along each axis of the mesh; the generator's own by default")
    add("--threshold", type=float, help="density at the surface; the generator's own by default")
    add("--particles", type=int, nargs="+", help="which; all by default")
    add("--output", help="folder to write into; RUN/export/0, 1, ... by default")
    add("--size", type=int, default=256, help="height and width of the animation, 256")
    add("--frames", type=int, default=36, help="of the animation, 36")
    add("--fps", type=int, default=15, help="frames per second, 15")
    add("--elevation", type=float, default=15.0, help="of the animation's camera in degrees, 15")
    add("--radius", type=float, default=2.6, help="its distance, 2.6")
    add("--fov", type=float, default=41.5, help="its vertical field of view in degrees, 41.5")
    return parser


def _writers(generator: Generator, options: argparse.Namespace) -> list[Callable[[Sequence[int], Path], None]]:
    """What has to be written, checked before anything is rendered."""
    if not options.format and not options.turntable:
        raise UsageError("nothing to write: name a --format or a --turntable")
    if "mp4" in options.turntable and importlib.util.find_spec("av") is None:
        raise UsageError("MP4 needs PyAV: install scoredistill[video], or write a webp")
    for wanted, method, what in ((options.format, "mesh", "meshes"), (options.turntable, "render", "turntables")):
        if wanted and not hasattr(generator, method):
            raise UsageError(f"{type(generator).__name__} has no {what} to export; generators of 3D scenes have")
    writers: list[Callable[[Sequence[int], Path], None]] = []
    if options.format:
        writers.append(partial(_write_meshes, generator, options))
    if options.turntable:
        writers.append(partial(_write_turntables, generator, options))
    return writers


def _particles(asked: Sequence[int] | None, generator: Generator) -> list[int]:
    count = generator.particles or 0
    wrong = [particle for particle in asked or () if not 0 <= particle < count]
    if wrong:
        raise UsageError(f"--particles: there is no particle {wrong[0]}, only 0 to {count - 1}")
    return list(range(count)) if asked is None else list(asked)


def _workspace(output: str | None, run: Path, names: Sequence[str]) -> Workspace:
    """The folder that was asked for, with nothing of the same name in it, or a fresh one in the run folder."""
    if output is None:
        return Workspace(numbered_folder(run / "export"), None, fresh=True)
    folder = Path(output)
    taken = [name for name in names if (folder / name).exists()]
    if taken:
        raise UsageError(f"{folder / taken[0]} exists already: choose another --output")
    return Workspace(folder, None, fresh=False)


def _write_meshes(generator: Any, options: argparse.Namespace, particles: Sequence[int], folder: Path) -> None:
    given = {name: value for name in ("resolution", "threshold") if (value := getattr(options, name)) is not None}
    for particle in particles:
        mesh = generator.mesh(particle, **given)
        for kind in options.format:
            mesh.save(folder / f"particle_{particle}.{kind}")


def _write_turntables(generator: Any, options: argparse.Namespace, particles: Sequence[int], folder: Path) -> None:
    cameras = turntable_cameras(options.frames, options.elevation, options.radius, options.fov)
    rgb = generator.render(cameras, options.size, options.size).rgb  # (n, V, 3, H, W)
    for particle in particles:
        for kind in options.turntable:
            save_animation(to_bytes(rgb[particle]), folder / f"particle_{particle}.{kind}", options.fps)
