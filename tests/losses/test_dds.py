"""Editing by delta denoising scores; its laws are in tests/laws."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from scoredistill import Condition, Distiller, Sample
from scoredistill.diffusion import CFG
from scoredistill.generators import ImageParticles, PictureInit
from scoredistill.losses import DDS
from scoredistill.teachers import GaussianMixture, Teacher
from scoredistill.testing import ReferenceTeacher

X = torch.tensor([[0.3, -0.4], [1.0, 0.2], [-0.5, 0.1]], dtype=torch.float64)
AT = {"t": torch.tensor([0.2, 0.4, 0.7], dtype=torch.float64), "epsilon": X.flip(0)}


def distiller(loss: DDS, teacher: Teacher | None = None, scale: float = 1.0) -> Distiller:
    return Distiller(ImageParticles(X), teacher or ReferenceTeacher(), loss, CFG(scale))


@pytest.mark.parametrize("scale", [1.0, 7.5])
def test_the_reference_itself_under_its_own_prompt_does_not_move(scale: float) -> None:
    ours = distiller(DDS(X, prompt="left"), scale=scale)
    assert torch.equal(ours.gradient(X, **AT, condition=Condition("left")), torch.zeros_like(X))
    assert ours.gradient(X, **AT, condition=Condition("up")).abs().min() > 1e-3
    assert ours.gradient(X + 0.1, **AT, condition=Condition("left")).abs().min() > 1e-4


def test_sample_and_reference_have_the_same_guidance() -> None:
    ours, other = (distiller(DDS(X, prompt="left"), scale=s) for s in (1.0, 7.5))
    asked = Condition("up", negative_prompt="asked")
    target, shown = (
        CFG(7.5)(ReferenceTeacher(), x_t(X), AT["t"], replaced) for replaced in (asked, asked.with_prompt("left"))
    )
    sigma = ours.teacher.schedule.sigma(AT["t"])[:, None]
    expected = sigma**2 * (target.epsilon - shown.epsilon)
    torch.testing.assert_close(other.gradient(X, **AT, condition=asked), expected)
    assert (ours.gradient(X, **AT, condition=asked) - expected).abs().max() > 1e-3


def x_t(x: Tensor) -> Tensor:
    schedule = ReferenceTeacher().schedule
    return schedule.alpha(AT["t"])[:, None] * x + schedule.sigma(AT["t"])[:, None] * AT["epsilon"]


def test_each_particle_has_its_own_reference() -> None:
    ours, turned = distiller(DDS(X, prompt="left")), torch.tensor([2, 0, 1])
    sample = Sample(X, particle=turned)
    own = ours.gradient(X[turned], **AT, condition=Condition("left"), sample=sample)
    assert torch.equal(own, torch.zeros_like(X))
    one = distiller(DDS(X[:1], prompt="left")).gradient(X, **AT, condition=Condition("left"))
    assert [bool(row.any()) for row in one] == [False, True, True]


def test_a_class_can_be_what_the_reference_shows() -> None:
    teacher = GaussianMixture(torch.tensor([[-1.0, 0.0], [1.0, 0.5]]), 0.4, labels=torch.tensor([0, 1]))
    ours = distiller(DDS(X, label=0), teacher)
    for label, still in ((0, True), (1, False)):
        asked = Condition(label=torch.full((3,), label))
        assert torch.equal(ours.gradient(X, **AT, condition=asked), torch.zeros_like(X)) == still


class Doubling(ReferenceTeacher):
    """A teacher whose latents are twice the pictures."""

    def encode(self, x: Tensor) -> Tensor:
        return 2 * x


def test_the_reference_is_encoded_and_stays_out_of_checkpoints() -> None:
    ours = distiller(DDS(X, prompt="left"), Doubling())
    assert torch.equal(ours.gradient(2 * X, **AT, condition=Condition("left")), torch.zeros_like(X))
    assert not [key for key in ours.state_dict() if "reference" in key]


def test_a_picture_is_where_editing_starts(tmp_path: Path) -> None:
    from PIL import Image

    for name, size in (("a", (6, 4)), ("b", (4, 4))):
        Image.new("RGB", size, (255, 0, 127)).save(tmp_path / f"{name}.png")
    start = PictureInit([str(tmp_path / "a.png")] * 2).draw()
    assert start.shape == (2, 3, 4, 6)
    torch.testing.assert_close(start[1, :, 0, 0], torch.tensor([1.0, -1.0, 127 / 127.5 - 1]))
    assert torch.equal(DDS(str(tmp_path / "a.png"), prompt="left").reference, start[:1])
    with pytest.raises(ValueError, match=r"b\.png has 4 x 4 pixels and .*a\.png has 6 x 4: resize them"):
        PictureInit([str(tmp_path / "a.png"), str(tmp_path / "b.png")]).draw()
    with pytest.raises(ValueError, match="needs at least one file"):
        PictureInit([])
    with pytest.raises(ValueError, match=r"there is no picture .*c\.png"):
        DDS(str(tmp_path / "c.png"), prompt="left")


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (torch.zeros(1, 3), r"reference is \(3,\) in the teacher's space, a sample \(2,\)"),
        (torch.zeros(2, 2), "there are 2 references"),
    ],
)
def test_a_reference_that_does_not_fit_is_one_clear_error(reference: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        distiller(DDS(reference, prompt="left")).gradient(X, **AT, condition=Condition("up"))


@pytest.mark.parametrize("condition", [None, Condition(negative_prompt="up")])
def test_an_edit_without_prompt_and_class_is_refused(condition: Condition | None) -> None:
    with pytest.raises(ValueError, match=r"what the edit should show: set data\.init_args\.prompt or labels"):
        distiller(DDS(X, prompt="left")).gradient(X, **AT, condition=condition)


def test_a_reference_without_prompt_and_class_is_refused() -> None:
    with pytest.raises(ValueError, match="set prompt or label"):
        DDS(X)
