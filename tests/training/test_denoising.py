"""Training of a teacher."""

from pathlib import Path

import pytest
import torch
from training.test_module import fit

from scoredistill.data import TeacherSamples
from scoredistill.diffusion import LogNormalTimesteps
from scoredistill.networks import MLPBackbone
from scoredistill.teachers import GaussianMixture, NetworkTeacher
from scoredistill.training import ConditionDataModule, DenoiserTraining, Images, NetworkOptimizer
from scoredistill.types import Batch, Condition


def gaussian() -> GaussianMixture:
    return GaussianMixture(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), 0.3, labels=torch.arange(2))


def made(ema: float | None = 0.9, lr: float = 3e-3) -> DenoiserTraining:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = MLPBackbone((2,), hidden=32, layers=2, classes=2)
    optimizer = NetworkOptimizer(lambda groups: torch.optim.Adam(groups, lr=lr))
    return DenoiserTraining(network, [2], timesteps=LogNormalTimesteps(-0.8, 1.0), optimizer=optimizer, ema=ema)


def data() -> Images:
    return Images(TeacherSamples(gaussian()), 128, condition_on="data")


@pytest.fixture
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("_here")
def test_a_trained_teacher_has_the_score_and_can_be_loaded() -> None:
    model, truth = made(), gaussian()
    fit(model, 400, data=data())
    teacher = NetworkTeacher(folder="teacher")
    x, label = truth.sample(400, rng=torch.Generator().manual_seed(0))
    t = teacher.schedule.t_at_log_snr(torch.linspace(-2, 3, 400))
    x_t = x + teacher.schedule.sigma(t)[:, None] * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    truth.schedule = teacher.schedule
    ask = Condition(label=label)
    with torch.no_grad():
        error = (teacher.double()(x_t, t, ask).epsilon - truth(x_t, t, ask).epsilon).square().mean().sqrt()
        assert torch.equal(teacher(x_t, t, ask).x0, model.trained(x_t, t, ask, teacher.schedule).x0)
        samples = model.eval_generator(Batch(ask), torch.Generator().manual_seed(2)).x
    assert float(error) < 0.1  # of a noise of unit variance
    assert bool(((samples[:, 0] > 0) == (label == 0)).double().mean() > 0.97)
    assert not any(weight.requires_grad for weight in model.average.parameters())  # type: ignore[union-attr]


@pytest.mark.usefixtures("_here")
def test_without_an_average_the_network_itself_is_the_teacher() -> None:
    model = made(ema=None)
    fit(model, 2, data=data())
    assert model.trained is model.network


@pytest.mark.usefixtures("_here")
def test_training_is_a_function_of_its_seed() -> None:
    results = []
    for _ in range(2):
        model = made()
        torch.manual_seed(len(results))
        fit(model, 3, data=data())
        results.append(model.state_dict())
    assert all(torch.equal(value, results[1][key]) for key, value in results[0].items())


def test_a_teacher_needs_data_and_finite_gradients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="a teacher is trained on data"):
        fit(made(), 1, data=ConditionDataModule(batch_size=4))
    with pytest.raises(FloatingPointError, match="the network's gradient is not finite at step"):
        fit(made(lr=1e30), 5, data=data())
    assert not (tmp_path / "teacher").exists()
    with pytest.raises(ValueError, match=r"ema must lie in \[0, 1\)"):
        made(ema=1.0)


def test_a_teacher_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs either network or folder"):
        NetworkTeacher()
    with pytest.raises(ValueError, match=r"there is no trained teacher in .*: train it: .* fit --config t\.yaml"):
        NetworkTeacher(folder=str(tmp_path / "none"), trained_by="t.yaml")
