"""Training of a text-to-image pipeline."""

import warnings
from pathlib import Path

import pytest
import torch
from training.test_autoencoder import SETTINGS
from training.test_module import fit

from scoredistill.data import GalleryImages
from scoredistill.diffusion.guidance import CFG
from scoredistill.evaluation.prompt_classifier import PromptClassifier
from scoredistill.networks.storage import find_trained
from scoredistill.teachers import DiffusersTeacher
from scoredistill.teachers.sampling import sample
from scoredistill.training import Images, NetworkOptimizer, TextToImageTraining
from scoredistill.training.callbacks import PromptSamples
from scoredistill.training.callbacks.quality import SAMPLES_STREAM, draw_samples
from scoredistill.training.randomness import generator_at
from scoredistill.types import Batch, Condition

PROMPTS = ["a red mug", "a tree"]
UNET = {
    "sample_size": 8,
    "block_out_channels": [8, 8],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 2,
}
TEXT = {
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 12,
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with an autoencoder in ae/0/autoencoder."""
    from diffusers import AutoencoderKL

    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    AutoencoderKL(**SETTINGS).save_pretrained("ae/0/autoencoder")
    return tmp_path


def made(**settings) -> TextToImageTraining:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        optimizer = NetworkOptimizer(lambda groups: torch.optim.Adam(groups, lr=3e-3))
        words = [*PROMPTS, "front view"]
        return TextToImageTraining("ae", UNET, TEXT, words, optimizer=optimizer, ema=0.5, **settings)


def data() -> Images:
    return Images(GalleryImages(PROMPTS, 16, 16, view_words=["front"]), 8, condition_on="text")


@pytest.mark.usefixtures("folder")
def test_the_error_is_the_unets_on_the_noised_latents():
    model, batch = made(text_dropout=0.0), data().batch_at(0)
    error, t = model.error(batch, torch.Generator().manual_seed(1))
    rng = torch.Generator().manual_seed(1)
    torch.rand(8, generator=rng)  # which captions are dropped
    assert torch.equal(t, 0.001 + 0.999 * torch.rand(8, generator=rng))
    tiny = model.network
    x = tiny.codec.vae.encode(batch.data).latent_dist.mean * tiny.codec.vae.config.scaling_factor
    epsilon = torch.randn(x.shape, generator=rng)
    alpha, sigma = (each[:, None, None, None] for each in (tiny.schedule.alpha(t), tiny.schedule.sigma(t)))
    tokens = tiny.tokenizer(list(batch.condition.prompt), padding="max_length", return_tensors="pt").input_ids
    text = tiny.text_encoder(tokens).last_hidden_state
    unet = tiny.denoiser.network.network
    expected = unet(alpha * x + sigma * epsilon, 1000 * t - 1, text).sample - epsilon
    torch.testing.assert_close(error, expected.square().mean((1, 2, 3)))


@pytest.mark.slow
@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_training_writes_a_pipeline_that_diffusers_and_the_teacher_read(prediction, monkeypatch):
    from diffusers import StableDiffusionPipeline

    monkeypatch.setattr(PromptClassifier, "cached", lambda folder, prompts: PromptClassifier(prompts, 16, 4, 2).fit())
    model, pictures = made(prediction=prediction), data()
    first = model.error(pictures.batch_at(0), torch.Generator().manual_seed(0))[0].mean()
    samples = PromptSamples(PROMPTS, samples=2, every=20, cache="cache")
    fit(model, 40, samples, data=pictures)
    assert model.error(pictures.batch_at(0), torch.Generator().manual_seed(0))[0].mean() < first
    assert Path("grid.png").is_file()
    assert Path("pictures/step_000020.png").is_file()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline = StableDiffusionPipeline.from_pretrained("pipeline")
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline("a tree", num_inference_steps=2, height=16, width=16, output_type="pt").images.shape == (
        1,
        3,
        16,
        16,
    )

    x_t, t = torch.randn(3, 4, 8, 8), torch.tensor([0.2, 0.5, 0.9])
    read = DiffusersTeacher("pipeline").double()
    for condition in (Condition("a tree"), Condition(("a tree", "a red mug", "")), None):
        own = CFG(3.0)(model.trained, x_t, t, model.trained.encode_prompt(condition, 3)).epsilon
        other = CFG(3.0)(read, x_t, t, read.encode_prompt(condition, 3)).epsilon
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-5)  # the encoder's embeddings are float32


@pytest.mark.usefixtures("folder")
def test_samples_are_decoded_for_evaluation():
    model = made(steps=2)
    condition = Condition(("a tree", "a red mug"))
    seen = draw_samples(model, 2, condition, seed=3)
    tiny = model.trained
    rng = generator_at(3, 0, SAMPLES_STREAM)
    latents = sample(tiny, 2, (4, 8, 8), condition, steps=2, guidance=CFG(3.0), rng=rng)
    torch.testing.assert_close(seen, tiny.decode(latents).detach())
    assert seen.shape == (2, 3, 16, 16)
    assert tiny.decode(seen) is seen


@pytest.mark.usefixtures("folder")
def test_checkpoints_leave_the_autoencoder_out():
    model = made()
    fit(model, 2, data=data())
    checkpoint = {"state_dict": model.state_dict()}
    model.on_save_checkpoint(checkpoint)
    assert not any("codec" in key for key in checkpoint["state_dict"])
    assert {key.split(".")[0] for key in checkpoint["state_dict"]} == {"network", "averages"}
    other = made()
    other.on_load_checkpoint(checkpoint)


@pytest.mark.usefixtures("folder")
def test_invalid_training_settings_are_errors():
    with pytest.raises(ValueError, match=r"no trained autoencoder in nowhere: train it: .* --config ae.yaml"):
        TextToImageTraining("nowhere", UNET, TEXT, PROMPTS, trained_by="ae.yaml")
    with pytest.raises(ValueError, match=r"text_dropout must lie in \[0, 1\], got 2"):
        made(text_dropout=2)
    with pytest.raises(ValueError, match=r"unet\.in_channels: this follows from the other settings; leave it out"):
        TextToImageTraining("ae", UNET | {"in_channels": 4}, TEXT, PROMPTS)
    with pytest.raises(ValueError, match=r"trained on pictures with captions: use Images with condition_on: text"):
        made().error(Batch(size=2), torch.Generator())
    with pytest.raises(ValueError, match=r"no trained pipeline in nowhere: train it: .* --config sd.yaml"):
        DiffusersTeacher("nowhere", trained_by="sd.yaml")
    with pytest.raises(ValueError, match="prompts: expected a list of two or more"):
        PromptSamples(["a tree"])


def test_the_newest_finished_run_is_used(tmp_path):
    assert find_trained(tmp_path, "part", "here") is None
    for run in ("2", "10", "11", "draft"):
        (tmp_path / run / "part").mkdir(parents=True)
        if run != "11":
            (tmp_path / run / "part" / "here").touch()
    assert find_trained(tmp_path, "part", "here") == tmp_path / "10" / "part"
    (tmp_path / "here").touch()
    assert find_trained(tmp_path, "part", "here") == tmp_path
