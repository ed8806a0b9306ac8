"""What the page says of a run, read anew from its folder each time."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from scoredistill.cli.stored import read_config
from scoredistill.cli.viewer.scenes import Scenes, find_scenes
from scoredistill.files import Kind, load_json, reason, within
from scoredistill.training.checkpoints import read_checkpoint
from scoredistill.training.curves import read_curves
from scoredistill.training.run_folder import RunFolder

ASKED = ("prompt", "prompts", "negative_prompt", "labels")
LAST = "grid.png"
DOCUMENTS = ("config.yaml", "metrics.json", "versions.json")
FIRST = ("loss", "teacher", "generator", "guidance", "timesteps")
"""Parts of a recipe in the order in which they are shown; the others come after them."""

Setting = tuple[str, str]
"""The key, dotted, and the value as text."""


@dataclass(frozen=True)
class Checkpoint:
    """A run's last checkpoint.

    Args:
        path: of the file.
        step: generator steps that it has.
        key: names it among all that the file has been.
    """

    path: Path
    step: int
    key: str


def last_checkpoint(run: RunFolder) -> Checkpoint | None:
    """The checkpoint written last, or None.

    Raises:
        OSError, ValueError: if it cannot be read, or holds what is not finite.
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
    """Generator steps of a checkpoint, or why it cannot be used, read once for each time that it was written."""
    try:
        return int(read_checkpoint(path)["global_step"])
    except ValueError as error:
        return error


def report(run: RunFolder) -> dict[str, object]:
    """Everything that the page shows but the curves.

    Args:
        run: whose folder is read.

    Returns:
        What JSON can hold; `page.js` is its reader.

    Raises:
        UsageError: if its recipe is damaged. Other damaged files are named in the report.
    """
    recipe, damaged = read_config(run.config), list[str]()
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
        "asked": _asked(recipe.get("data", {}).get("init_args") or {}),
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
    """Names in the run folder, relative to it, of all that the server gives out: nothing else can be asked for.

    A link that leads out of the folder is none of them.
    """
    patterns = (*DOCUMENTS, "*.webp", "*.png", "pictures/step_*.png", "predictions/*/samples.png")
    found = (path for pattern in patterns for path in sorted(run.glob(pattern)))
    return [path.relative_to(run).as_posix() for path in found if within(path, run)]


def _written(run: RunFolder) -> Iterator[Path]:
    """The files that say when the run was last at work."""
    yield run.config
    yield from (path for name in files(run.path) if not name.startswith("predictions") for path in [run.path / name])
    yield from run.checkpoints.glob("*.ckpt")
    yield from run.path.glob("**/version_*/metrics.csv")


def _pictures(run: Path, checkpoint: Checkpoint | None) -> list[tuple[int, str]]:
    """Steps and names of the pictures taken while training, in order, and of the one at its end."""
    found = ((path.stem.removeprefix("step_"), path) for path in run.glob("pictures/step_*.png"))
    pictures = sorted((int(step), path.relative_to(run).as_posix()) for step, path in found if step.isdecimal())
    last = pictures[-1][0] if pictures else -1
    if checkpoint is not None and (run / LAST).is_file() and checkpoint.step > last:
        pictures.append((checkpoint.step, LAST))
    return pictures


def _scenes(scenes: Scenes | None, checkpoint: Checkpoint | None) -> dict[str, object] | None:
    if scenes is None:
        return None
    made_of = {"key": checkpoint.key, "step": checkpoint.step} if checkpoint else {"key": None, "step": 0}
    return {"particles": scenes.particles, "turntables": scenes.turntables, **made_of}


def _asked(data: dict[str, object]) -> list[Setting]:
    return [(key, _text(data[key])) for key in ASKED if data.get(key) is not None]


def _parts(model: dict[str, object]) -> Iterator[dict[str, object]]:
    """The recipe's parts that are there, each with its class and its settings."""
    order = [*(key for key in FIRST if key in model), *(key for key in model if key not in FIRST)]
    for key in order:
        value = model[key]
        if isinstance(value, dict):
            rows = list(_flat(value.get("init_args", value) or {}, ""))
            yield {"part": key, "class": _short(str(value.get("class_path", ""))), "rows": rows}
        elif value is not None:
            yield {"part": key, "class": _text(value), "rows": []}


def _flat(node: dict[str, object], above: str) -> Iterator[Setting]:
    """Settings with dotted keys; what is null says nothing."""
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
    """A JSON file's content, empty where there is none, or none that can be read."""
    try:
        return load_json(path, kind)
    except FileNotFoundError:
        return kind()
    except ValueError as error:
        damaged.append(str(error))
        return kind()


def _usable(run: RunFolder, damaged: list[str]) -> Checkpoint | None:
    """The checkpoint written last, if it can be used."""
    try:
        return last_checkpoint(run)
    except OSError as error:
        damaged.append(reason(error, run.checkpoints))
    except ValueError as error:
        damaged.append(str(error))
    return None
