"""The content of the page, read from the run folder on every request."""

from __future__ import annotations

import importlib
import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from scoredistill.cli.run_config import read_config
from scoredistill.files import Kind, load_json, reason, within
from scoredistill.generators.scenes import SceneGenerator
from scoredistill.training.checkpoints import read_checkpoint
from scoredistill.training.run_folder import RunFolder, read_curves


@dataclass(frozen=True)
class Scenes:
    """Particles that have meshes.

    Args:
        particles: their number.
        turntables: whether pictures can be rendered; scenes of latents need their teacher's decoder.
    """

    particles: int
    turntables: bool


def find_scenes(recipe: Mapping[str, object]) -> Scenes | None:
    """The scenes of a recipe's generator, or None if it has none.

    Args:
        recipe: resolved, as in config.yaml.
    """
    model = recipe.get("model")
    generator = model.get("generator") if isinstance(model, dict) else None
    if not isinstance(generator, dict):
        return None
    kind = _class(str(generator.get("class_path")))
    if not isinstance(kind, type) or not issubclass(kind, SceneGenerator):
        return None
    settings = generator.get("init_args") or {}
    return Scenes(int(settings.get("particles") or 1), settings.get("latents") is None)


def _class(class_path: str) -> object:
    module, _, name = class_path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name, None)
    except (ImportError, ValueError):  # the class was removed, or is in another working directory
        return None


CONDITIONS = ("prompt", "prompts", "negative_prompt", "labels")
LAST = "grid.png"
DOCUMENTS = ("config.yaml", "metrics.json", "versions.json")
FIRST = ("loss", "teacher", "generator", "guidance", "timesteps")
"""The first parts of a recipe in the order of the page; the others follow."""

Setting = tuple[str, str]
"""The key, dotted, and the value as text."""


@dataclass(frozen=True)
class Checkpoint:
    """A run's last checkpoint.

    Args:
        path: of the file.
        step: number of generator steps.
        key: identifies this version of the file.
    """

    path: Path
    step: int
    key: str


def last_checkpoint(run: RunFolder) -> Checkpoint | None:
    """The checkpoint written last, or None.

    Raises:
        OSError, ValueError: if it cannot be read, or a value is not finite.
    """
    path = run.last_checkpoint()
    if path is None:
        return None
    written = path.stat().st_mtime_ns
    step = _step(path, written)
    if isinstance(step, ValueError):
        raise step
    return Checkpoint(path, step, f"step_{step:06d}_{written:x}")


@lru_cache(maxsize=8)
def _step(path: Path, written: int) -> int | ValueError:
    """The generator steps of a checkpoint, or the error. Each version of the file is read once."""
    try:
        return int(read_checkpoint(path)["global_step"])
    except ValueError as error:
        return error


def report(run: RunFolder) -> dict[str, object]:
    """The content of the page without the curves.

    Args:
        run: the run.

    Returns:
        JSON content for `page.js`.

    Raises:
        UsageError: if the recipe is damaged. The report names other damaged files.
    """
    recipe = read_config(run.config)
    damaged = list[str]()
    entries = [entry for entry in _read(run.versions, list, damaged) if isinstance(entry, dict)]
    made_with = entries[-1] if entries else {}
    metrics = _read(run.path / "metrics.json", dict, damaged)
    checkpoint = _usable(run, damaged)
    pictures = _pictures(run.path, checkpoint)
    shown = {name for _, name in pictures}
    steps = [checkpoint.step if checkpoint else 0, *(step for step, _ in pictures)]
    steps += [known[-1] for known, _ in read_curves(run.path, damaged).values() if known]
    of = recipe.get("trainer", {}).get("max_steps")
    scenes = find_scenes(recipe)
    return {
        "name": "/".join(run.path.absolute().parts[-2:]),
        "damaged": damaged,
        "command": shlex.join(map(str, made_with.get("command") or [])),
        "made_with": {key: made_with[key] for key in ("started", "device", "scoredistill") if made_with.get(key)},
        "conditions": _conditions(recipe.get("data", {}).get("init_args") or {}),
        "settings": list(_parts(recipe.get("model", {}))),
        "step": max(steps),
        "of": of,
        "finished": "seconds" in metrics and (checkpoint is None or checkpoint.step >= (of or 0)),
        "written": max((path.stat().st_mtime for path in _written(run)), default=None),
        "metrics": metrics,
        "pictures": [{"step": step, "file": name} for step, name in pictures],
        "others": [name for name in files(run.path) if name.endswith((".webp", ".png")) and name not in {*shown, LAST}],
        "documents": [name for name in files(run.path) if name in DOCUMENTS],
        "scenes": _scenes(scenes, checkpoint),
    }


def files(run: Path) -> list[str]:
    """The files that the server provides, relative to the run folder. All others are refused.

    Links to files outside the folder are excluded.
    """
    patterns = (*DOCUMENTS, "*.webp", "*.png", "pictures/step_*.png", "predictions/*/samples.png")
    paths = (path for pattern in patterns for path in sorted(run.glob(pattern)))
    return [path.relative_to(run).as_posix() for path in paths if within(path, run)]


def _written(run: RunFolder) -> Iterator[Path]:
    """The files whose times tell when the run last wrote."""
    yield run.config
    yield from (path for name in files(run.path) if not name.startswith("predictions") for path in [run.path / name])
    yield from run.checkpoints.glob("*.ckpt")
    yield from run.path.glob("**/version_*/metrics.csv")


def _pictures(run: Path, checkpoint: Checkpoint | None) -> list[tuple[int, str]]:
    """Steps and names of the pictures during training, in order, and of the final one."""
    paths = ((path.stem.removeprefix("step_"), path) for path in run.glob("pictures/step_*.png"))
    pictures = sorted((int(step), path.relative_to(run).as_posix()) for step, path in paths if step.isdecimal())
    last = pictures[-1][0] if pictures else -1
    if checkpoint is not None and (run / LAST).is_file() and checkpoint.step > last:
        pictures.append((checkpoint.step, LAST))
    return pictures


def _scenes(scenes: Scenes | None, checkpoint: Checkpoint | None) -> dict[str, object] | None:
    if scenes is None:
        return None
    made_of = {"key": checkpoint.key, "step": checkpoint.step} if checkpoint else {"key": None, "step": 0}
    return {"particles": scenes.particles, "turntables": scenes.turntables, **made_of}


def _conditions(data: dict[str, object]) -> list[Setting]:
    return [(key, _text(data[key])) for key in CONDITIONS if data.get(key) is not None]


def _parts(model: dict[str, object]) -> Iterator[dict[str, object]]:
    """The parts in the recipe, each with its class and settings."""
    order = [*(key for key in FIRST if key in model), *(key for key in model if key not in FIRST)]
    for key in order:
        value = model[key]
        if isinstance(value, dict):
            rows = list(_flat(value.get("init_args", value) or {}, ""))
            yield {"part": key, "class": _short(str(value.get("class_path", ""))), "rows": rows}
        elif value is not None:
            yield {"part": key, "class": _text(value), "rows": []}


def _flat(node: dict[str, object], above: str) -> Iterator[Setting]:
    """Settings with dotted keys, without nulls."""
    for key, value in node.items():
        name = f"{above}{key}"
        if isinstance(value, dict):
            if "class_path" in value:
                yield name, _short(str(value["class_path"]))
            yield from _flat(value.get("init_args", value if "class_path" not in value else {}) or {}, f"{name}.")
        elif value is not None:
            yield name, _text(value)


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(isinstance(each, str) for each in value):
        return "\n".join(value)
    return json.dumps(value, ensure_ascii=False, default=str)


def _short(class_path: str) -> str:
    return class_path.rpartition(".")[2]


def _read(path: Path, kind: type[Kind], damaged: list[str]) -> Kind:
    """The content of a JSON file; empty if it is missing or damaged."""
    try:
        return load_json(path, kind)
    except FileNotFoundError:
        return kind()
    except ValueError as error:
        damaged.append(str(error))
        return kind()


def _usable(run: RunFolder, damaged: list[str]) -> Checkpoint | None:
    """The checkpoint written last, if it is not damaged."""
    try:
        return last_checkpoint(run)
    except OSError as error:
        damaged.append(reason(error, run.checkpoints))
    except ValueError as error:
        damaged.append(str(error))
    return None
