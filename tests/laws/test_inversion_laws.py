"""Laws 15 and 16: inversion of the teacher's flow, and the mean of SiD."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from laws.quadrature import normal, normal_nodes, time_at
from scoredistill import Sample
from scoredistill.critics import ExactCritic
from scoredistill.diffusion import EDMSchedule
from scoredistill.losses import ScalarDistillation, SiD
from scoredistill.losses.objective import Reweighting
from scoredistill.teachers import GaussianMixture, Teacher
from scoredistill.types import Diffused


def inverted(x: Tensor, teacher: Teacher, steps: int, alpha: float) -> Tensor:
    """x_t by DDIM inversion in equal steps of t from 0."""
    times = torch.linspace(0, time_at(alpha), steps + 1)
    for before, after in pairwise(times):
        rows = torch.full((len(x),), float(before))
        x = teacher(x, rows).ddim(torch.full((len(x),), float(after)))
    return x


def test_law_15_inversion_converges_to_the_ode_at_first_order() -> None:
    teacher, x = normal(0.0, 0.5), torch.tensor([[1.0]])
    exact = math.sqrt(0.6**2 * 0.5**2 + 0.8**2) / 0.5
    assert exact == pytest.approx(1.70880, abs=5e-6)
    errors = [float(inverted(x, teacher, n, 0.6)) - exact for n in (100, 200, 400, 800)]
    # The terms of second order are 1 / n of those of first, and n >= 100.
    assert [a / b for a, b in pairwise(errors)] == pytest.approx([2, 2, 2], rel=0.01)
    # Richardson's extrapolation, of second order, is the exact flow to a hundredth of the error.
    assert abs(2 * errors[3] - errors[2]) < 0.01 * abs(errors[3])


def scalars(loss: ScalarDistillation, x: Tensor, t: float, epsilon: Tensor, teacher: GaussianMixture) -> Tensor:
    """l at each sample."""
    at = Diffused.diffuse(Sample(x), t, epsilon, teacher.schedule)
    return loss.scalar(at, teacher(at.x_t, at.t), loss.critic(at), Reweighting(torch.ones_like(at.t)))


@pytest.mark.parametrize(("a", "value"), [(1.2, -0.037469), (1.0, 0.0), (0.5, None)])
def test_law_16_the_mean_of_sid(a: float, value: float | None) -> None:
    """E[l] = (1 - a) E|D_p - D_q|^2: VE, sigma = .8, p = N(0, 1), q = N(1, .49)."""
    schedule, sigma = EDMSchedule(), 0.8
    p, q = (GaussianMixture(torch.tensor([[m]]), s, schedule=schedule) for m, s in ((0.0, 1.0), (1.0, 0.7)))
    (z, w), (epsilon, v) = normal_nodes(20), normal_nodes(20)
    t = float(schedule.t_at_log_snr(torch.tensor(-2 * math.log(sigma))))
    x = (1 + 0.7 * z)[:, None].expand(20, 20).reshape(-1, 1)
    l = scalars(SiD(ExactCritic(q), a, normalize=False), x, t, epsilon.repeat(20)[:, None], p)  # noqa: E741
    mean = float(w @ l.reshape(20, 20) @ v)
    x_t = x + sigma * epsilon.repeat(20)[:, None]
    gap = (p(x_t, torch.full((400,), t)).x0 - q(x_t, torch.full((400,), t)).x0).square()
    assert mean == pytest.approx((1 - a) * float(w @ gap.reshape(20, 20) @ v), abs=1e-12)
    assert value is None or mean == pytest.approx(value, abs=5e-7)
