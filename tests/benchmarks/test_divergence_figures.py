"""The benchmark of divergences prints the metrics of law 10, and the docs show the same numbers."""

import importlib
import json
import math
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
CLOSED = {
    "ReverseKL": 0.0,
    "ForwardKL": math.e - 1,  # r^k has the variance e^(k^2) - 1
    "Neyman": math.e - 1,
    "Pearson": math.exp(4) - 1,
    "SquaredHellinger": math.exp(0.25) - 1,
    "Alpha": math.exp(0.25) - 1,
    # E[r + 1] = 2 and E[(r + 1)^2] = e + 3.
    "Jeffreys": (math.e - 1) / 4,
}
IN_THEORY = {"JensenShannon": 0.256, "SoftenedReverseKL": 0.112}


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("divergences")


def test_quadrature_equals_the_closed_form(benchmark: ModuleType) -> None:
    found = {name: benchmark.variance_at_gap_one(divergence) for name, divergence in benchmark.DIVERGENCES.items()}
    assert found.keys() == CLOSED.keys() | IN_THEORY.keys()
    for name, expected in CLOSED.items():
        assert found[name] == pytest.approx(expected, rel=1e-8, abs=1e-12)
    assert {name: round(found[name], 3) for name in IN_THEORY} == IN_THEORY
    for name in IN_THEORY:  # not polynomials in r: the number of nodes makes no difference
        assert found[name] == pytest.approx(benchmark.variance_at_gap_one(benchmark.DIVERGENCES[name], 80), rel=1e-6)


def test_results_and_docs_agree(benchmark: ModuleType) -> None:
    stored = json.loads((ROOT / "benchmarks" / "results" / "divergences.json").read_text())["grid"]
    page = (ROOT / "docs" / "measurements.md").read_text()
    rows = re.findall(r"^\| (\w+) \| (?:exact|learned) \|.*\| ([\d.]+) \|$", page, re.MULTILINE)
    assert {name for name, _ in rows} == set(benchmark.DIVERGENCES)
    for name, shown in rows:
        law = benchmark.variance_at_gap_one(benchmark.DIVERGENCES[name])
        assert shown == f"{law:.3f}"
        assert stored[name]["law_10"]["variance_at_gap_one"] == pytest.approx(law, rel=1e-9, abs=1e-12)
