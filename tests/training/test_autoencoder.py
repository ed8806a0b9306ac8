"""Training of an autoencoder."""

from pathlib import Path

import pytest
import torch
from training.test_module import fit

from scoredistill.data import GalleryImages
from scoredistill.training import AutoencoderTraining, ConditionDataModule, Images, NetworkOptimizer
from scoredistill.training.callbacks import ReconstructionQuality
from scoredistill.types import Batch

SETTINGS = {
    "block_out_channels": [8, 8],
    "norm_num_groups": 2,
    "latent_channels": 4,
    "layers_per_block": 1,
    "sample_size": 16,
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "mid_block_add_attention": False,
}


def made(**settings: float) -> AutoencoderTraining:
    optimizer = NetworkOptimizer(lambda groups: torch.optim.Adam(groups, lr=3e-3))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoencoderTraining(SETTINGS, optimizer=optimizer, ema=0.9, **settings)


def data() -> Images:
    return Images(GalleryImages(["a red mug", "a tree"], resolution=16, count=16), 8)


def test_the_terms_are_the_squared_error_and_the_divergence_from_a_normal_distribution() -> None:
    model, x = made(), data().reference()[0][:3]
    error, divergence = model.terms(x, torch.Generator().manual_seed(0))
    posterior = model.network.encode(x).latent_dist
    epsilon = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(0))
    own = torch.distributions.Normal(posterior.mean, posterior.std)
    expected = torch.distributions.kl_divergence(own, torch.distributions.Normal(0.0, 1.0))
    torch.testing.assert_close(divergence, expected.flatten(1).mean(1))
    made_of = model.network.decode(posterior.mean + posterior.std * epsilon).sample
    torch.testing.assert_close(error, (made_of - x).square().mean((1, 2, 3)))


def test_a_trained_autoencoder_is_written_with_the_scale_of_its_latents(tmp_path, monkeypatch) -> None:
    from diffusers import AutoencoderKL

    monkeypatch.chdir(tmp_path)
    model, pictures, quality = made(), data(), ReconstructionQuality(16, 4)
    before = quality.evaluate(model, pictures, final=True)
    fit(model, 60, quality, data=pictures)
    assert quality.evaluate(model, pictures, final=True)["psnr"] > before["psnr"] + 3
    read = AutoencoderKL.from_pretrained("autoencoder").double()
    x = pictures.reference()[0]
    with torch.no_grad():
        latents = read.encode(x).latent_dist.mean * read.config.scaling_factor
        torch.testing.assert_close(read(x).sample, model.eval_generator(Batch(data=x)).x)
    assert float(latents.std()) == pytest.approx(1, abs=1e-6)
    assert Path("reconstructions.png").is_file()


def test_invalid_training_settings_are_errors() -> None:
    with pytest.raises(ValueError, match="kl_weight must be at least 0, got -1"):
        made(kl_weight=-1)
    with pytest.raises(ValueError, match="an autoencoder is trained on data"):
        made().training_step(Batch(size=2), 0)
    with pytest.raises(ValueError, match="only real pictures can be reconstructed"):
        made().eval_generator(Batch(size=2))
    with pytest.raises(TypeError, match="ReconstructionQuality needs Images"):
        ReconstructionQuality().evaluate(made(), ConditionDataModule(), final=True)
