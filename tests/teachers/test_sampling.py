"""Many-step samplers: the probability flow, and the order of convergence."""

from math import log, pi

import pytest
import torch
from laws.zoo import SCHEDULES, name

from scoredistill.diffusion import CFG, EDMSchedule, Schedule
from scoredistill.teachers import GaussianMixture
from scoredistill.teachers.sampling import Churn, sample
from scoredistill.types import Condition


def gaussian(schedule: Schedule, std: float = 0.7) -> GaussianMixture:
    return GaussianMixture(torch.tensor([[0.5, -1.0]]), std, schedule=schedule)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
def test_the_flow_of_a_gaussian_ends_where_its_closed_form_says(schedule: Schedule) -> None:
    """x = mu + (y - mu) std / sqrt(std^2 + s_max^2), y the starting point."""
    teacher, rng = gaussian(schedule), torch.Generator().manual_seed(3)
    high = min(80.0, float((schedule.sigma(one := torch.ones(1)) / schedule.alpha(one))[0]))
    y = high * torch.randn(5, 2, generator=torch.Generator().manual_seed(3))
    mu = teacher.means[0]
    expected = mu + (y - mu) * 0.7 / (0.7**2 + high**2) ** 0.5
    x, coarse = (sample(teacher, 5, (2,), steps=n, rng=rng.manual_seed(3)) for n in (200, 100))
    # Of second order: the error falls to a quarter, a third of the difference; half leaves room for higher terms.
    assert (x - expected).abs().max() < (x - coarse).abs().max() / 2
    assert (x - expected).abs().max() < 5e-4


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2)])
def test_order_of_convergence(solver: str, order: int) -> None:
    teacher = gaussian(EDMSchedule())

    def error(steps: int) -> float:
        rng = torch.Generator().manual_seed(0)
        x = sample(teacher, 8, (2,), steps=steps, solver=solver, ends=(0.02, 20.0), rng=rng)  # type: ignore[arg-type]
        y = 20 * torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
        mu = teacher.means[0]
        # The flow down to s_min; the last Euler step to 0 is the same for every number of steps.
        exact = mu + (y - mu) * ((0.7**2 + 0.02**2) / (0.7**2 + 20**2)) ** 0.5
        exact = mu + (exact - mu) * 0.7**2 / (0.7**2 + 0.02**2)
        return float((x - exact).abs().max())

    # Levels have one step fewer between them. The next term is of the relative order 1/64: 1 / (64 log 2) of the rate.
    rate = log(error(64) / error(128)) / log(127 / 63)
    assert rate == pytest.approx(order, abs=1 / (64 * log(2)))


def test_churn_keeps_the_distribution_and_changes_the_path() -> None:
    teacher = gaussian(EDMSchedule())
    plain, churned = (
        sample(teacher, 4000, (2,), steps=120, churn=churn, rng=torch.Generator().manual_seed(0))
        for churn in (None, Churn(20.0, noise=1.0))
    )
    for x in (plain, churned):
        torch.testing.assert_close(x.mean(0), teacher.means[0], rtol=0, atol=3 * 0.7 / 4000**0.5)
        torch.testing.assert_close(x.std(0), torch.full((2,), 0.7), rtol=0, atol=3 * 0.7 / 8000**0.5)
    # So much noise leaves nothing of the start: independent samples differ by 2 std / sqrt(pi) on average.
    error = 0.7 * (2 - 4 / pi) ** 0.5 / 8000**0.5
    assert float((plain - churned).abs().mean()) == pytest.approx(2 * 0.7 / pi**0.5, rel=0, abs=3 * error)


def test_conditions_and_guidance_reach_the_teacher() -> None:
    teacher = GaussianMixture(torch.tensor([[-3.0], [3.0]]), 0.5, labels=torch.tensor([0, 1]))
    label = torch.tensor([0, 1, 1, 0])
    x = sample(teacher, 4, (1,), Condition(label=label), rng=torch.Generator().manual_seed(0))
    assert (x[:, 0] > 0).long().tolist() == label.tolist()
    guided = sample(teacher, 4, (1,), Condition(label=label), guidance=CFG(3.0), rng=torch.Generator().manual_seed(0))
    assert not torch.equal(guided, x)


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="needs steps >= 1"):
        sample(gaussian(EDMSchedule()), 1, (2,), steps=0)
    with pytest.raises(ValueError, match="solver heun or euler"):
        sample(gaussian(EDMSchedule()), 1, (2,), solver="rk4")  # type: ignore[arg-type]
