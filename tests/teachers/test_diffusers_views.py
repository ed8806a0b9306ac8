"""View-dependent prompts and Perp-Neg with the text encoders and networks of real pipelines."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from teachers.tiny_pipelines import teacher_of

from scoredistill.diffusion import CFG, ViewPerpNeg, ViewPrompts
from scoredistill.rendering.camera import Camera
from scoredistill.teachers import DiffusersTeacher, PromptSettings
from scoredistill.types import Condition, TextEmbeddings

VIEWS = ViewPrompts(" f", " s", " b", " o", interpolate=True)  # the tiny tokenizers spell, and cut at 16 letters
NONE = dict.fromkeys(("f_fs", "f_sf", "f_fsb", "f_sb"), (0.0, 0.0, 0.0))


def counting(teacher: DiffusersTeacher) -> tuple[list[list[str]], list[int]]:
    """Texts of each call of the text encoders, and rows of each call of the network, in order."""
    texts: list[list[str]] = []
    rows: list[int] = []
    encode = teacher.prompts.encoder.encode

    def counted(asked: Sequence[str]) -> TextEmbeddings:
        texts.append(list(asked))
        return encode(asked)

    teacher.prompts.encoder.encode = counted  # type: ignore[method-assign]
    teacher.denoiser.register_forward_pre_hook(lambda module, inputs: rows.append(len(inputs[0])))
    return texts, rows


@pytest.mark.parametrize("family", ["sd", "multi-view", "sdxl", "sd3", "pixart-sigma"])
def test_perp_neg_by_the_camera_is_one_call_and_right_in_every_row(family: str, tmp_path: Path) -> None:
    teacher = teacher_of(family, tmp_path, prompts=PromptSettings(VIEWS, "x", cache=None))
    texts, rows = counting(teacher)
    azimuth = torch.tensor([0.0, 45.0, 100.0, 180.0])
    camera = Camera.orbit(azimuth, azimuth * 0 + 15, azimuth * 0 + 2.6, azimuth * 0 + 40)
    asked = teacher.encode_prompt(Condition("mug", camera=camera), 4)
    assert asked is not None
    x_t, t = torch.randn(4, teacher.codec.channels, 8, 8), torch.linspace(0.2, 0.9, 4)
    guidance = ViewPerpNeg(7.5, VIEWS)
    ours = guidance(teacher, x_t, t, asked).epsilon
    assert rows == [16]
    assert texts == [["mug f", "mug s", "mug b", "mug o", "x"]]
    plain = ViewPerpNeg(7.5, VIEWS, **NONE)(teacher, x_t, t, asked).epsilon
    close = {"rtol": 1e-3, "atol": 1e-3}  # the networks compute in float32, and guidance multiplies their rounding
    torch.testing.assert_close(plain, CFG(7.5)(teacher, x_t, t, asked).epsilon, **close)
    for row in range(4):
        i = torch.tensor([row])
        torch.testing.assert_close(guidance(teacher, x_t[i], t[i], asked[i]).epsilon, ours[i], **close)
    assert (ours - plain).flatten(1).norm(dim=1).min() > 1e-2
