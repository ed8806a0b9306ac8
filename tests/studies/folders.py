"""Folders of studies, made without running anything."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from scoredistill.studies.record import RunRecord, StudyRecord

Metrics = Mapping[str, float] | str | None
"""The state of a run: its metrics.json, the message of its failure, or None while it waits."""


def make_study(folder: Path, runs: Mapping[str, Mapping[int, Metrics]], **settings) -> Path:
    """A study over one axis, or over several with cells named `a=1,b=2`."""
    records, axes = [], dict[str, dict[str, None]]()
    for cell, by_seed in runs.items():
        own = dict(part.split("=") for part in cell.split(","))
        for axis, value in own.items():
            axes.setdefault(axis, {})[value] = None
        for seed, metrics in by_seed.items():
            records.append(_made(folder, cell, own, seed, metrics))
    seeds = list(dict.fromkeys(seed for by_seed in runs.values() for seed in by_seed))
    baseline = {axis: next(iter(values)) for axis, values in axes.items()}
    known = {"name": "tried", "source": "tried.yaml", "seeds": seeds, "metrics": [], "baseline": baseline, **settings}
    folder.mkdir(exist_ok=True)
    StudyRecord(axes={axis: list(values) for axis, values in axes.items()}, runs=records, **known).write(folder)
    return folder


def _made(folder: Path, cell: str, settings: dict[str, str], seed: int, metrics: Metrics) -> RunRecord:
    place = f"runs/{cell}/seed-{seed}"
    if metrics is None or isinstance(metrics, str):
        return RunRecord(cell, settings, seed, "failed" if metrics else "waiting", place, message=metrics)
    run = folder / place / "0"
    (run / "logs/version_0").mkdir(parents=True)
    (run / "metrics.json").write_text(json.dumps(metrics))
    (run / "cost.json").write_text(json.dumps({"seconds": 2.0 + seed, "steps": 10, "network_calls": 5}))
    (run / "versions.json").write_text(json.dumps([{"scoredistill": "1.2", "device": "cpu"}]))
    rows = [f"{step},{math.exp(-step / 9) * (seed + 1)},{step + seed}" for step in range(0, 40, 2)]
    (run / "logs/version_0/metrics.csv").write_text("\n".join(["step,loss,critic/loss", *rows]) + "\n")
    Image.new("RGB", (700, 300), (40 * seed, 120, 200)).save(run / "grid.png")
    return RunRecord(cell, settings, seed, "done", place, f"{place}/0")
