"""A trained network as the teacher: all conditions at one x_t are evaluated in one call."""

from collections.abc import Callable

import pytest
import torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from scoredistill.diffusion import CFG, PerpNeg
from scoredistill.networks import NO_LABEL, Backbone, DiffusersBackbone, EDM2UNet, EDMUNet, MLPBackbone
from scoredistill.rendering.camera import Camera
from scoredistill.teachers import NetworkTeacher
from scoredistill.teachers.network import cat_common
from scoredistill.types import Condition

B, CLASSES = 3, 4


def unet(**settings: object) -> UNet2DModel:
    return UNet2DModel(
        sample_size=8, in_channels=3, out_channels=3, layers_per_block=1, block_out_channels=(8, 8), norm_num_groups=4,
        down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"),
        add_attention=False, **settings,
    )  # fmt: skip


# backbone, and whether it takes the camera
BACKBONES: dict[str, tuple[Callable[[], Backbone], bool]] = {
    "diffusers, its own labels": (
        lambda: DiffusersBackbone(unet(num_class_embeds=CLASSES + 1), CLASSES, label_dropout=0.1), False,
    ),
    "diffusers, embedded": (
        lambda: DiffusersBackbone(unet(class_embed_type="identity"), CLASSES, camera=True, label_dropout=0.1), True,
    ),
    "diffusers, unlabeled": (lambda: DiffusersBackbone(unet()), False),
    "ddpm++": (lambda: EDMUNet("ddpm++", 8, 3, 8, (1, 2), 1, (4,), CLASSES), False),
    "adm": (lambda: EDMUNet("adm", 8, 3, 8, (1, 2), 1, (4,), CLASSES), False),
    "edm2": (lambda: EDM2UNet(8, 3, 8, (1, 2), 1, (4,), CLASSES), False),
    "mlp": (lambda: MLPBackbone((3, 8, 8), 16, 2, CLASSES, label_dropout=0.1), False),
    "mlp with a camera": (lambda: MLPBackbone((3, 8, 8), 16, 2, CLASSES, camera=True, label_dropout=0.1), True),
}  # fmt: skip


def teacher(make: Callable[[], Backbone]) -> tuple[NetworkTeacher, list[int]]:
    """A teacher with weights far from zero, and the rows of each call of its network."""
    torch.manual_seed(0)
    made, rows = NetworkTeacher(make()), []
    for weight in made.parameters():
        if weight.abs().max() < 1e-3:
            nn.init.normal_(weight, std=0.1)
    made.denoiser.network.register_forward_pre_hook(lambda module, inputs: rows.append(len(inputs[0])))
    return made.requires_grad_(False).eval(), rows


def cameras() -> Camera:
    at = torch.tensor([0.0, 120.0, 240.0])
    return Camera.orbit(at, at / 10, at * 0 + 2.6, at * 0 + 40)


def noisy() -> tuple[Tensor, Tensor]:
    return 2 * torch.randn(B, 3, 8, 8), torch.tensor([0.2, 0.5, 0.8])


@pytest.mark.parametrize("name", BACKBONES)
def test_rows_without_a_label_are_unconditional(name: str) -> None:
    make, told = BACKBONES[name]
    made, _ = teacher(make)
    (x_t, t), camera = noisy(), cameras() if told else None
    none = torch.full((B,), NO_LABEL)
    assert torch.equal(made(x_t, t, Condition(label=none, camera=camera)).x0, made(x_t, t, Condition(camera=camera)).x0)
    labeled = made(x_t, t, Condition(label=torch.tensor([2, 0, 3]), camera=camera)).x0
    mixed = made(x_t, t, Condition(label=torch.tensor([2, NO_LABEL, 3]), camera=camera)).x0
    plain = made(x_t, t, Condition(camera=camera)).x0
    assert torch.equal(mixed, torch.stack([labeled[0], plain[1], labeled[2]]))
    if "unlabeled" not in name:
        assert (labeled - plain).flatten(1).norm(dim=1).min() > 1e-6


@pytest.mark.parametrize("name", BACKBONES)
def test_one_call_gives_what_separate_calls_give(name: str) -> None:
    make, told = BACKBONES[name]
    made, rows = teacher(make)
    (x_t, t), camera = noisy(), cameras() if told else None
    asked = Condition(label=torch.tensor([2, 0, 3]), camera=camera)
    conditions = [asked, asked.negative(), Condition(label=torch.tensor([1, 1, 0]), camera=camera)]
    together = made.predict_many(x_t, t, conditions)
    assert rows == [3 * B]
    for one, condition in zip(together, conditions, strict=True):
        torch.testing.assert_close(one.x0, made(x_t, t, condition).x0, rtol=1e-12, atol=1e-12)
        assert torch.equal(one.x_t, x_t)
        assert torch.equal(one.t, t)
    rows.clear()
    guided = CFG(3.0)(made, x_t, t, asked).epsilon
    assert rows == [2 * B]
    cond, uncond = (made(x_t, t, each).epsilon for each in conditions[:2])
    torch.testing.assert_close(guided, uncond + 3 * (cond - uncond), rtol=1e-9, atol=1e-9)


def test_a_single_condition_is_passed_unchanged() -> None:
    made, rows = teacher(BACKBONES["ddpm++"][0])
    x_t, t = noisy()
    assert torch.equal(made.predict_many(x_t, t, [None])[0].x0, made(x_t, t, None).x0)
    assert rows == [B, B]
    made.predict_many(x_t, t, [None, None])
    assert rows[2:] == [2 * B]


@pytest.mark.parametrize("name", [name for name in BACKBONES if "unlabeled" not in name])
def test_other_negative_labels_are_refused(name: str) -> None:
    make, told = BACKBONES[name]
    made, _ = teacher(make)
    x_t, t = noisy()
    with pytest.raises((IndexError, RuntimeError)):
        made(x_t, t, Condition(label=torch.full((B,), NO_LABEL - 1), camera=cameras() if told else None))


@pytest.mark.parametrize("name", ["mlp", "diffusers"])
def test_a_network_trained_with_labels_only_refuses_rows_without(name: str) -> None:
    networks = {"mlp": MLPBackbone((3, 8, 8), 16, 2, CLASSES)}
    networks["diffusers"] = DiffusersBackbone(unet(num_class_embeds=CLASSES), CLASSES)
    made, (x_t, t) = NetworkTeacher(networks[name]).eval(), noisy()
    with pytest.raises(ValueError, match="the batch has no labels; calls without labels need"):
        CFG(2.0)(made, x_t, t, Condition(label=torch.tensor([2, 0, 3])))


def test_a_camera_missing_in_one_condition_is_an_error() -> None:
    made, _ = teacher(BACKBONES["mlp with a camera"][0])
    x_t, t = noisy()
    with pytest.raises(ValueError, match="the batch has no cameras"):
        made.predict_many(x_t, t, [Condition(camera=cameras()), None])


def test_concatenated_conditions_keep_their_common_fields() -> None:
    label, background = torch.tensor([2, 0, 3]), torch.rand(B, 3)
    asked = Condition("a mug", "blurry", label, cameras(), background, torch.randn(B, 5, 6))
    whole = cat_common([asked, asked.negative()], B)
    assert whole is not None
    assert whole.prompt == ("a mug",) * B + ("blurry",) * B
    assert whole.negative_prompt is whole.embeddings is None
    assert whole.label is not None
    assert whole.label.tolist() == [2, 0, 3, *[NO_LABEL] * B]
    assert whole.camera is not None
    assert torch.equal(whole.camera.pose, cameras().pose.repeat(2, 1, 1))
    assert torch.equal(whole.background, background.repeat(2, 1))  # type: ignore[arg-type]
    assert cat_common([None, None], B) is None


def test_perp_neg_is_one_call_too() -> None:
    made, rows = teacher(BACKBONES["diffusers, unlabeled"][0])
    x_t, t = noisy()
    PerpNeg(2.0, {"left": -0.5})(made, x_t, t, Condition("a mug"))
    assert rows == [3 * B]
