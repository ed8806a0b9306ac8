"""DDIM inversion and the reversal of a flow."""

import math
from itertools import pairwise

import pytest
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler
from laws.quadrature import ALPHA, SIGMA, moments, normal, normal_nodes, one_dimension, time_at
from torch import Tensor

from scoredistill import Condition, Distiller
from scoredistill.diffusion import CFG, FlowSchedule, FlowWeight, LinearSchedule, UniformWeight, X0Weight
from scoredistill.generators import ImageParticles
from scoredistill.losses import ISM, RFDS, SDI, SDS, Objective, RFDSRev
from scoredistill.losses.inversion import inversion_times
from scoredistill.teachers import GaussianMixture, Teacher
from scoredistill.testing import ReferenceTeacher
from scoredistill.types import Diffused, Sample

X = torch.randn(4, 2, dtype=torch.float64)
ROWS = {"t": torch.tensor([0.1, 0.35, 0.6, 0.9], dtype=torch.float64), "epsilon": torch.randn(4, 2).double()}
ASKED = Condition("left", negative_prompt="up")


def of(loss: Objective, scale: float = 7.5, teacher: Teacher | None = None) -> Distiller:
    return Distiller(ImageParticles(X), teacher or ReferenceTeacher(), loss, CFG(scale))


def test_sdi_finds_the_noise_of_the_ode() -> None:
    """kappa = (x_t - alpha x) / sigma of the exact flow from `START`, up to an error of first order in the step."""
    teacher, loss = normal(0.0, 0.5), SDI(scale=1.0, steps=10)
    x, t = torch.tensor([[1.0]]), torch.tensor([time_at(0.6)])
    start = Diffused.diffuse(Sample(x), 0.001, torch.zeros(1, 1), teacher.schedule)
    v = [float(a**2 * 0.25 + s**2) for a, s in (teacher.schedule(start.t), teacher.schedule(t))]
    exact = (float(start.x_t) * math.sqrt(v[1] / v[0]) - 0.6) / 0.8
    at = Diffused.diffuse(Sample(x), t, torch.zeros(1, 1), teacher.schedule)
    errors = []
    for loss.steps in (10, 100, 1000):
        errors.append(abs(float(loss.prepare(at, teacher, CFG()).epsilon) - exact))
    # a / n + b / n^2 with b of the size of a: 1 / n of a at the smaller n, here 10 and 100, doubled.
    assert errors[0] / errors[1] == pytest.approx(10, rel=0.2)
    assert errors[1] / errors[2] == pytest.approx(10, rel=0.02)


def test_sdi_without_steps_is_sds_at_that_noise() -> None:
    rows = {**ROWS, "condition": ASKED}
    assert torch.equal(of(SDI(steps=0)).gradient(X, **rows), of(SDS(X0Weight())).gradient(X, **rows))


def test_sdi_against_the_inverse_scheduler_of_diffusers() -> None:
    """DDIMInverseScheduler, which steps by a constant 1/10; at a noise level of its grid the noise is the same."""
    settings = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False}
    schedule = LinearSchedule()
    teacher = ReferenceTeacher(schedule=schedule)
    theirs = DDIMInverseScheduler(1000, **settings, set_alpha_to_one=False)
    theirs.alphas_cumprod = (1 - theirs.betas.double()).cumprod(0)
    theirs.initial_alpha_cumprod = theirs.alphas_cumprod[0]
    theirs.set_timesteps(10)
    x_t = schedule.alpha(0.001) * X + schedule.sigma(0.001) * ROWS["epsilon"]
    for index in theirs.timesteps[:6]:
        # The scheduler labels a step by where it arrives; the network is called where it starts.
        start = max(int(index) - 100, 0)
        t = torch.full((4,), (start + 1) / 1000)
        x_t = theirs.step(guided(teacher, x_t, t, -7.5), int(index), x_t).prev_sample
    t = torch.full((4,), (int(theirs.timesteps[5]) + 1) / 1000)
    at = Diffused.diffuse(Sample(X, ASKED), t, ROWS["epsilon"], schedule)
    ours = SDI().prepare(at, teacher, CFG())
    torch.testing.assert_close(ours.x_t, x_t, rtol=1e-6, atol=1e-6)


def guided(teacher: Teacher, x_t: Tensor, t: Tensor, s: float) -> Tensor:
    cond, uncond = (teacher(x_t, t, c).epsilon for c in (ASKED, ASKED.negative()))
    return uncond + s * (cond - uncond)


def test_ism_against_the_scheduler_of_diffusers() -> None:
    """x_s in steps of .2 and x_t from it by DDIMScheduler's arithmetic, both without condition."""
    schedule = LinearSchedule()
    teacher = ReferenceTeacher(schedule=schedule)
    scheduler = DDIMScheduler(1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    abar = (1 - scheduler.betas.double()).cumprod(0)
    grid, t = [0, 200, 400, 549, 599], torch.full((4,), 0.6)
    x_t = abar[0].sqrt() * X + (1 - abar[0]).sqrt() * ROWS["epsilon"]
    for before, after in pairwise(grid):
        b = teacher(x_t, torch.full((4,), (before + 1) / 1000), None).epsilon
        x0 = (x_t - (1 - abar[before]).sqrt() * b) / abar[before].sqrt()
        x_t = abar[after].sqrt() * x0 + (1 - abar[after]).sqrt() * b
    g = of(ISM(), 7.5, teacher).gradient(X, t=t, epsilon=ROWS["epsilon"], condition=ASKED)
    weight = (schedule.sigma(t) / schedule.alpha(t))[:, None]
    expected = weight * (guided(teacher, x_t, t, 7.5) - b)
    torch.testing.assert_close(g, expected, rtol=1e-6, atol=1e-6)


def test_the_inversion_times_of_a_batch_are_those_of_its_samples() -> None:
    t = torch.tensor([0.0, 0.05, 0.41, 0.9])
    times = torch.stack(inversion_times(t, 0.2))
    assert torch.equal(times[0], torch.tensor([0.0, 0.001, 0.001, 0.001]))
    assert torch.equal(times[-1], t)
    assert (times.diff(dim=0) >= 0).all()
    assert times.diff(dim=0).amax() <= 0.2 + 1e-9


def test_rfds_is_sds_with_the_flows_weight() -> None:
    teacher = ReferenceTeacher(schedule=FlowSchedule())
    rows = {**ROWS, "condition": ASKED}
    g = of(RFDS(), 7.5, teacher).gradient(X, **rows)
    assert torch.equal(g, of(SDS(FlowWeight()), 7.5, teacher).gradient(X, **rows))
    x_t = (1 - ROWS["t"][:, None]) * X + ROWS["t"][:, None] * ROWS["epsilon"]
    velocity = CFG(7.5)(teacher, x_t, ROWS["t"], ASKED).flow
    torch.testing.assert_close(g, velocity - (ROWS["epsilon"] - X), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("x", [-0.5, 1.5])
def test_rfds_in_closed_form(x: float) -> None:
    """On N(0, S^2) under a flow: g = (sigma x_t / v - epsilon) / (1 - t) is affine in epsilon."""
    t, std = 0.6, 0.7
    teacher = GaussianMixture(torch.zeros(1, 1), std, schedule=FlowSchedule())
    v = (1 - t) ** 2 * std**2 + t**2
    distiller = one_dimension(RFDS(), teacher)
    z, w = normal_nodes(40)
    g = distiller.gradient(torch.full((40, 1), x), t=t, epsilon=z[:, None])[:, 0]
    mean = float((w * g).sum())
    assert mean == pytest.approx(t * x / v, abs=1e-12)
    assert float((w * (g - mean) ** 2).sum()) == pytest.approx(((t**2 / v - 1) / (1 - t)) ** 2, abs=1e-12)


def test_the_reversal_is_the_papers_step_on_the_noise() -> None:
    """epsilon + (1 - t)(v(x_t; y) + x - epsilon), without guidance, then RFDS under guidance."""
    teacher, t = ReferenceTeacher(schedule=FlowSchedule()), ROWS["t"][:, None]
    x_t = (1 - t) * X + t * ROWS["epsilon"]
    found = ROWS["epsilon"] + (1 - t) * (teacher(x_t, ROWS["t"], ASKED).flow + X - ROWS["epsilon"])
    rows = {"t": ROWS["t"], "condition": ASKED}
    g = of(RFDSRev(), 7.5, teacher).gradient(X, epsilon=ROWS["epsilon"], **rows)
    torch.testing.assert_close(g, of(RFDS(), 7.5, teacher).gradient(X, epsilon=found, **rows), rtol=1e-9, atol=1e-10)
    assert torch.equal(
        of(RFDSRev(0), 7.5, teacher).gradient(X, epsilon=ROWS["epsilon"], **rows),
        of(RFDS(), 7.5, teacher).gradient(X, epsilon=ROWS["epsilon"], **rows),
    )


def test_the_inversion_removes_the_noise_of_sds() -> None:
    """On one Gaussian, g of SDI and ISM hardly depends on the drawn noise, which is used at t = .001 alone."""
    teacher = normal(0.3, 0.7)
    drawn = moments(one_dimension(SDS(UniformWeight()), teacher), 1.0)[1]
    assert drawn == pytest.approx((1 - SIGMA**2 / (ALPHA**2 * 0.49 + SIGMA**2)) ** 2, rel=1e-9)
    for loss in (SDI(1.0, weight=UniformWeight()), ISM(weight=UniformWeight())):
        assert moments(one_dimension(loss, teacher), 1.0)[1] < 1e-4 * drawn
