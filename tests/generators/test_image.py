"""Particles that are the samples themselves."""

import pytest
import torch

from scoredistill.generators import GaussianInit, Generator, ImageParticles
from scoredistill.types import Batch, Condition, Sample


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_every_particle_is_a_sample_of_its_own_values() -> None:
    init = torch.randn(5, 1, 2, 2)
    particles = ImageParticles(init)
    init.zero_()
    sample = particles(Batch())
    assert sample.x is particles.values
    assert particles.values.any()
    assert sample.particle.tolist() == [0, 1, 2, 3, 4]
    assert (sample.view_index, sample.population, sample.condition) == (None, None, None)
    assert particles.particles == 5


def test_initial_particles_are_a_function_of_their_seed() -> None:
    first, again, other = (GaussianInit(20_000, (2,), 1.5, 0.5, seed).draw() for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert float(first.mean()) == pytest.approx(1.5, abs=3 * 0.5 / 40_000**0.5)
    assert float(first.var()) == pytest.approx(0.25, abs=3 * 0.25 * (2 / 40_000) ** 0.5)
    assert torch.equal(ImageParticles(GaussianInit(4, (3, 2), std=0)).values, torch.zeros(4, 3, 2))


def test_particles_of_a_step_are_drawn_without_replacement() -> None:
    particles = ImageParticles(torch.randn(7, 2), per_step=3, labels=range(7))
    sample = particles(Batch(), rng())
    chosen = sample.particle
    assert len(chosen.unique()) == 3
    assert torch.equal(sample.x, particles.values[chosen])
    assert torch.equal(sample.condition.label, chosen)
    assert torch.equal(sample.view_index, chosen)
    assert torch.equal(sample.population, particles.values)
    assert not sample.population.requires_grad
    assert torch.equal(sample.population_view_index, torch.arange(7))
    assert torch.equal(particles(Batch(), rng()).particle, chosen)
    drawn = torch.cat([particles(Batch(), rng(seed)).particle for seed in range(700)])
    counts = torch.bincount(drawn, minlength=7).double()
    assert bool(((counts - 300).abs() < 3 * (700 * 3 / 7 * 4 / 7) ** 0.5).all())
    sample.x.sum().backward()
    assert torch.equal(particles.values.grad.any(1).nonzero()[:, 0], chosen.sort().values)


def test_labels_are_conditions_and_views() -> None:
    particles = ImageParticles(torch.randn(4, 2), labels=[0, 0, 1, 1])
    sample = particles(Batch(Condition("a digit")))
    assert (sample.condition.prompt, sample.condition.label.tolist()) == ("a digit", [0, 0, 1, 1])
    assert sample.view_index.tolist() == [0, 0, 1, 1]
    assert particles.population().view_index.tolist() == [0, 0, 1, 1]


def test_a_condition_of_one_row_is_shared_by_all() -> None:
    particles = ImageParticles(torch.randn(3, 2))
    shared = particles(Batch(Condition(label=torch.tensor([8])))).condition
    assert shared.label.tolist() == [8, 8, 8]
    own = Condition(label=torch.tensor([1, 2, 3]))
    assert particles(Batch(own)).condition is own
    with pytest.raises(ValueError, match="ImageParticles holds 3 particles; the condition has 2 rows"):
        particles(Batch(Condition(label=torch.tensor([1, 2]))))


def test_the_population_is_every_particle_without_gradient() -> None:
    particles = ImageParticles(torch.randn(6, 2), per_step=2)
    assert torch.equal(particles.population().x, particles.values)
    assert not particles.population().x.requires_grad


def test_impossible_numbers_of_particles_are_refused() -> None:
    with pytest.raises(ValueError, match="between 1 and the 3 particles, got 4"):
        ImageParticles(torch.zeros(3, 2), per_step=4)
    with pytest.raises(ValueError, match="labels must be 3 integers, one per particle; got 2"):
        ImageParticles(torch.zeros(3, 2), labels=[0, 1])


def test_a_generator_from_noise_has_no_population() -> None:
    class Noise(Generator):
        def forward(self, batch: Batch, rng: torch.Generator | None = None) -> Sample:
            return Sample(torch.randn(batch.size or 1, 2, generator=rng))

    generator = Noise()
    assert (generator.particles, generator.population()) == (None, None)
    generator.on_progress(0, 0.0)
    assert generator(Batch(size=3), rng()).x.shape == (3, 2)
