"""Editing a picture by delta denoising scores, on a tiny Stable Diffusion."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from teachers.tiny_pipelines import saved

from scoredistill.data.pictures import read_picture

# A tiny text encoder spells, in at most 14 letters; and what diffusers says to the hub is its own affair.
pytestmark = [
    pytest.mark.filterwarnings("ignore:the prompt .* is too long"),
    pytest.mark.filterwarnings("ignore:The `local_dir_use_symlinks`"),
]


def edited(cli, folder: Path, model: str, prompt: str) -> torch.Tensor:
    """The picture's pixels after three steps."""
    picture = str(folder / "reference.png")
    words = ["--model.generator.init_args.init.init_args.files", f"[{picture}]"]
    words += ["--model.loss.init_args.reference", picture, "--model.loss.init_args.prompt", "a cat"]
    words += ["--model.teacher.init_args.model", model, "--model.teacher.init_args.dtype", "float32"]
    words += ["--data.init_args.prompt", prompt, "--trainer.max_steps", "3", "--trainer.accelerator", "cpu"]
    result = cli("fit", "--config", "dds", *words, "--output", prompt)
    assert result.code == 0, result.err
    assert (folder / prompt / "0/grid.png").is_file()
    state = torch.load(folder / prompt / "0/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    (pixels,) = (value for name, value in state.items() if name.endswith("generator.values"))
    return pixels[0]


def test_only_what_the_prompts_differ_in_is_edited(cli, folder, tmp_path_factory) -> None:
    model = saved("sd", tmp_path_factory.mktemp("sd"))
    rows = torch.arange(16, dtype=torch.uint8) * 15
    Image.fromarray(rows.expand(3, 16, 16).permute(2, 1, 0).contiguous().numpy()).save(folder / "reference.png")
    before = read_picture(folder / "reference.png").float()
    # What rounding leaves of a gradient of zero Adam would make as large as any other.
    same, other = (edited(cli, folder, model, prompt).float() for prompt in ("a cat", "a dog"))
    torch.testing.assert_close(same, before, rtol=0, atol=1e-6)
    assert 0.005 < float((other - before).abs().max()) < 0.04
