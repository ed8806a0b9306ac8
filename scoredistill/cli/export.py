"""scoredistill export: writes meshes and turntables of particles, and pipelines of students."""

from __future__ import annotations

import argparse
import importlib.util
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from scoredistill.cli.errors import UsageError
from scoredistill.cli.load_run import load_generator
from scoredistill.cli.meshes import MeshFiles, add_mesh_options
from scoredistill.cli.options import OptionParser, between, degrees, integer
from scoredistill.cli.pipelines import save_pipeline
from scoredistill.cli.run_config import read_config
from scoredistill.cli.workspace import Start, Workspace, find_start
from scoredistill.generators.one_step import OneStepUNet
from scoredistill.generators.scenes import SceneGenerator
from scoredistill.networks.storage import find_trained
from scoredistill.rendering.turntable import save_animation, to_bytes, turntable_cameras
from scoredistill.teachers.diffusers.loading import Source
from scoredistill.training.run_folder import make_folder, numbered_folder

Plan = tuple[list[str], Callable[[Path], None]]
"""The names of the files to write, and the function that writes them into a folder."""


def export(argv: Sequence[str]) -> None:
    """Write a trained generator's meshes and turntables, or its pipeline, and print the paths.

    Args:
        argv: the options.

    Raises:
        UsageError: if there is no such run, or its generator has nothing to export.
    """
    options = _parser().parse_args(argv)
    start = find_start(".", options.run)
    checkpoint, run = start.checkpoint, start.run
    if checkpoint is None or run is None or not run.config.is_file():
        raise UsageError(f"{options.run} is neither a run folder nor a checkpoint in one: config.yaml is missing")
    generator = load_generator(run.config, checkpoint)
    if isinstance(generator, OneStepUNet):
        names, write = _student(generator, options, run.config)
    elif isinstance(generator, SceneGenerator):
        names, write = _particles(generator, options)
    else:
        what = type(generator).__name__
        raise UsageError(f"{what} has nothing to export; generators of 3D scenes and one-step students have")
    workspace = _workspace(options.output, run.path, names)
    try:
        write(workspace.folder)
    except BaseException:
        workspace.discard()
        raise
    for name in names:
        sys.stdout.write(f"wrote {workspace.folder / name}\n")


def _student(generator: OneStepUNet, options: argparse.Namespace, config: Path) -> Plan:
    base = _base_of(config) if options.base is None else Source(options.base)

    def write(folder: Path) -> None:
        call = save_pipeline(generator, folder / "pipeline", base)
        sys.stdout.write(f"call it as pipeline({call})\n")

    return ["pipeline"], write


def _base_of(config: Path) -> Source | None:
    """The pipeline of a run's `DiffusersTeacher`; None for other teachers."""
    teacher = read_config(config)["model"]["teacher"]
    if not teacher["class_path"].endswith("DiffusersTeacher"):
        return None
    settings = teacher["init_args"]
    trained = find_trained(settings["model"], "pipeline", "model_index.json")
    return Source(str(trained or settings["model"]), settings["revision"], settings["variant"])


def _particles(generator: SceneGenerator, options: argparse.Namespace) -> Plan:
    meshes = _checked(generator, options)
    particles = _chosen(options.particles, generator)
    names = []
    for particle in particles:
        names += [] if meshes is None else meshes.names(particle)
        names += [f"particle_{particle}.{kind}" for kind in options.turntable]

    def write(folder: Path) -> None:
        if meshes is not None:
            for particle in particles:
                sys.stdout.write(f"particle {particle}: {meshes.write(generator, particle, folder)}\n")
        if options.turntable:
            _write_turntables(generator, options, particles, folder)

    return names, write


def _parser() -> argparse.ArgumentParser:
    parser = OptionParser(
        prog="scoredistill export",
        description="Write the textured mesh and the turntable of each particle; or, for a student, a folder that "
        "diffusers' DiffusionPipeline.from_pretrained loads, and print the call. In meshes y is up and the front faces "
        "+z; a unit is a meter, and the object is in a box of side 2.",
    )
    add = parser.add_argument
    add("run", metavar="RUN", help="a run folder, or a checkpoint in one")
    add_mesh_options(parser)
    add(
        "--turntable",
        nargs="*",
        default=[],
        choices=["webp", "gif", "mp4"],
        help="animations to write: webp, gif, mp4; none by default",
    )
    add(
        "--base",
        help="pipeline, a folder or hub id, with the other parts for a text-conditional student; by default its "
        "teacher's",
    )
    add("--particles", type=integer(0, 2**31 - 1), nargs="+", help="indices of particles; all by default")
    add("--output", help="folder to write into; RUN/export/0, 1, ... by default")
    add("--size", type=integer(1, 8192), default=256, help="height and width of the animation, 256 by default")
    add("--frames", type=integer(1, 10000), default=36, help="frames of the animation, 36 by default")
    add("--fps", type=integer(1, 1000), default=15, help="frames per second, 15 by default")
    add("--elevation", type=degrees(-90, 90), default=15.0, help="camera elevation in degrees, 15 by default")
    add("--radius", type=between(0, math.inf), default=2.6, help="camera distance, 2.6 by default")
    add("--fov", type=between(0, 180), default=41.5, help="vertical field of view in degrees, 41.5 by default")
    return parser


def _checked(generator: SceneGenerator, options: argparse.Namespace) -> MeshFiles | None:
    """Check the options before anything is rendered; the mesh files to write, if any."""
    if not options.format and not options.turntable:
        raise UsageError("nothing to write: name a --format or a --turntable")
    if "mp4" in options.turntable and importlib.util.find_spec("av") is None:
        raise UsageError("MP4 needs PyAV: install scoredistill[video], or write a webp")
    if options.turntable and generator.latents is not None:
        raise UsageError(
            "--turntable: the scenes are made of latents, which only their teacher decodes; use "
            "scoredistill predict --ckpt_path RUN for pictures"
        )
    return MeshFiles.of(generator, options) if options.format else None


def _chosen(particles: Sequence[int] | None, generator: SceneGenerator) -> list[int]:
    count = generator.particles or 0
    wrong = [particle for particle in particles or () if not 0 <= particle < count]
    if wrong:
        raise UsageError(f"--particles: there is no particle {wrong[0]}, only 0 to {count - 1}")
    return list(range(count)) if particles is None else list(particles)


def _workspace(output: str | None, run: Path, names: Sequence[str]) -> Workspace:
    """The folder `output`, which must have no files of these names, or a new one in the run folder."""
    if output is None:
        parents = make_folder(run / "export")
        numbered = numbered_folder(run / "export")
        return Workspace(numbered, Start(), (numbered, *parents))
    folder = Path(output)
    taken = [name for name in names if (folder / name).exists()]
    if taken:
        raise UsageError(f"{folder / taken[0]} exists already: choose another --output")
    return Workspace(folder, Start(), made=())


def _write_turntables(
    generator: SceneGenerator, options: argparse.Namespace, particles: Sequence[int], folder: Path
) -> None:
    cameras = turntable_cameras(options.frames, options.elevation, options.radius, options.fov)
    rgb = generator.render(cameras, options.size, options.size).rgb  # (n, V, 3, H, W)
    for particle in particles:
        for kind in options.turntable:
            save_animation(to_bytes(rgb[particle]), folder / f"particle_{particle}.{kind}", options.fps)
