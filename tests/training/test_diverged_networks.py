"""Every kind of training refuses to write a diverged network, and to start from a network with NaN."""

import pytest
import torch
from pytorch_lightning import Callback
from torch import nn
from training import test_autoencoder, test_text_to_image
from training.test_module import fit

from scoredistill.networks import MLPBackbone
from scoredistill.training import DenoiserTraining, Images
from scoredistill.training.training_module import TrainingModule


class Poison(Callback):
    """Puts NaN into the network after training, before it is written."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def on_train_batch_end(self, *_: object) -> None:
        poisoned(self.network)


def poisoned(network: nn.Module) -> None:
    with torch.no_grad():
        list(network.parameters())[-1].view(-1)[0] = torch.nan


def teacher() -> tuple[TrainingModule, Images]:
    from scoredistill.data import TeacherSamples
    from scoredistill.teachers import GaussianMixture

    mixture = GaussianMixture(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), 0.1)
    return DenoiserTraining(MLPBackbone((2,), hidden=4, layers=1), (2,)), Images(TeacherSamples(mixture), 4)


def autoencoder() -> tuple[TrainingModule, Images]:
    return test_autoencoder.made(), test_autoencoder.data()


def pipeline() -> tuple[TrainingModule, Images]:
    from diffusers import AutoencoderKL

    AutoencoderKL(**test_autoencoder.SETTINGS).save_pretrained("ae/0/autoencoder")
    return test_text_to_image.made(), test_text_to_image.data()


KINDS = {"teacher": teacher, "autoencoder": autoencoder, "pipeline": pipeline}


@pytest.mark.parametrize("kind", KINDS)
def test_diverged_networks_are_not_written(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, data = KINDS[kind]()
    with pytest.raises(FloatingPointError, match=r"averages\..* is not finite at step 1: training has diverged"):
        fit(model, 1, Poison(model.average.module), data=data)
    assert not (tmp_path / kind).exists()


@pytest.mark.parametrize("kind", KINDS)
def test_networks_that_diverged_before_training_are_not_written(kind, tmp_path, monkeypatch):
    """Resuming a finished run writes its network again."""
    monkeypatch.chdir(tmp_path)
    model, data = KINDS[kind]()
    fit(model, 1, data=data)
    written = {path: path.read_bytes() for path in (tmp_path / kind).rglob("*") if path.is_file()}
    poisoned(model.average.module)
    with pytest.raises(ValueError, match=f"{kind}: .* is not finite"):
        model.on_fit_end()
    assert {path: path.read_bytes() for path in (tmp_path / kind).rglob("*") if path.is_file()} == written


def test_latents_without_spread_have_no_scale(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, data = autoencoder()
    fit(model, 1, data=data)
    with torch.no_grad():
        model.average.module.quant_conv.weight.zero_()
        model.average.module.quant_conv.bias.zero_()
    with pytest.raises(ValueError, match=r"autoencoder: the latents' standard deviation is 0\.0"):
        model.on_fit_end()


def test_a_pipeline_is_not_built_on_an_autoencoder_with_nan(tmp_path, monkeypatch):
    from diffusers import AutoencoderKL

    monkeypatch.chdir(tmp_path)
    network = AutoencoderKL(**test_autoencoder.SETTINGS)
    poisoned(network)
    network.save_pretrained("ae/0/autoencoder")
    with pytest.raises(ValueError, match=r"ae/0/autoencoder: .* is not finite"):
        test_text_to_image.made()
