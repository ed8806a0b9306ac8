"""Pictures to a pipeline's latents and back."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from teachers.tiny_pipelines import FAMILIES, saved, stock, teacher_of

from scoredistill.teachers import DiffusersTeacher, PromptSettings
from scoredistill.types import Condition

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")


@pytest.mark.parametrize("family", FAMILIES)
def test_pictures_to_latents_and_back(family: str, tmp_path: Path) -> None:
    teacher = teacher_of(family, tmp_path)
    pictures = torch.rand(2, 3, 24, 24).mul(2).sub(1).requires_grad_()
    x = teacher.encode(pictures)
    channels = {"if": 3, "sd3": 16, "flux": 16, "flux-distilled": 16}.get(family, 4)
    assert x.shape == (2, channels, 8, 8)
    assert x.dtype == pictures.dtype
    (gradient,) = torch.autograd.grad(x.square().sum(), pictures)
    assert gradient.abs().flatten(1).sum(1).gt(0).all()
    if family != "if":
        assert teacher.encode(x) is x
    back = teacher.decode(x)
    assert back.shape == (2, 3, *((8, 8) if family == "if" else (16, 16)))


@pytest.mark.parametrize("family", ["sd", "sd3"])
def test_latents_are_shifted_and_scaled_as_in_the_pipeline(family: str, tmp_path: Path) -> None:
    teacher = teacher_of(family, tmp_path)
    vae, x = stock(teacher).vae, torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        shift = vae.config.shift_factor or 0
        z = (vae.encode(x.float()).latent_dist.mean - shift) * vae.config.scaling_factor
        back = vae.decode(z / vae.config.scaling_factor + shift).sample
    torch.testing.assert_close(teacher.encode(x), z.double(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(teacher.decode(z.double()), back.double(), rtol=1e-5, atol=1e-5)


def test_the_gradient_of_encode_is_that_of_finite_differences(tmp_path: Path) -> None:
    teacher = teacher_of("sd", tmp_path).double()
    x, direction, h = torch.randn(1, 3, 20, 20, requires_grad=True), torch.randn(1, 3, 20, 20), 1e-5
    teacher.encode(x).square().sum().backward()
    assert x.grad is not None
    with torch.no_grad():
        ends = [teacher.encode(x + sign * h * direction).square().sum() for sign in (1, -1)]
    torch.testing.assert_close((x.grad * direction).sum(), (ends[0] - ends[1]) / (2 * h), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("settings", [{"checkpointing": True}, {"slicing": True}, {"offload": True}], ids=str)
def test_saving_memory_changes_nothing(settings: dict[str, Any], tmp_path: Path) -> None:
    plain = teacher_of("sd", tmp_path)
    sparing = DiffusersTeacher(plain.source.model, resolution=16, prompts=PromptSettings(cache=None), **settings)
    results = []
    for teacher in (plain, sparing):
        x = torch.linspace(-1, 1, 2 * 3 * 256).reshape(2, 3, 16, 16).requires_grad_()
        z = teacher.encode(x)
        z.square().sum().backward()
        epsilon = teacher(z.detach(), torch.tensor([0.2, 0.7]), Condition(prompt="a mug")).epsilon
        results.append((z.detach(), x.grad, epsilon.detach(), teacher.decode(z.detach()).detach()))
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-5)  # sums of float32 in another order


def test_an_idle_codec_does_not_move_with_the_teacher(tmp_path: Path) -> None:
    teacher = teacher_of("sd", tmp_path, offload=True)
    names = [name for name, _ in teacher.codec.named_parameters()]
    assert any("encoder" in name for name in names)
    assert not any("decoder" in name for name in names)
    teacher.decode(torch.randn(1, 4, 8, 8))
    assert names == [name for name, _ in teacher.codec.named_parameters()]


def test_tiles_cover_large_pictures(tmp_path: Path) -> None:
    teacher = teacher_of("sd", tmp_path, tiling=True, resolution=32)
    assert teacher.encode(torch.randn(1, 3, 32, 32)).shape == (1, 4, 16, 16)  # tiles of 16 pixels


@pytest.mark.parametrize("asks", [True, False, None])
def test_an_autoencoder_gets_float32_if_required(asks: bool | None, tmp_path: Path) -> None:
    model = saved("sd", tmp_path)
    file = Path(model) / "vae" / "config.json"
    config = json.loads(file.read_text())
    config.pop("force_upcast")
    file.write_text(json.dumps(config if asks is None else config | {"force_upcast": asks}))
    teacher = DiffusersTeacher(model, dtype="bfloat16", resolution=16)
    assert teacher.codec.vae.dtype == (torch.float32 if asks else torch.bfloat16)
    assert teacher.encode(torch.zeros(1, 3, 16, 16)).dtype == torch.float64
