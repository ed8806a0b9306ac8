"""What the README and CONTRIBUTING show works as it stands there."""

import re
from pathlib import Path
from typing import Any

import torch

from scoredistill.evaluation import mode_statistics

ROOT = Path(__file__).parents[1]


def python_block(page: str) -> dict[str, Any]:
    """The names that the first Python block of a page defines."""
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(block, names)
    return names


def test_the_readmes_example_spreads_particles_over_both_modes() -> None:
    names = python_block("README.md")
    metrics = mode_statistics(names["particles"].values.detach(), names["teacher"])
    assert metrics["modes_covered"] == 2
    assert 0.8 < metrics["spread"] < 1.2
    assert metrics["weight_error"] < 0.1


def test_the_loss_of_contributing_is_sds_with_half_the_noise() -> None:
    from scoredistill import Distiller
    from scoredistill.generators import ImageParticles
    from scoredistill.losses import SDS
    from scoredistill.teachers import GaussianMixture

    x, epsilon, t = torch.randn(4, 2), torch.randn(4, 2), torch.full((4,), 0.5)
    teacher = GaussianMixture(torch.randn(3, 2), 0.5)
    half, sds = (
        Distiller(ImageParticles(x), teacher, loss).gradient(x, t=t, epsilon=epsilon)
        for loss in (python_block("CONTRIBUTING.md")["HalfNoise"](), SDS())
    )
    torch.testing.assert_close(half - sds, 0.5 * epsilon * teacher.schedule.sigma(t)[:, None] ** 2)
