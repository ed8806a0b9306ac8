"""Particles split over processes: the result of one process, for any number of processes."""

from pathlib import Path

import pytest
import torch
from critics.lora_networks import text_teacher
from training.processes import Made, assert_same_checkpoint, train

from scoredistill.critics import LoRACritic, NetworkCritic, ParticleCritic
from scoredistill.diffusion import NoiseLevelTimesteps
from scoredistill.divergences import JensenShannon
from scoredistill.generators import DMTet, ImageParticles, NeRF
from scoredistill.generators.dmtet import Laplacian, NormalConsistency, SignChange
from scoredistill.generators.fields import DenseGrid, HashGrid, LearnedBackground, MLPHead
from scoredistill.generators.nerf import Occupancy, Opacity, TotalVariation, ZVariance
from scoredistill.losses import SDS, VSD, FDistill
from scoredistill.networks import MLPBackbone
from scoredistill.ratios import BatchMeanNormalizer, ClampRatio, ExactRatio, TimeBinNormalizer
from scoredistill.teachers import Gallery, GaussianMixture
from scoredistill.training import ConditionDataModule, Distillation, NetworkOptimizer, PromptAndCameras, UpdatePlan
from scoredistill.types import Batch, Condition

N = 6
STEPS = NoiseLevelTimesteps(5.0, 2.0)


def clipped() -> NetworkOptimizer:
    return NetworkOptimizer(lambda groups: torch.optim.Adam(groups, lr=0.01), clip=0.01, rates={"": 0.01})


def cameras(views: int = 2) -> PromptAndCameras:
    return PromptAndCameras("a blue donut", views=views)


def radiance_fields() -> Made:
    """Everything that particles could share by mistake: occupancy, regularizers' counts, backgrounds, an average."""
    nerf = NeRF(
        N, DenseGrid(8), occupancy=Occupancy(resolution=8, every=1), background=LearnedBackground(), resolution=8,
        samples=8, seed=3, regularizers=[ZVariance(0.1), Opacity(0.1), TotalVariation(0.1)],
    )  # fmt: skip
    settings = {"generator_optimizer": clipped(), "ema": 0.5, "seed": 1}
    return Distillation(nerf, Gallery(), VSD(ParticleCritic()), timesteps=STEPS, **settings), cameras()


def hashed_fields_in_parts() -> Made:
    """Micro-batches of cameras with statistics of the whole batch."""
    encoding = HashGrid(levels=2, log2_size=6, base=4, finest=8)
    nerf = NeRF(N, encoding, MLPHead(), occupancy=Occupancy(8), resolution=8, samples=8, seed=3)
    normalizers = [ClampRatio(), TimeBinNormalizer(2)]
    loss = FDistill(JensenShannon(), ParticleCritic(0.1), ExactRatio(), normalizers, BatchMeanNormalizer())
    plan = UpdatePlan(accumulate=2)
    return Distillation(nerf, Gallery(), loss, timesteps=STEPS, plan=plan, seed=1), cameras(4)


def meshes() -> Made:
    regularizers = [SignChange(0.01), Laplacian(0.1), NormalConsistency(0.1)]
    dmtet = DMTet(N, grid=8, encoding=DenseGrid(8), regularizers=regularizers, resolution=16, seed=3)
    return Distillation(dmtet, Gallery(), SDS(), timesteps=STEPS, ema=0.5, seed=1), cameras()


def textures() -> Made:
    """Untrained geometry is shared by generator and average."""
    dmtet = DMTet(N, grid=8, encoding=DenseGrid(8), train="texture", resolution=16, seed=3)
    return Distillation(dmtet, Gallery(), SDS(), timesteps=STEPS, ema=0.5, seed=1), cameras()


def mixture() -> GaussianMixture:
    return GaussianMixture(torch.tensor([[1.0, 0.0], [-1.0, 0.5]]), 0.2, labels=torch.arange(2))


def points() -> Made:
    """Particles with labels, and a critic that uses the particles of other processes."""
    particles = ImageParticles(torch.randn(N, 2, generator=torch.Generator().manual_seed(0)), labels=[0, 1, 1, 0, 0, 1])
    return Distillation(particles, mixture(), VSD(ParticleCritic(0.1)), seed=1), ConditionDataModule()


def trained_critic() -> Made:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = MLPBackbone((2,), hidden=16, layers=2, classes=2)
    particles = ImageParticles(torch.randn(N, 2, generator=torch.Generator().manual_seed(0)))
    settings = {"critic_optimizer": clipped(), "plan": UpdatePlan(noise="shared"), "seed": 1}
    return Distillation(particles, mixture(), VSD(NetworkCritic(network)), **settings), ConditionDataModule(
        labels=[0, 1] * 3
    )


class Texts(ConditionDataModule):
    """One embedded text for all samples."""

    def batch_at(self, tick: int) -> Batch:
        return Batch(Condition(embeddings=torch.ones(N, 5, 6)))


def adapters() -> Made:
    """A LoRA per particle over the teacher's weights, so that every process has gradients for some of them only."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        teacher, critic = text_teacher(), LoRACritic(particles=N)
        start = torch.randn(N, 2, 8, 8)
        return Distillation(ImageParticles(start), teacher, VSD(critic), seed=1), Texts()


CASES = [radiance_fields, hashed_fields_in_parts, meshes, textures, points, trained_critic]


ALL = [*CASES, pytest.param(adapters, marks=pytest.mark.slow)]


@pytest.mark.parametrize("make", ALL, ids=lambda case: case.__name__)
def test_two_processes_give_the_result_of_one(make, tmp_path: Path) -> None:
    one = train(make, tmp_path / "one", steps=3)
    two = train(make, tmp_path / "two", 2, "split_particles", steps=3)
    assert_same_checkpoint(two, one)
    before = make()[0].state_dict()
    name = next(n for n, p in make()[0].distiller.generator.named_parameters() if p.requires_grad)
    assert (one["state_dict"][f"distiller.generator.{name}"] - before[f"distiller.generator.{name}"]).abs().max() > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("make", CASES, ids=lambda case: case.__name__)
def test_a_checkpoint_resumes_with_another_number_of_processes(make, tmp_path: Path) -> None:
    whole = train(make, tmp_path / "whole", steps=4)
    train(make, tmp_path / "a", 2, "split_particles", steps=2)
    train(make, tmp_path / "b", 3, "split_particles", steps=3, resume=tmp_path / "a" / "last.ckpt")
    assert_same_checkpoint(train(make, tmp_path / "c", steps=4, resume=tmp_path / "b" / "last.ckpt"), whole)
