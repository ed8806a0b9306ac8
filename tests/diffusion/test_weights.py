"""Time weights."""

import pytest
import torch
from laws.zoo import SCHEDULES, name

from scoredistill.diffusion import (
    DivergenceWeight,
    Prediction,
    Schedule,
    SigmaSquaredWeight,
    TimeWeight,
    UniformWeight,
    X0Weight,
)

T = torch.linspace(0.05, 0.95, 10, dtype=torch.float64)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
def test_weights_are_their_formulas(schedule: Schedule) -> None:
    alpha, sigma = schedule.alpha(T), schedule.sigma(T)
    weights: dict[TimeWeight, torch.Tensor] = {
        SigmaSquaredWeight(): sigma**2,
        UniformWeight(): torch.ones(10),
        DivergenceWeight(): alpha / sigma,
        X0Weight(): sigma / alpha,
    }
    for weight, expected in weights.items():
        torch.testing.assert_close(weight(T, schedule), expected)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
def test_the_clean_weight_makes_g_the_difference_of_clean_predictions(schedule: Schedule) -> None:
    x_t = torch.randn(10, 3)
    target, baseline = (Prediction(x_t, T, schedule, epsilon=torch.randn(10, 3)) for _ in range(2))
    g = X0Weight()(T, schedule)[:, None] * (target.epsilon - baseline.epsilon)
    torch.testing.assert_close(g, baseline.x0 - target.x0, rtol=1e-9, atol=1e-9)
