"""Volume rendering against closed forms."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from scoredistill.rendering.volume import accumulate, optical_depth_before, ray_starts, render_weights

RAY = torch.tensor([0, 0, 0, 2, 2, 3])


def test_homogeneous_medium_absorbs_exponentially():
    density, length, samples = 1.7, 2.3, 50
    ray = torch.zeros(samples, dtype=torch.long)
    weights, transmittance = render_weights(
        torch.full((samples,), density), torch.full((samples,), length / samples), ray
    )
    expected = 1 - torch.tensor(-density * length).exp()
    torch.testing.assert_close(accumulate(weights, ray, 1), expected[None])
    torch.testing.assert_close(weights[-1], transmittance[-1] - (1 - expected))


def test_weights_depend_on_their_own_ray_only():
    density, step = torch.rand(6) * 5, torch.rand(6)
    weights, transmittance = render_weights(density, step, RAY)
    for ray in RAY.unique():
        tau = (density * step)[ray == RAY]
        before = torch.cat([torch.zeros(1), tau.cumsum(0)[:-1]])
        torch.testing.assert_close(transmittance[ray == RAY], (-before).exp())
        torch.testing.assert_close(weights[ray == RAY], (-before).exp() * (1 - (-tau).exp()))


def test_rays_without_samples_are_empty():
    sums = accumulate(torch.ones(6), RAY, 5, torch.arange(12.0).view(6, 2))
    torch.testing.assert_close(sums, torch.tensor([[6.0, 9.0], [0, 0], [14, 16], [10, 11], [0, 0]]))
    nothing = torch.zeros(0, requires_grad=True)
    weights, _ = render_weights(nothing, nothing, torch.zeros(0, dtype=torch.long))
    assert accumulate(weights, torch.zeros(0, dtype=torch.long), 3).tolist() == [0, 0, 0]


def test_starts():
    assert ray_starts(RAY).tolist() == [0, 0, 0, 3, 3, 5]


def test_gradients():
    density, step = torch.rand(6, requires_grad=True), torch.rand(6, requires_grad=True)
    values = torch.rand(6, 3, requires_grad=True)

    def picture(density, step, values):
        return accumulate(render_weights(density, step, RAY)[0], RAY, 4, values)

    assert gradcheck(picture, (density, step, values))
    assert gradgradcheck(picture, (density, step, values))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_precision_does_not_suffer_from_the_other_rays(dtype):
    tau = torch.full((200_000,), 50.0, dtype=dtype)
    ray = torch.arange(200_000) // 4
    tau[-4:] = torch.tensor([1e-3, 2e-3, 3e-3, 4e-3], dtype=dtype)
    before = optical_depth_before(tau, ray)
    assert before.dtype == dtype
    torch.testing.assert_close(before[-4:], torch.tensor([0, 1e-3, 3e-3, 6e-3], dtype=dtype), rtol=1e-6, atol=1e-7)
