"""Pairs of noise and the teacher's sample: made once, read again, and learned by a student."""

from pathlib import Path

import pytest
import torch
from laws.zoo import mlp_critic
from training.test_module import fit

from scoredistill.data import TeacherSamples
from scoredistill.diffusion import CFG, FlowSchedule
from scoredistill.generators import OneStepUNet
from scoredistill.losses import DMD, Regression
from scoredistill.networks import MLPBackbone
from scoredistill.teachers import GaussianMixture, sample
from scoredistill.training import Distillation, TeacherPairs
from scoredistill.types import Condition


def teacher() -> GaussianMixture:
    means = torch.tensor([[2.0, 0.0], [-2.0, 0.0]])
    return GaussianMixture(means, 0.3, labels=[0, 1], schedule=FlowSchedule())  # type: ignore[arg-type]


def student(loss: Regression | DMD) -> Distillation:
    torch.manual_seed(0)
    network = MLPBackbone((2,), hidden=32, layers=2, classes=2)
    generator = OneStepUNet((2,), network, "v", times=[0.99])
    return Distillation(generator, teacher(), loss, CFG(2.0))


def pairs(file: str | None = None, **settings: int) -> TeacherPairs:
    return TeacherPairs(TeacherSamples(teacher(), 64), 50, 6, file, batch_size=16, reference_size=64, **settings)


def test_a_batch_holds_the_teachers_guided_samples_of_its_own_noise() -> None:
    data = pairs()
    with pytest.raises(ValueError, match="TeacherPairs has no pairs yet"):
        data.batch_at(0)
    module = student(Regression())
    fit(module, 1, data=data)
    batch = data.batch_at(3)
    assert batch.z is not None
    assert batch.condition is not None
    condition = Condition(label=batch.condition.label)
    expected = sample(teacher(), 16, (2,), condition, steps=6, guidance=CFG(2.0), z=batch.z)
    torch.testing.assert_close(batch.target, expected)
    assert batch.data is not None
    again = data.batch_at(3)
    assert torch.equal(again.z, batch.z)  # type: ignore[arg-type]
    assert all(each.z is None for each in data.evaluation_batches())


def test_pairs_are_kept_in_a_file(tmp_path: Path) -> None:
    file = str(tmp_path / "pairs.safetensors")
    first, second = pairs(file), pairs(file, seed=5)
    fit(student(Regression()), 1, data=first)
    fit(student(Regression()), 1, data=second)
    for name, value in first._made.items():
        assert torch.equal(second._made[name], value)
    other = TeacherPairs(TeacherSamples(GaussianMixture(torch.zeros(1, 3), 1.0), 8), 8, 2, file, 4)
    with pytest.raises(ValueError, match="remove it"):
        fit(student(Regression()), 1, data=other)


@pytest.mark.parametrize(
    "make", [Regression, lambda: DMD(mlp_critic(), regression_weight=20.0)], ids=["Regression", "DMD"]
)
def test_a_student_learns_the_pairs(make) -> None:  # type: ignore[no-untyped-def]
    module, data = student(make()), pairs()

    def error() -> float:
        batch = data.batch_at(99)
        with torch.no_grad():
            return float((module.distiller.generator(batch).x - batch.target).square().mean())

    fit(module, 1, data=data)
    before = error()
    fit(module, 150, data=data)
    assert error() < 0.5 * before
