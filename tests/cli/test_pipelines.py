"""Students as pipelines of diffusers."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from scoredistill.cli.errors import UsageError
from scoredistill.cli.pipelines import save_pipeline
from scoredistill.diffusion import CosineSchedule, EDMSchedule, LinearSchedule
from scoredistill.generators import OneStepUNet
from scoredistill.networks import DiffusersBackbone, MLPBackbone
from scoredistill.types import Batch, Condition


@pytest.fixture(autouse=True)
def _float32() -> None:
    torch.set_default_dtype(torch.float32)  # what pipelines run in


def unet(rows: int | None = 3) -> DiffusersBackbone:
    from diffusers import UNet2DModel

    network = UNet2DModel(
        sample_size=8, in_channels=3, out_channels=3, layers_per_block=1, block_out_channels=(8, 8), norm_num_groups=4,
        down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"),
        add_attention=False, num_class_embeds=rows,
    )  # fmt: skip
    return DiffusersBackbone(network, classes=rows)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("rows", [3, None])
def test_a_stock_pipeline_makes_the_students_pictures_in_one_step(rows: int | None, tmp_path: Path) -> None:
    from diffusers import ConsistencyModelPipeline, DiffusionPipeline

    student = OneStepUNet((3, 8, 8), unet(rows), sigma_data=0.7, times=[0.5], schedule=EDMSchedule()).eval()
    save_pipeline(student, tmp_path / "pipeline")
    pipeline = DiffusionPipeline.from_pretrained(tmp_path / "pipeline")
    assert isinstance(pipeline, ConsistencyModelPipeline)
    pipeline.set_progress_bar_config(disable=True)
    z = Batch(size=3).noise((3, 8, 8), torch.Generator().manual_seed(0))
    label = None if rows is None else torch.arange(3)
    theirs = pipeline(3, class_labels=label, num_inference_steps=1, latents=z, output_type="np").images
    with torch.no_grad():
        condition = None if label is None else Condition(label=label)
        ours = student(Batch(condition, 3), torch.Generator().manual_seed(0)).x
    ours = (ours / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(theirs, ours, atol=2e-5)
    assert ours.std() > 0.05


def text_pipeline(folder: Path):  # type: ignore[no-untyped-def]
    """A tiny Stable Diffusion pipeline of the real classes."""
    from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    network = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(8, 8), norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=8, attention_head_dim=4,
    )  # fmt: skip
    scheduler = PNDMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True)
    vae = AutoencoderKL(block_out_channels=(4,), norm_num_groups=2, latent_channels=4, layers_per_block=1)
    folder.mkdir()
    words = ["<|startoftext|>", "<|endoftext|>", "a</w>", "m", "u", "g</w>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=8)
    text = CLIPTextConfig(
        vocab_size=6, hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=8, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    return StableDiffusionPipeline(
        vae, CLIPTextModel(text), tokenizer, network, scheduler, None, None, requires_safety_checker=False
    )


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_a_text_student_takes_its_networks_place_in_its_teachers_pipeline(prediction, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    from diffusers import DiffusionPipeline

    base = text_pipeline(tmp_path / "words")
    base.save_pretrained(tmp_path / "base")
    backbone = DiffusersBackbone(base.unet, time="discrete")
    student = OneStepUNet((4, 8, 8), backbone, prediction, schedule=LinearSchedule()).eval()
    save_pipeline(student, tmp_path / "pipeline", str(tmp_path / "base"))
    pipeline = DiffusionPipeline.from_pretrained(tmp_path / "pipeline")
    pipeline.set_progress_bar_config(disable=True)
    embeddings = torch.randn(2, 8, 8)
    z = Batch(size=2).noise((4, 8, 8), torch.Generator().manual_seed(0))
    settings = {"prompt_embeds": embeddings, "guidance_scale": 1.0, "num_inference_steps": 1, "output_type": "latent"}
    theirs = pipeline(latents=z, height=8, width=8, **settings).images
    with torch.no_grad():
        ours = student(Batch(Condition(embeddings=embeddings), 2), torch.Generator().manual_seed(0)).x
    # The pipeline's noise has unit variance, the student's sigma(1) = .9977 of it: alpha(1) x is left out.
    torch.testing.assert_close(theirs, ours, rtol=0.02, atol=0.02 * float(ours.abs().max()))


@pytest.mark.parametrize(
    ("student", "message"),
    [
        (lambda: OneStepUNet((3, 8, 8), unet(), times=[0.5, 0.2], schedule=EDMSchedule()), "2 steps has no pipeline"),
        (lambda: OneStepUNet((2,), MLPBackbone((2,)), schedule=EDMSchedule()), "a MLPBackbone has no pipeline"),
        (lambda: OneStepUNet((3, 8, 8), unet(), "epsilon", schedule=EDMSchedule()), "needs EDM's preconditioning"),
        (lambda: OneStepUNet((3, 8, 8), unet(), times=[0.5], schedule=CosineSchedule()), "variance-exploding"),
    ],
)
def test_what_has_no_pipeline_is_said(student, message: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match=message):
        save_pipeline(student(), tmp_path / "pipeline")
    assert not (tmp_path / "pipeline").exists()
    with pytest.raises(UsageError, match="a text pipeline needs"):
        save_pipeline(
            OneStepUNet((3, 8, 8), unet(), "flow", schedule=LinearSchedule()), tmp_path / "pipeline", base="somewhere"
        )
