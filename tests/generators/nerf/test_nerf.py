"""The NeRF as a generator: batching, randomness, skipping, chunks, checkpoints, geometry."""

from copy import deepcopy
from math import log, pi

import pytest
import torch

from scoredistill.annealing import Knot, Piecewise
from scoredistill.generators.fields import DenseGrid, HashGrid, LearnedBackground, MLPHead, SolidBackground
from scoredistill.generators.nerf import (
    DensityBlob,
    Entropy,
    HollowSphere,
    NeRF,
    Occupancy,
    Orientation,
    TotalVariation,
)
from scoredistill.generators.nerf.ray_sampling import Rays, RaySampler
from scoredistill.rendering.camera import Camera
from scoredistill.types import Batch, Condition


def orbit(views: int = 2) -> Camera:
    spread = torch.linspace(0, 1, views)
    return Camera.orbit(30 + 200 * spread, 40 * spread - 10, torch.full((views,), 2.5), torch.full((views,), 40.0))


def batch(views: int = 2, **condition) -> Batch:
    return Batch(Condition(prompt="a ball", camera=orbit(views), **condition))


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small(particles: int = 2, **settings) -> NeRF:
    """A NeRF of 16^3 with a hard, colored and uneven ball."""
    settings = {
        "encoding": DenseGrid(16, std=0.3),
        "initial": DensityBlob(6.0, 0.45),
        "occupancy": Occupancy(24),
        "resolution": 12,
        "samples": 48,
        **settings,
    }
    return NeRF(particles, **settings).double()


KINDS = {
    "dense": {},
    "hash": {"encoding": HashGrid(4, 2, 10, 4, 32), "head": MLPHead(8)},
    "softplus": {"activation": "softplus", "initial": DensityBlob(10.0, 0.5)},
    "hollow": {"initial": HollowSphere()},
    "learned background": {"background": LearnedBackground(2, 4)},
}
kinds = pytest.mark.parametrize("kind", KINDS)


def gradients(nerf: NeRF, x: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad((x * torch.linspace(-1, 1, x.numel()).view_as(x)).sum(), list(nerf.parameters())))


@kinds
def test_rows_are_particle_major_with_their_conditions(kind):
    nerf = small(**KINDS[kind])
    sample = nerf(batch(3), rng())
    assert sample.x.shape == (6, 3, 12, 12)
    assert sample.x.abs().max() <= 1 + 1e-9
    assert sample.particle.tolist() == [0, 0, 0, 1, 1, 1]
    assert sample.view_index.tolist() == [0, 1, 2, 0, 1, 2]
    assert sample.condition.prompt == "a ball"
    assert torch.equal(sample.condition.camera.pose, orbit(3).pose.repeat(2, 1, 1))
    background = sample.condition.background
    assert (background is None) == (kind == "learned background")
    assert background is None or torch.equal(background[:3], background[3:])
    assert sample.regularizer is None
    assert all(g.isfinite().all() and g.any() for g in gradients(nerf, sample.x))


def test_prompts_of_views_are_repeated_and_a_given_background_is_used():
    condition = Condition(
        prompt=("front", "back"), camera=orbit(2), background=torch.tensor([[0.5, 0, 0], [0, 0.5, 0]])
    )
    sample = small(initial=DensityBlob(60.0, 0.45))(Batch(condition), rng())  # as hard as to let corners be empty
    assert sample.condition.prompt == ("front", "back", "front", "back")
    torch.testing.assert_close(sample.condition.background, condition.background.repeat(2, 1))
    torch.testing.assert_close(sample.x[:, :, 0, 0], condition.background.repeat(2, 1))


def test_a_camera_is_needed():
    with pytest.raises(ValueError, match="camera"):
        small()(Batch(Condition(prompt="a ball")))


@kinds
def test_particles_in_a_batch_equal_particles_alone(kind):
    together = small(3, **KINDS[kind])
    together.on_progress(0, 0.0, rng(1))
    sample = together(batch(), rng(2))
    for particle in range(3):
        alone = small(1, **KINDS[kind])
        state = together.state_dict()
        for name, value in alone.state_dict().items():
            if value.ndim:  # progress has no particle axis
                value.copy_(state[name][particle : particle + 1])
        x = alone(batch(), rng(2)).x
        torch.testing.assert_close(x, sample.x[2 * particle : 2 * particle + 2], atol=1e-9, rtol=1e-9)


def test_particles_start_different_unless_asked():
    x = small(2)(batch(), rng()).x
    assert not torch.allclose(x[:2], x[2:])
    x = small(2, identical=True)(batch(), rng()).x
    torch.testing.assert_close(x[:2], x[2:])
    assert torch.equal(small(seed=1)(batch(), rng()).x, small(seed=1)(batch(), rng()).x)
    assert not torch.equal(small(seed=1)(batch(), rng()).x, small(seed=2)(batch(), rng()).x)


def test_a_configured_part_is_not_shared():
    encoding = DenseGrid(8)
    a, b = NeRF(1, encoding=encoding), NeRF(1, encoding=encoding)
    assert not list(encoding.parameters())
    assert a.field.encoding.grid is not b.field.encoding.grid


def test_the_seed_of_the_generator_is_all_the_randomness():
    nerf = small()
    assert torch.equal(nerf(batch(), rng(5)).x, nerf(batch(), rng(5)).x)
    assert not torch.equal(nerf(batch(), rng(5)).x, nerf(batch(), rng(6)).x)
    torch.manual_seed(7)
    first = nerf(batch()).x
    assert not torch.equal(first, nerf(batch()).x)


@kinds
def test_nothing_is_skipped_before_the_first_update(kind):
    skipping, full = small(**KINDS[kind]), small(**KINDS[kind], skip=False)
    torch.testing.assert_close(skipping.render(orbit(), 16, 16).rgb, full.render(orbit(), 16, 16).rgb)


@kinds
@pytest.mark.parametrize("threshold", [0.1, 0.01, 0.001])
def test_skipping_stays_within_its_tolerance(kind, threshold):
    occupancy = Occupancy(24, threshold=threshold, transmittance=threshold)
    skipping, full = small(**{**KINDS[kind], "occupancy": occupancy}), small(**KINDS[kind], skip=False)
    skipping.on_progress(0, 0.0, rng())
    calls = count_points(skipping)
    a, b = skipping.render(orbit(), 16, 16), full.render(orbit(), 16, 16)
    assert sum(calls) < 2 * 2 * 16 * 16 * 48
    # As Occupancy states: the threshold times the longest path through the box, and what is hidden behind it.
    assert (a.opacity - b.opacity).abs().max() < threshold * 12**0.5 + threshold
    assert (a.rgb - b.rgb).abs().max() < 2 * (threshold * 12**0.5 + threshold)
    assert (a.rgb - b.rgb).square().mean().sqrt() < threshold


def test_skipping_saves_evaluations():
    counts = {}
    for skip in (True, False):
        nerf = small(skip=skip, initial=DensityBlob(8.0, 0.4))
        nerf.on_progress(0, 0.0, rng())
        calls = count_points(nerf)
        nerf(batch(), rng())
        counts[skip] = sum(calls)
    assert counts[True] < counts[False] / 4


def count_points(nerf: NeRF) -> list[int]:
    calls: list[int] = []
    nerf.field.encoding.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    return calls


@kinds
def test_rays_sampled_block_by_block_are_the_same(kind, monkeypatch):
    nerf = small(3, **KINDS[kind])
    nerf.on_progress(0, 0.0, rng(1))
    whole = nerf(batch(), rng(2)).x
    monkeypatch.setattr("scoredistill.generators.nerf.ray_sampling._CANDIDATES", 1000)
    torch.testing.assert_close(nerf(batch(), rng(2)).x, whole)


def test_rays_along_the_axes_and_past_the_box():
    origins = torch.tensor([[0.0, 0, 3], [0.5, 0, 3], [2, 0, 3], [0, 0, 0], [1, 0, 3]])
    rays = Rays(origins, torch.tensor([[0.0, 0, -1]]).expand(5, 3))
    near, far = rays.within(-torch.ones(3), torch.ones(3))
    assert (far > near).tolist()[:4] == [True, True, False, True]
    torch.testing.assert_close(torch.stack([near, far], 1)[[0, 1, 3]], torch.tensor([[2.0, 4], [2, 4], [0, 1]]))
    (block,) = RaySampler(rays, 2, 4, None).blocks(1000)
    samples = block.samples()
    assert samples.points.isfinite().all()
    torch.testing.assert_close(samples.distance[samples.ray == 0][:4], torch.tensor([2.25, 2.75, 3.25, 3.75]))


def test_all_space_empty():
    nerf = small(initial=DensityBlob(1.0, 0.5), encoding=DenseGrid(8))
    with torch.no_grad():
        nerf.field.encoding.grid[..., 0] -= 50
    nerf.on_progress(0, 0.0, rng())
    sample = nerf(batch(), rng())
    torch.testing.assert_close(sample.x, sample.condition.background[:, :, None, None].expand_as(sample.x))
    sample.x.sum().backward()
    assert nerf.render(orbit(), 4, 4).opacity.max() == 0


def test_resuming_continues_bit_for_bit():
    settings = {"samples": Piecewise([Knot(0, 32), Knot(1, 64)]), "regularizers": (TotalVariation(1.0),)}

    def train(nerf: NeRF, optimizer: torch.optim.Optimizer, steps: range) -> torch.Tensor:
        for step in steps:
            nerf.on_progress(step, step / 24, rng(step))
            sample = nerf(batch(), rng(100 + step))
            optimizer.zero_grad()
            (sample.x.square().sum() + sample.regularizer).backward()
            optimizer.step()
        return sample.x

    nerf = small(**settings)
    optimizer = torch.optim.Adam(nerf.parameters(), lr=0.1)
    train(nerf, optimizer, range(13))
    resumed = small(seed=9, **settings)
    resumed.load_state_dict(deepcopy(nerf.state_dict()))
    resumed.progress = nerf.progress
    again = torch.optim.Adam(resumed.parameters(), lr=0.1)
    again.load_state_dict(deepcopy(optimizer.state_dict()))
    assert torch.equal(resumed.render(orbit(), 8, 8).rgb, nerf.render(orbit(), 8, 8).rgb)
    assert torch.equal(train(resumed, again, range(13, 16)), train(nerf, optimizer, range(13, 16)))


def test_resolution_and_samples_follow_progress():
    nerf = small(
        resolution=Piecewise([Knot(0, 8, "hold"), Knot(0.5, 16)]), samples=Piecewise([Knot(0, 16), Knot(1, 48)])
    )
    for progress, resolution, samples in ((0.0, 8, 16), (0.25, 8, 24), (0.5, 16, 32), (1.0, 16, 48)):
        nerf.on_progress(3, progress, rng())
        assert nerf(batch(), rng()).x.shape[-1] == resolution
        assert nerf.samples == samples


def test_regularizer_is_the_weighted_sum():
    nerf = small(regularizers=(Entropy(2.0), TotalVariation(Piecewise([Knot(0, 0.0), Knot(1, 4.0)]))))
    single = small(regularizers=(Entropy(1.0),))
    single.load_state_dict(nerf.state_dict())
    entropy = single(batch(), rng()).regularizer
    torch.testing.assert_close(nerf(batch(), rng()).regularizer, 2 * entropy)
    nerf.on_progress(1, 0.5, rng())
    variation = sum(nerf.field.encoding.grid.diff(dim=d).square().mean() for d in (1, 2, 3))
    torch.testing.assert_close(nerf(batch(), rng()).regularizer, 2 * entropy + 2 * variation)


def dense_sphere(radius: float = 0.5, **settings) -> NeRF:
    """Density 200 e^(200 (radius - |x|)), up to e^10: the optical depth toward the center is 1 at the radius."""
    zero = radius + log(200) / 200
    blob = DensityBlob(200 * zero, zero, size_variation=0, shape_variation=0)
    return NeRF(1, encoding=DenseGrid(4), initial=blob, samples=256, **settings).double()


def test_depth_and_normals_of_a_sphere():
    nerf = dense_sphere(background=SolidBackground((0.0, 0.0, 0.0)))
    nerf.on_progress(0, 0.0)
    camera = orbit(2)
    render = nerf.render(camera, 24, 24)
    origins, directions = camera.rays(24, 24)
    middle = -(origins * directions).sum(-1)
    half = 0.5**2 - (origins + middle[..., None] * directions).square().sum(-1)
    inside, outside = half > 0.06, half < -0.03
    depth = middle - half.clamp(min=0).sqrt()
    surface = (origins + depth[..., None] * directions) / 0.5
    assert render.opacity[0][inside].min() > 1 - 1e-9
    # A ray that passes the center at a distance r meets the density there over a length of sqrt(2 pi r / 200), but for
    # terms of the relative order 1 / (200 r).
    passes = (0.5**2 - half[outside]).sqrt()
    depths = 200 * (200 * (0.5 - passes)).exp() * (2 * pi * passes / 200).sqrt()
    assert (render.opacity[0][outside] <= (1 + 1 / 100) * -torch.expm1(-depths)).all()
    # Along a ray of inclination c the optical depth grows as e^(200 c s), to 1 / c at the surface: light is stopped by
    # Euler's constant and log(1 / c) before it, in lengths of 1 / (200 c). What a ray's part stops counts at its
    # middle, half a part away at most.
    c = half[inside].sqrt() / 0.5
    early = (0.5772 - c.log()) / (200 * c)
    assert (render.depth[0][inside] - depth[inside] + early).abs().max() < 12**0.5 / 256 / 2
    cosine = (render.normals[0].permute(0, 2, 3, 1) * surface).sum(-1)
    # Normals are those of where the light is stopped, a way aside over the radius.
    assert (cosine[inside] > (early * (1 - c**2).sqrt() / 0.5).cos()).all()
    assert render.rgb.shape == (1, 2, 3, 24, 24)
    white = nerf.render(camera, 24, 24, background=torch.ones(3))
    torch.testing.assert_close(white.rgb - render.rgb, (1 - render.opacity)[:, :, None].expand(-1, -1, 3, -1, -1))


def test_mesh_of_a_ball_is_closed_and_of_the_right_size():
    nerf = dense_sphere()
    mesh, radius = nerf.mesh(0, resolution=48, threshold=20.0), 0.5 + log(10) / 200
    assert mesh.watertight
    assert mesh.colors is not None
    corners = mesh.vertices[mesh.faces].double()
    volume = (corners[:, 0] * torch.linalg.cross(corners[:, 1], corners[:, 2])).sum() / 6
    # Vertices lie within by h^2 / (6 r) on average, flat faces between them by as much again: (h / r)^2 of the volume.
    missing = 1 - float(volume) / (4 / 3 * pi * radius**3)
    assert 0 < missing < (2 / 47 / radius) ** 2
    assert small().mesh(1, resolution=24).watertight
    points = torch.tensor([[0.0, 0.0, 0.0], [0.9, 0.0, 0.0]])
    inside, outside = nerf.density(points, 0)
    assert inside > 1000
    assert outside < 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_follows_the_parameters(dtype):
    nerf = small(regularizers=(Orientation(), Entropy())).to(dtype)
    nerf.on_progress(0, 0.0, rng())
    sample = nerf(batch(), rng())
    assert sample.x.dtype == sample.regularizer.dtype == sample.condition.background.dtype == dtype
    assert nerf.render(orbit(), 4, 4).normals.dtype == dtype


def test_scenes_of_latents():
    settings = {"encoding": DenseGrid(8, channels=5, std=3.0), "background": LearnedBackground(), "latents": 4}
    nerf = NeRF(2, resolution=6, samples=8, **settings)
    sample = nerf(batch(3), rng())
    assert sample.x.shape == (6, 4, 6, 6)
    assert sample.condition.background is None
    assert sample.x.abs().max() > 1  # latents are not squashed
    sample.x.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in nerf.parameters())
    with pytest.raises(ValueError, match="use LearnedBackground"):
        NeRF(encoding=DenseGrid(8, channels=5), latents=4)
    with pytest.raises(ValueError, match="latents must be at least 4"):
        NeRF(latents=3)
