"""Variants of classifier-free guidance against their equations."""

from typing import Any

import pytest
import torch
from scipy.optimize import brentq
from torch import Tensor

from scoredistill import Condition, Distiller
from scoredistill.diffusion import (
    CFG,
    CFGZeroStar,
    CosineSchedule,
    FlowSchedule,
    Guidance,
    IntervalCFG,
    Prediction,
    ProjectedCFG,
    RescaledCFG,
)
from scoredistill.generators import ImageParticles
from scoredistill.losses import SDS
from scoredistill.teachers import GaussianMixture
from scoredistill.testing import ReferenceTeacher

B = 6
CONDITION = Condition("asked")
MAKE: list[Any] = [IntervalCFG, RescaledCFG, ProjectedCFG, CFGZeroStar]


def batch() -> tuple[Tensor, Tensor]:
    return torch.randn(B, 2), torch.linspace(0.1, 0.9, B)


def predictions(teacher: ReferenceTeacher, x_t: Tensor, t: Tensor) -> list[Prediction]:
    return teacher.predict_many(x_t, t, [CONDITION, CONDITION.negative()])


@pytest.mark.parametrize("make", MAKE)
def test_at_scale_1_it_is_the_conditional_model_from_one_prediction(make: Any) -> None:
    (x_t, t), teacher = batch(), ReferenceTeacher()
    assert len(make(1.0).conditions(CONDITION, teacher, B)) == 1
    assert torch.equal(make(1.0)(teacher, x_t, t, CONDITION).epsilon, teacher(x_t, t, CONDITION).epsilon)


@pytest.mark.parametrize(
    "guidance",
    [IntervalCFG(7.5, 0.0, float("inf")), RescaledCFG(7.5, 0.0), ProjectedCFG(7.5, 1.0)],
    ids=lambda guidance: type(guidance).__name__,
)
def test_without_its_own_effect_it_is_cfg(guidance: Guidance) -> None:
    (x_t, t), teacher = batch(), ReferenceTeacher()
    expected = CFG(7.5)(teacher, x_t, t, CONDITION).epsilon
    torch.testing.assert_close(guidance(teacher, x_t, t, CONDITION).epsilon, expected, rtol=1e-12, atol=1e-12)


def test_an_interval_guides_inside_and_not_outside() -> None:
    (x_t, t), teacher = batch(), ReferenceTeacher()
    alpha, sigma = teacher.schedule(t)
    inside = (sigma / alpha >= 0.5) & (sigma / alpha <= 2)
    assert 0 < int(inside.sum()) < B
    found = IntervalCFG(7.5, 0.5, 2.0)(teacher, x_t, t, CONDITION).epsilon
    assert torch.equal(found[inside], CFG(7.5)(teacher, x_t, t, CONDITION).epsilon[inside])
    torch.testing.assert_close(found[~inside], teacher(x_t, t, CONDITION).epsilon[~inside], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["v", "epsilon", "x0", "flow"])
def test_full_rescaling_restores_the_standard_deviation(kind: Any) -> None:
    x_t, t = torch.randn(B, 8), torch.linspace(0.1, 0.9, B)
    teacher = ReferenceTeacher((8,))
    cond, uncond = predictions(teacher, x_t, t)
    found = RescaledCFG(7.5, 1.0, kind)(teacher, x_t, t, CONDITION)
    c, u = getattr(cond, kind), getattr(uncond, kind)
    guided = u + 7.5 * (c - u)
    torch.testing.assert_close(getattr(found, kind), guided * (c.std(1) / guided.std(1))[:, None])
    torch.testing.assert_close(getattr(found, kind).std(1), c.std(1))


def test_rescaling_equals_that_of_diffusers() -> None:
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

    x_t, t = torch.randn(B, 3, 4, 4), torch.linspace(0.1, 0.9, B)
    teacher = ReferenceTeacher((3, 4, 4))
    cond, uncond = predictions(teacher, x_t, t)
    guided = uncond.epsilon + 7.5 * (cond.epsilon - uncond.epsilon)
    expected = rescale_noise_cfg(guided, cond.epsilon, guidance_rescale=0.7)
    found = RescaledCFG(7.5, 0.7, "epsilon")(teacher, x_t, t, CONDITION).epsilon
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("threshold", [None, 0.3])
def test_projection_is_the_papers_in_x0(threshold: float | None) -> None:
    x_t, t = torch.randn(B, 8), torch.linspace(0.1, 0.9, B)
    teacher, eta, s = ReferenceTeacher((8,)), 0.2, 7.5
    cond, uncond = (each.x0 for each in predictions(teacher, x_t, t))
    d = cond - uncond
    if threshold is not None:
        d = d * (threshold / d.norm(dim=1, keepdim=True)).clamp(max=1)
    along = torch.nn.functional.normalize(cond, dim=1)
    parallel = (d * along).sum(1, keepdim=True) * along
    expected = cond + (s - 1) * (d - parallel + eta * parallel)
    found = ProjectedCFG(s, eta, threshold)(teacher, x_t, t, CONDITION).x0
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_zero_star_is_the_papers_in_velocity() -> None:
    (x_t, t), teacher = batch(), ReferenceTeacher(schedule=FlowSchedule())
    cond, uncond = (each.flow for each in predictions(teacher, x_t, t))
    k = (cond * uncond).sum(1, keepdim=True) / uncond.square().sum(1, keepdim=True)
    expected = k * uncond + 7.5 * (cond - k * uncond)
    torch.testing.assert_close(CFGZeroStar(7.5)(teacher, x_t, t, CONDITION).flow, expected)
    zeroed = CFGZeroStar(7.5, 0.5)(teacher, x_t, t, CONDITION).flow
    assert torch.equal((zeroed == 0).all(1), t >= 0.5)


class Classes(GaussianMixture):
    """p(.|y) = N(1, .25 I), p(.) = N(0, I) in two dimensions: law 6's setting."""

    def __init__(self) -> None:
        super().__init__(torch.zeros(1, 2), 1.0, schedule=CosineSchedule())
        self.conditional = GaussianMixture(torch.ones(1, 2), 0.5, schedule=CosineSchedule())

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition | None = None) -> Prediction:
        if condition is not None and condition.prompt is not None:
            return self.conditional(x_t, t)
        return super().forward(x_t, t)


def fixed_point(guidance: Guidance) -> float:
    """The fixed point of SDS on the line x = (a, a), without noise in x_t, at alpha = .8."""
    teacher = Classes()
    t = torch.tensor([2 * torch.acos(torch.tensor(0.8)).item() / torch.pi])
    distiller = Distiller(ImageParticles(torch.zeros(1, 2)), teacher, SDS(), guidance)

    def g(a: float) -> float:
        x = torch.full((1, 2), a)
        return float(distiller.gradient(x, t=t, epsilon=torch.zeros(1, 2), condition=Condition("y"))[0, 0])

    return brentq(g, 0.2, 20, xtol=1e-12)


def test_saturation_is_law_6s_and_a_rescaled_or_projected_direction_lowers_it() -> None:
    assert fixed_point(CFG(7.5)) == pytest.approx(1.82039, abs=5e-6)  # as many digits as the law states
    # On this line the direction is parallel to x0, and projection removes it: the class's own mean is left.
    assert fixed_point(ProjectedCFG(7.5)) == pytest.approx(1.0, abs=1e-9)
    assert 1.0 < fixed_point(ProjectedCFG(7.5, 0.5)) < fixed_point(CFG(7.5))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: IntervalCFG(7.5, 2.0, 1.0), "need low <= high"),
        (lambda: RescaledCFG(7.5, 1.5), "rescale must lie in"),
        (lambda: RescaledCFG(7.5, 0.5, "score"), "kind: choose v, epsilon, x0 or flow"),  # type: ignore[arg-type]
        (lambda: ProjectedCFG(7.5, -1.0), "eta must be at least 0"),
        (lambda: CFGZeroStar(7.5, 2.0), "zero_above must lie in"),
    ],
)
def test_impossible_settings_are_errors(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
