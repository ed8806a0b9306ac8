"""The tables of docs/measurements.md from the cases of `sd_step.py`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

STAGES = ("render", "encode", "teacher", "critic", "critic backward", "decode", "backward", "optimizer", "other")


def tables(cases: Sequence[dict[str, Any]]) -> str:
    """Markdown: each variant's stages in milliseconds, and their ratios."""
    return "\n\n".join([_stages(cases), _ratios(cases)])


def _stages(cases: Sequence[dict[str, Any]]) -> str:
    rows = []
    for case in cases:
        for name, step in case["steps"].items():
            stages = [f"{step['stages_ms'].get(stage, 0.0):.0f}" for stage in STAGES]
            peak = "" if step["peak_mib"] is None else str(step["peak_mib"])
            rows.append([case["objective"], str(case["particles"]), name, f"{step['ms']:.0f}", *stages, peak])
    return _table(["objective", "particles", "step of", "ms", *STAGES, "peak MiB"], rows)


def _ratios(cases: Sequence[dict[str, Any]]) -> str:
    rows = []
    for case in cases:
        metrics = [f"{value:.2f}" for value in case["ratios"].values()]
        bound = [f"{case['teraflops']:.3g}", f"{case['bound_ms']:.0f}", f"{case['over_bound']:.2f}"]
        rows.append([case["objective"], str(case["particles"]), *metrics, *bound])
    names = ["to straight line", "network to threestudio", "step to threestudio", "without its decode"]
    return _table(["objective", "particles", *names, "TFLOP", "bound ms", "step to bound"], rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
