"""Noise times, given as numbers or as tensors."""

from collections.abc import Callable

import pytest
import torch
from laws.zoo import LOSSES, mlp
from torch import Tensor

from scoredistill import Distiller
from scoredistill.generators import ImageParticles
from scoredistill.losses import SDS
from scoredistill.teachers import Gallery, GaussianMixture, NetworkTeacher, Teacher
from scoredistill.testing import ReferenceTeacher


@pytest.mark.parametrize("t", [0.5, torch.tensor(0.5), torch.tensor(0.5, dtype=torch.float64)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("loss", ["SDS", "VSD-network", "FDistill-discriminator"])
def test_a_number_is_a_time_for_all_samples(t: float | Tensor, dtype: torch.dtype, loss: str) -> None:
    x, epsilon = torch.randn(3, 2, dtype=dtype), torch.randn(3, 2, dtype=dtype)
    distiller = Distiller(ImageParticles(x), ReferenceTeacher(), LOSSES[loss]()).to(dtype)
    expected = distiller.gradient(x, t=torch.full((3,), 0.5, dtype=dtype), epsilon=epsilon)
    g = distiller.gradient(x, t=t, epsilon=epsilon)
    assert g.dtype == dtype
    assert torch.equal(g, expected)
    steps = [float(distiller.evaluate(t=at, epsilon=epsilon).loss.detach()) for at in (t, torch.full((3,), 0.5).to(x))]
    assert steps[0] == steps[1]


@pytest.mark.parametrize(
    "make", [lambda: GaussianMixture(torch.zeros(1, 2), 0.4), lambda: NetworkTeacher(mlp()), Gallery]
)
def test_teachers_take_a_number(make: Callable[[], Teacher]) -> None:
    teacher = make()
    x_t = torch.randn(2, 3, 8, 8) if isinstance(teacher, Gallery) else torch.randn(2, 2)
    for t in (0.5, torch.tensor(0.5)):
        assert torch.equal(teacher(x_t, t).epsilon, teacher(x_t, torch.full((2,), 0.5)).epsilon)


@pytest.mark.parametrize(
    ("t", "message"),
    [
        (1.5, r"t must lie in \[0, 1\], got 1.5"),
        (torch.tensor([0.5, -0.1, 0.5]), r"got -0.1"),
        (float("nan"), "got nan"),
        (torch.ones(3, 1), r"t must be a number or \(3,\), one time per sample; got \(3, 1\)"),
        (torch.ones(2), r"got \(2,\)"),
    ],
    ids=str,
)
def test_impossible_times_are_refused(t: float | Tensor, message: str) -> None:
    x = torch.randn(3, 2)
    with pytest.raises(ValueError, match=message):
        Distiller(ImageParticles(x), ReferenceTeacher(), SDS()).gradient(x, t=t, epsilon=torch.randn(3, 2))
