"""HiFA's term of the rendered picture."""

import pytest
import torch
from torch import Tensor

from scoredistill import Condition, Distiller, Sample
from scoredistill.diffusion import CFG
from scoredistill.generators import ImageParticles
from scoredistill.losses import SDS, HiFA, Objective
from scoredistill.testing import ReferenceTeacher

X = torch.randn(5, 2, dtype=torch.float64)
T = torch.linspace(0.2, 0.8, 5).double()
EPSILON = torch.randn(5, 2, dtype=torch.float64)


class Halves(ReferenceTeacher):
    """Latents are half of the pictures."""

    def encode(self, x: Tensor) -> Tensor:
        return x / 2

    def decode(self, x: Tensor) -> Tensor:
        return 2 * x


def of(loss: Objective) -> Distiller:
    return Distiller(ImageParticles(2 * X), Halves(), loss, CFG(7.5))


def step(loss: Objective, picture: Tensor | None = None):  # type: ignore[no-untyped-def]
    return of(loss).evaluate(Sample(X, Condition("left"), picture=picture), t=T, epsilon=EPSILON)


def test_without_the_term_and_with_one_step_it_is_sds() -> None:
    found = step(HiFA(picture_weight=0.0, steps=1)).gradient
    assert torch.equal(found.g, step(SDS()).gradient.g)
    assert found.picture is None


def test_both_terms_against_their_equations() -> None:
    """(z - z0) and (x - D(z0)), with z0 of one guided step."""
    found, teacher = step(HiFA(0.3, steps=1), 2 * X).gradient, Halves()
    alpha, sigma = (each[:, None] for each in teacher.schedule(T))
    z0 = CFG(7.5)(teacher, alpha * X + sigma * EPSILON, T, Condition("left")).x0
    scale = sigma**2 * alpha / sigma
    torch.testing.assert_close(found.g, scale * (X - z0), rtol=1e-10, atol=1e-11)
    torch.testing.assert_close(found.picture, 0.3 * scale * (2 * X - 2 * z0), rtol=1e-10, atol=1e-11)


def test_several_steps_are_ddims() -> None:
    found, teacher, steps = step(HiFA(0.3, steps=3), 2 * X).gradient, Halves(), 3
    t, times = T, [T * (1 - k / steps) for k in range(1, steps)]
    alpha, sigma = (each[:, None] for each in teacher.schedule(t))
    x_t = alpha * X + sigma * EPSILON
    for after in [*times, None]:
        a, s = (each[:, None] for each in teacher.schedule(t))
        epsilon = CFG(7.5)(teacher, x_t, t, Condition("left")).epsilon
        z0 = (x_t - s * epsilon) / a
        if after is not None:
            a, s = (each[:, None] for each in teacher.schedule(after))
            x_t, t = a * z0 + s * epsilon, after
    torch.testing.assert_close(found.g, sigma * alpha * (X - z0), rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(found.picture, 0.3 * sigma * alpha * (2 * X - 2 * z0), rtol=1e-9, atol=1e-10)


def test_the_terms_reach_latents_and_pictures() -> None:
    """Through encode the particles receive g / 2 of the latents and the whole of the pictures' term."""
    distiller = of(HiFA(0.3, steps=2))
    found = distiller.evaluate(t=T, epsilon=EPSILON)
    found.loss.backward()
    expected = (found.gradient.g / 2 + found.gradient.picture) / 5
    torch.testing.assert_close(distiller.generator.values.grad, expected, rtol=1e-12, atol=1e-13)


def test_ranges() -> None:
    with pytest.raises(ValueError, match="steps must be at least 1"):
        HiFA(steps=0)
