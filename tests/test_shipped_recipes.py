"""Every shipped recipe that can run on this machine runs, shortened, with all of its callbacks."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from scoredistill import recipe_library, recipe_yaml
from scoredistill.__main__ import main

SHORTER = {
    "GalleryFidelity": {"resolution": 16, "mesh_resolution": 24},
    "MeshExport": {"resolution": 24},
    "MixtureQuality": {"samples": 200},
    "ParticleGrid": {"every": 1, "resolution": 16, "samples": 4},
    "PromptFidelity": {"resolution": 32},
    "PromptSamples": {"samples": 2},
    "ReconstructionQuality": {"samples": 8, "shown": 2},
    "SampleQuality": {
        "samples": 8,
        "sets": 1,
        "resamples": 2,
        "reference_teacher": 0,
        "extractor": {"class_path": "ClassifierFeatures", "init_args": {"steps": 2}},
    },
    "Turntable": {"frames": 3, "resolution": 16},
}
"""Settings of slow callbacks."""
LEAVES = {
    "GalleryFidelity": ["psnr", "variants"],
    "MeshExport": ["meshes/*.glb"],
    "MixtureQuality": ["mode_kl"],
    "ModeStatistics": ["modes_covered", "weight_error"],
    "ParticleGrid": ["grid.png", "pictures/step_*.png"],
    "PromptFidelity": ["recognized"],
    "PromptSamples": ["recognized", "grid.png"],
    "ReconstructionQuality": ["psnr", "reconstructions.png"],
    "SampleQuality": ["frechet", "class_accuracy"],
    "Turntable": ["turntable*.webp"],
}
"""The results of each callback: metrics in metrics.json, or files."""
NOT_HERE = ("models/", "weights/")
"""The paths of a user's files in recipes."""
TEACHERS = (
    "teachers/digits",
    "teachers/gallery",
    "teachers/gallery64",
    "teachers/gallery_autoencoder",
    "teachers/gallery_sd",
)


def strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for each in value.values() for text in strings(each)]
    if isinstance(value, list):
        return [text for each in value for text in strings(each)]
    return [value] if isinstance(value, str) else []


def content(name: str) -> dict[str, Any]:
    return recipe_library.read(recipe_library.find(name))


def configs_of(name: str) -> list[str]:
    """The recipe, preceded by the base of an overlay."""
    return [name.removeprefix("small/"), name] if name.startswith("small/") else [name]


NAMES = [
    each.name.removesuffix(".yaml")
    for each in recipe_library.recipes()
    if not each.name.startswith(("studies/", "losses/"))
    and each.path.stem != "stages"
    and not any(text.startswith(NOT_HERE) for text in strings(content(each.name)))
]


def shortened(name: str) -> tuple[list[str], list[str]]:
    """Options that shorten a recipe, and the names of its callbacks."""
    words = ["--trainer.max_steps=1", "--trainer.logger=false", "--trainer.accelerator=cpu", "--checkpoint_every=1"]
    parts = [content(config) for config in configs_of(name)]
    given = next(part["trainer"]["callbacks"] for part in reversed(parts) if "callbacks" in part.get("trainer", {}))
    callbacks = [each if isinstance(each, dict) else {"class_path": each} for each in given]
    kinds = [each["class_path"] for each in callbacks]
    short = [
        {"class_path": kind, "init_args": each.get("init_args", {}) | SHORTER.get(kind, {})}
        for kind, each in zip(kinds, callbacks, strict=True)
    ]
    words.append(f"--trainer.callbacks={recipe_yaml.dump_line(short)}")
    data = next((part["data"] for part in reversed(parts) if isinstance(part.get("data"), dict)), {})
    if "batch_size" in data.get("init_args", {}):
        words.append("--data.batch_size=2")
    if data.get("class_path") == "TeacherPairs":
        words += ["--data.pairs=4", "--data.steps=2"]
    if "GalleryImages" in strings(data):
        words.append("--data.source.count=64")
        model = parts[-1]["model"]
        sized = {"model.shape": model, "model.generator.shape": model.get("generator", {}).get("init_args", {})}
        key = next((key for key, settings in sized.items() if "shape" in settings), None)
        words += [] if key is None else [f"--{key}=[3, 16, 16]", "--data.source.resolution=16"]
    if any(part.get("model", {}).get("generator", {}).get("class_path") == "NeRF" for part in parts):
        words += ["--model.generator.resolution=16", "--model.generator.samples=8"]
    return words, kinds


def run(name: str, output: str) -> tuple[Path, list[str]]:
    words, kinds = shortened(name)
    before = set(Path(output).glob("*"))
    code = main(["fit", *(f"--config={config}" for config in configs_of(name)), f"--output={output}", *words])
    assert code == 0
    (made,) = set(Path(output).glob("*")) - before
    return made, kinds


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with the trained teachers."""
    return tmp_path_factory.mktemp("workshop")


def teachers_of(name: str) -> list[str]:
    """The teachers that a recipe needs, the first one first."""
    named = [text.removesuffix(".yaml") for config in configs_of(name) for text in strings(content(config))]
    own = [teacher for teacher in TEACHERS if teacher in named]
    return [*(deeper for teacher in own for deeper in teachers_of(teacher)), *own]


def prepare(name: str) -> None:
    """Run the prerequisites of a recipe: its teachers, and the run that its generator starts from."""
    starts = [part["start_from"] for part in map(content, configs_of(name)) if part.get("start_from")]
    former = [start.removeprefix("runs/") for start in starts[-1:]]
    for other in (*teachers_of(name), *former):
        if not list(Path("runs", other).glob("*/config.yaml")):
            prepare(other)
            run(other, f"runs/{other}")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of runs that are too short to be any good
@pytest.mark.parametrize("name", NAMES)
def test_it_runs_with_all_of_its_callbacks(workshop, monkeypatch, name):
    monkeypatch.chdir(workshop)
    torch.set_default_dtype(torch.float32)
    prepare(name)
    folder, kinds = run(name, f"runs/short/{name}")
    metrics = json.loads((folder / "metrics.json").read_text())
    for kind in kinds:
        for left in LEAVES[kind]:
            there = list(folder.glob(left)) if "." in left else [key for key in metrics if key.startswith(left)]
            assert there, f"{kind} has left no {left}: {sorted(metrics)}, {sorted(os.listdir(folder))}"
    assert all(isinstance(value, float | int) for value in metrics.values())
