"""Predictions of every type; law 2 checks their conversions."""

import pytest
import torch

from scoredistill.diffusion import CosineSchedule, Prediction, noise_like

SCHEDULE = CosineSchedule()
X_T, T = torch.zeros(2, 3), torch.tensor([0.2, 0.7], dtype=torch.float64)


@pytest.mark.parametrize(
    ("given", "message"),
    [({}, "got none"), ({"epsilon": X_T, "x0": X_T}, "got epsilon, x0"), ({"v": X_T[:1]}, r"v has shape \(1, 3\)")],
    ids=["none", "two", "shape"],
)
def test_exactly_one_of_the_right_shape(given: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Prediction(X_T, T, SCHEDULE, **given)


def test_unknown_type_is_named() -> None:
    with pytest.raises(ValueError, match="unknown prediction type 'sample'; choose from epsilon, x0"):
        Prediction.of("sample", X_T, X_T, T, SCHEDULE)  # type: ignore[arg-type]


def test_detach_keeps_the_values_and_drops_the_graph() -> None:
    value = torch.randn(2, 3, requires_grad=True)
    prediction = Prediction(torch.randn(2, 3), T, SCHEDULE, v=value)
    detached = prediction.detach()
    assert prediction.epsilon.requires_grad
    assert not detached.epsilon.requires_grad
    assert detached.kind == "v"
    assert torch.equal(detached.epsilon, prediction.epsilon)


@pytest.mark.parametrize("kind", ["epsilon", "x0", "v", "flow", "score"])
def test_truth_gives_the_sample_and_its_noise(kind: str) -> None:
    x, epsilon = torch.randn(2, 3), torch.randn(2, 3)
    truth = Prediction.truth(kind, x, epsilon, T, SCHEDULE)  # type: ignore[arg-type]
    torch.testing.assert_close(truth.x_t, SCHEDULE.alpha(T)[:, None] * x + SCHEDULE.sigma(T)[:, None] * epsilon)
    torch.testing.assert_close(truth.x0, x)
    torch.testing.assert_close(truth.epsilon, epsilon)
    assert repr(truth) == f"Prediction({kind}, x_t=(2, 3), CosineSchedule)"


@pytest.mark.parametrize(("kind", "t"), [("v", 0.0), ("v", 1.0), ("flow", 0.0), ("flow", 1.0)])
def test_v_and_flow_stay_finite_at_both_ends(kind: str, t: float) -> None:
    x, epsilon = torch.randn(2, 3), torch.randn(2, 3)
    truth = Prediction.truth(kind, x, epsilon, torch.full((2,), t), SCHEDULE)  # type: ignore[arg-type]
    torch.testing.assert_close(truth.x0, x)
    torch.testing.assert_close(truth.epsilon, epsilon)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_is_a_function_of_its_generator(dtype: torch.dtype) -> None:
    x = torch.empty(4, 2, dtype=dtype)
    first, second = (noise_like(x, torch.Generator().manual_seed(3)) for _ in range(2))
    assert first.dtype == dtype
    assert torch.equal(first, second)
    assert not torch.equal(first, noise_like(x, torch.Generator().manual_seed(4)))
