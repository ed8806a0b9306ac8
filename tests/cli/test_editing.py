"""The recipes of CSD and DDS: on points, and editing a picture with a tiny Stable Diffusion."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from teachers.tiny_pipelines import saved

from scoredistill.data.picture_files import read_picture

# A tiny text encoder truncates texts to 14 letters, with a warning; diffusers may warn about the hub.
pytestmark = [
    pytest.mark.filterwarnings("ignore:the prompt .* is too long"),
    pytest.mark.filterwarnings("ignore:The `local_dir_use_symlinks`"),
]


def test_points_end_where_the_recipes_state(cli, folder) -> None:
    ends, nearer = {}, ["--model.generator.init_args.init.init_args.std", "0.1"]  # in fewer steps than the recipes'
    for name in ("csd", "dds"):
        words = ["--trainer.max_steps", "300", "--trainer.accelerator", "cpu", "--output", name]
        assert cli("fit", "--config", f"classes/{name}", *nearer, *words).code == 0
        ends[name] = particles(folder / name).double()
    place = ends["dds"].new_tensor([-2.3 + 4.0, 0.2 + 1.0])
    # The learning rate ends at a two-hundredth of .05: Adam is as far away as its last few steps, four of them.
    torch.testing.assert_close(ends["dds"], place.expand_as(ends["dds"]), rtol=0, atol=4 * 0.05 / 200)
    # Noise is left in CSD: the mean of 64 points against its own error and the two digits that the recipe states.
    mean, error = ends["csd"].mean(0), ends["csd"].std(0) / 8
    assert (mean - mean.new_tensor([2.1, 0.0])).abs().le(3 * error + 0.05).all()
    assert float(ends["csd"].std(0).max()) < 0.5 < 2.1 - 1.0


def particles(output: Path) -> torch.Tensor:
    """The particles at the end of a run."""
    state = torch.load(output / "0/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    (values,) = (value for name, value in state.items() if name.endswith("generator.values"))
    return values


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
    return particles(folder / prompt)[0]


def test_only_the_difference_of_the_prompts_is_edited(cli, folder, tmp_path_factory) -> None:
    model = saved("sd", tmp_path_factory.mktemp("sd"))
    rows = torch.arange(16, dtype=torch.uint8) * 15
    Image.fromarray(rows.expand(3, 16, 16).permute(2, 1, 0).contiguous().numpy()).save(folder / "reference.png")
    before = read_picture(folder / "reference.png").float()
    # Adam would amplify the rounding errors of a zero gradient to the size of any other.
    same, other = (edited(cli, folder, model, prompt).float() for prompt in ("a cat", "a dog"))
    torch.testing.assert_close(same, before, rtol=0, atol=1e-6)
    # Where the gradient keeps its sign each of Adam's three steps is the learning rate, .01; by Cauchy and Schwarz's
    # inequality none is more than 1.004 times it.
    assert 0.025 < float((other - before).abs().max()) < 3 * 0.01 * 1.004
