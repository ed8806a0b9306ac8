"""Heads, initial densities, normals and backgrounds."""

import pytest
import torch
from torch.autograd import gradcheck

from scoredistill.generators.fields import (
    DenseGrid,
    DirectHead,
    LearnedBackground,
    MLPHead,
    RandomBackground,
    SolidBackground,
)
from scoredistill.generators.nerf import DensityBlob, HollowSphere
from scoredistill.generators.nerf.field import Field

RNG = torch.Generator()


def field(activation="softplus", particles=2, head=None, initial=None) -> Field:
    encoding, head = DenseGrid(4, std=1.0), head or DirectHead()
    initial = initial or DensityBlob(1.0, 0.5)
    for part in (encoding, initial):
        part.allocate(particles, RNG.manual_seed(0))
    head.allocate(particles, 4, RNG)
    return Field(encoding, head, initial, activation).double()


def test_head_of_padded_particles_equals_one_particle_at_a_time():
    head = MLPHead(width=5, depth=2)
    head.allocate(3, 4, RNG)
    head.double()
    features, particle = torch.randn(9, 4), torch.tensor([0, 0, 2, 2, 2, 2, 2, 2, 2])
    together = head(features, particle)
    for p in (0, 2):
        x = features[particle == p]
        for layer in head.net:
            x = layer(x) if isinstance(layer, torch.nn.SiLU) else x @ layer.weight[p] + layer.bias[p]
        torch.testing.assert_close(together[particle == p], x)
    assert head(features[:0], particle[:0]).shape == (0, 4)


def test_direct_head_requires_four_features():
    with pytest.raises(ValueError, match="4 features"):
        DirectHead().allocate(1, 5, RNG)


@pytest.mark.parametrize("activation", ["softplus", "exp"])
@pytest.mark.parametrize("head", [None, MLPHead(4)])
def test_density_and_color_are_in_range_and_normals_are_the_gradient(activation, head):
    f = field(activation, head=head)
    points, particle = 1.6 * torch.rand(6, 3) - 0.8, torch.tensor([0, 0, 0, 1, 1, 1])
    density, color, normals = f.with_normals(points, particle)
    assert (density >= 0).all()
    assert ((color > -1) & (color < 1)).all()
    step = 1e-6 * torch.eye(3)
    slope = torch.stack([f(points + e, particle)[0] - f(points - e, particle)[0] for e in step], dim=1)
    torch.testing.assert_close(normals, -torch.nn.functional.normalize(slope, dim=1), atol=1e-4, rtol=1e-4)


def test_normals_carry_gradients_to_the_grid():
    f = field()
    points, particle = 1.6 * torch.rand(4, 3) - 0.8, torch.tensor([0, 0, 1, 1])
    grid = f.encoding.grid.detach().requires_grad_()

    def normals(grid):
        call = {"field.encoding.grid": grid}
        return torch.func.functional_call(Normals(f), call, (points, particle))

    assert gradcheck(normals, (grid,), atol=1e-4, fast_mode=True)
    with torch.no_grad():
        assert not f.with_normals(points, particle)[2].requires_grad


class Normals(torch.nn.Module):
    def __init__(self, field: Field) -> None:
        super().__init__()
        self.field = field

    def forward(self, points, particle):
        return self.field.with_normals(points, particle)[2]


@pytest.mark.parametrize(
    ("initial", "center", "rim"),
    [
        (DensityBlob(10, 0.5, size_variation=0, shape_variation=0), 10.0, -10.0),
        (HollowSphere(10, 0.5, shape_variation=0), -10.0, 10.0),
    ],
)
def test_initial_density(initial, center, rim):
    initial.allocate(2, RNG.manual_seed(1))
    points = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 0.5, 0]])
    bias = initial(points, torch.tensor([0, 0, 1]))
    torch.testing.assert_close(bias[:, 0], torch.tensor([center, rim, 0.0]), atol=1e-4, rtol=0)


def test_particles_start_at_different_sizes_colors_and_shapes():
    blob = DensityBlob()
    blob.allocate(3, RNG.manual_seed(1))
    points = torch.rand(3, 20, 3)[:1].expand(3, -1, -1).reshape(-1, 3)
    bias = blob(points, torch.arange(3).repeat_interleave(20)).view(3, 20, 4)
    assert len(blob.radii.unique()) == 3
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert not torch.allclose(bias[a, :, 0] - bias[a, 0, 0], bias[b, :, 0] - bias[b, 0, 0])
        assert not torch.allclose(bias[a, :, 1:], bias[b, :, 1:])


def test_solid_and_random_backgrounds():
    directions = torch.nn.functional.normalize(torch.randn(5, 7, 3), dim=-1)
    solid = SolidBackground((0.1, 0.2, 0.3))(directions, 2)
    assert solid.shape == (2, 5, 1, 3)
    torch.testing.assert_close(solid[1, 4, 0], torch.tensor([0.1, 0.2, 0.3]), atol=1e-7, rtol=1e-6)
    always, never = RandomBackground(1.0), RandomBackground(0.0, (0.0, 0.0, 0.0))
    numbers = torch.rand(5, 4)
    drawn = always(directions, 2, numbers)
    assert torch.equal(drawn[0], drawn[1])
    torch.testing.assert_close(drawn[0, :, 0], 2 * numbers[:, 1:] - 1)
    assert torch.equal(always(directions, 2, None), torch.ones(2, 5, 1, 3))
    assert not never(directions, 2, numbers).any()
    half = RandomBackground(0.5, (0.0, 0.0, 0.0))(directions.new_ones(1000, 1, 3), 1, torch.rand(1000, 4))
    assert 0.4 < (half != 0).any(-1).double().mean() < 0.6


def test_learned_background_with_random_colors():
    background = LearnedBackground(width=4, random=0.5)
    background.allocate(2, RNG.manual_seed(0))
    background.double()
    directions = torch.nn.functional.normalize(torch.randn(2, 5, 3), dim=-1)
    drawn = torch.tensor([[0.4, 0.0, 0.5, 1.0], [0.6, 0.0, 0.5, 1.0]])
    colors, own = background(directions, 2, drawn), background(directions, 2, None)
    assert torch.equal(colors[:, 0], torch.tensor([-1.0, 0.0, 1.0]).expand(2, 5, 3))
    assert torch.equal(colors[:, 1], own[:, 1])
    with pytest.raises(ValueError, match="random must lie in"):
        LearnedBackground(random=1.5)


def test_backgrounds_of_latents_are_learned_and_unbounded():
    background = LearnedBackground(width=4)
    background.allocate(1, RNG.manual_seed(0), 4)
    torch.nn.init.constant_(background.net[-1].bias, 9.0)
    directions = torch.nn.functional.normalize(torch.randn(2, 5, 3), dim=-1).float()
    assert background.float()(directions, 1).shape == (1, 2, 5, 4)
    assert background(directions, 1).min() > 5
    for other, message in ((RandomBackground(), "use LearnedBackground"), (LearnedBackground(random=0.5), "random: 0")):
        with pytest.raises(ValueError, match=message):
            other.allocate(1, RNG, 4)


def test_learned_background_is_a_function_of_direction_and_particle():
    background = LearnedBackground(octaves=2, width=4)
    background.allocate(2, RNG.manual_seed(0))
    background.double()
    directions = torch.nn.functional.normalize(torch.randn(3, 5, 3), dim=-1)
    colors = background(directions, 2, None)
    assert colors.shape == (2, 3, 5, 3)
    assert colors.abs().max() <= 1
    assert not torch.allclose(colors[0], colors[1])
    torch.testing.assert_close(background(directions.flip(1), 2, None), colors.flip(2))


def test_bad_backgrounds_are_refused():
    with pytest.raises(ValueError, match=r"color must lie in \[-1, 1\], got 2"):
        SolidBackground((2.0, 0.0, 0.0))
    with pytest.raises(ValueError, match="three values"):
        SolidBackground((1.0, 0.0))
    with pytest.raises(ValueError, match="probability"):
        RandomBackground(1.5)
