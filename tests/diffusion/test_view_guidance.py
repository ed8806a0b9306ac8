"""Perp-Neg by the camera: weights by angle for each row, with embeddings and with the Gallery's words."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from scoredistill.diffusion import CFG, CosineSchedule, PerpNeg, Prediction, ViewPerpNeg, ViewPrompts
from scoredistill.diffusion.guidance import perpendicular
from scoredistill.rendering.camera import Camera
from scoredistill.teachers import Gallery, Teacher
from scoredistill.types import Condition, TextEmbeddings

CONSTANT = {"f_fs": (0.0, 0.0, 0.5), "f_fsb": (0.0, 0.0, 0.5), "f_sf": (0.0, 0.0, 1.5), "f_sb": (0.0, 0.0, 1.5)}
NONE = dict.fromkeys(CONSTANT, (0.0, 0.0, 0.0))


def orbit(*azimuth: float, elevation: float = 15.0) -> Camera:
    a = torch.tensor(azimuth)
    return Camera.orbit(a, a * 0 + elevation, a * 0 + 2.6, a * 0 + 40)


class Embedding(Teacher):
    """A teacher of (B, 6) samples whose epsilon is a smooth function of the text embedding's one token."""

    def __init__(self) -> None:
        super().__init__(CosineSchedule())
        self.mix = torch.randn(6, 6, generator=torch.Generator().manual_seed(0))
        self.read: list[list[str]] = []

    def encode_prompt(self, condition: Condition | None, rows: int | None) -> Condition | None:
        if condition is None or condition.embeddings is not None or rows is None:
            return condition
        texts = [condition.prompt or ""] * rows if isinstance(condition.prompt, str | None) else list(condition.prompt)
        self.read.append(texts)
        tokens = [
            torch.randn(1, 6, generator=torch.Generator().manual_seed(len(t) * 97 + sum(map(ord, t)))) for t in texts
        ]
        return replace(condition, embeddings=TextEmbeddings(torch.stack(tokens)))

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition | None = None) -> Prediction:
        told = self.encode_prompt(condition or Condition(), len(x_t))
        assert told is not None
        assert told.embeddings is not None
        tokens = TextEmbeddings.of(told.embeddings).tokens[:, 0]
        return Prediction(x_t, t, self.schedule, epsilon=torch.tanh(x_t @ self.mix + tokens))


def diffused(rows: int, *shape: int) -> tuple[Tensor, Tensor]:
    return torch.randn(rows, *shape, generator=torch.Generator().manual_seed(3)), torch.linspace(0.3, 0.9, rows)


def texts_of(guidance: ViewPerpNeg, prompt: str) -> list[str]:
    return [str(text) for text in guidance.views.texts(prompt)]


def test_the_weight_of_a_view_is_zero_where_it_is_shown() -> None:
    azimuth = torch.tensor([0.0, 45.0, 90.0, 135.0, 180.0])
    front, side = ViewPerpNeg(7.5).weights(azimuth, azimuth * 0).unbind(1)
    f = [4 * torch.exp(torch.tensor(-0.5 * r)) - 2.426 for r in (0.0, 0.5, 1.0)]
    torch.testing.assert_close(front[:3], -torch.stack(f[::-1]))
    torch.testing.assert_close(side[:3], -torch.stack(f))
    assert front[0].abs() < 1e-3 > side[2].abs()
    assert front.diff().max() < 0  # falls all the way to the back
    assert side[2] > side[3] > side[4]
    torch.testing.assert_close(front[4], torch.tensor(-1.967))
    torch.testing.assert_close(side[4], torch.tensor(-0.394))


def test_weights_are_nearly_continuous_symmetric_and_zero_overhead() -> None:
    azimuth = torch.linspace(-180, 180, 7201)
    weights = ViewPerpNeg(7.5).weights(azimuth, azimuth * 0)
    assert weights.diff(dim=0).abs().max() < 3e-3  # the published constants leave a step of 5e-4 at 90 degrees
    assert weights.max() <= 0
    torch.testing.assert_close(weights, weights.flip(0))
    assert not ViewPerpNeg(7.5).weights(azimuth, azimuth * 0 + 60).any()


@pytest.mark.parametrize("azimuth", [0.0, 90.0, 180.0])
def test_constant_weights_are_perp_negs(azimuth: float) -> None:
    x_t, t = diffused(3, 6)
    ours = ViewPerpNeg(7.5, **CONSTANT)
    texts = texts_of(ours, "a mug")
    asked = Condition("a mug", "blurry", camera=orbit(azimuth, azimuth, azimuth))
    plain = PerpNeg(7.5, {texts[0]: -0.5, texts[1]: -1.5})
    expected = plain(Embedding(), x_t, t, asked.with_prompt(texts[int(azimuth / 90)])).epsilon
    torch.testing.assert_close(ours(Embedding(), x_t, t, asked).epsilon, expected)


def test_without_weights_it_is_cfg_of_the_blended_prompt() -> None:
    x_t, t = diffused(3, 6)
    teacher, guidance = Embedding(), ViewPerpNeg(7.5, **NONE)
    asked = Condition("a mug", camera=orbit(30.0, -60.0, 120.0))
    read = teacher.encode_prompt(Condition(texts_of(guidance, "a mug")), 4)
    assert read is not None
    assert isinstance(read.embeddings, TextEmbeddings)
    front, side, back, _ = read.embeddings.tokens
    tokens = torch.stack([2 / 3 * front + side / 3, front / 3 + 2 / 3 * side, 2 / 3 * side + back / 3])
    expected = CFG(7.5)(teacher, x_t, t, replace(asked, embeddings=TextEmbeddings(tokens))).epsilon
    torch.testing.assert_close(guidance(teacher, x_t, t, asked).epsilon, expected)


def test_it_never_weakens_the_positive_direction() -> None:
    x_t, t = diffused(5, 6)
    asked = Condition("a mug", camera=orbit(10.0, 80.0, 100.0, 190.0, 300.0))
    ours, without = (g(Embedding(), x_t, t, asked).epsilon for g in (ViewPerpNeg(7.5), ViewPerpNeg(7.5, **NONE)))
    uncond = Embedding()(x_t, t).epsilon
    d_0, change = without - uncond, ours - without
    torch.testing.assert_close((d_0 * change).sum(1), torch.zeros(5), rtol=0, atol=1e-11)
    torch.testing.assert_close(change, perpendicular(change, d_0))
    assert change.norm(dim=1).min() > 0.1


BATCHES = {
    "one prompt": Condition("a mug", "blurry", camera=orbit(10.0, 80.0, 100.0, 190.0)),
    "four prompts": Condition(["a mug", "a duck", "a mug", ""], camera=orbit(10.0, 80.0, 100.0, 190.0)),
    "overhead": Condition("a mug", camera=orbit(10.0, 80.0, 100.0, 190.0, elevation=70.0)),
}


@pytest.mark.parametrize("asked", BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize("interpolate", [False, True])
def test_a_batch_is_its_rows_one_by_one(asked: Condition, interpolate: bool) -> None:
    x_t, t = diffused(4, 6)
    guidance = ViewPerpNeg(7.5, ViewPrompts(interpolate=interpolate))
    together = guidance(Embedding(), x_t, t, asked).epsilon
    for row in range(4):
        i = torch.tensor([row])
        torch.testing.assert_close(guidance(Embedding(), x_t[i], t[i], asked[i]).epsilon, together[i])


def test_all_views_are_embedded_in_one_call_and_old_embeddings_make_no_difference() -> None:
    x_t, t = diffused(3, 6)
    teacher, guidance = Embedding(), ViewPerpNeg(7.5)
    asked = Condition("a mug", camera=orbit(10.0, 80.0, 100.0))
    plain = guidance(teacher, x_t, t, asked).epsilon
    assert teacher.read == [texts_of(guidance, "a mug"), [""] * 3]  # the second is the unconditional branch
    told = teacher.encode_prompt(asked, 3)
    assert torch.equal(guidance(teacher, x_t, t, told).epsilon, plain)


def test_perp_negs_negatives_do_not_inherit_the_positives_embeddings() -> None:
    x_t, t = diffused(2, 6)
    guidance, asked = PerpNeg(7.5, {"blurry": -1.0}), Condition("a mug")
    expected = guidance(Embedding(), x_t, t, asked).epsilon
    told = Embedding().encode_prompt(asked, 2)
    torch.testing.assert_close(guidance(Embedding(), x_t, t, told).epsilon, expected)
    assert (expected - CFG(7.5)(Embedding(), x_t, t, asked).epsilon).abs().max() > 0.1


def test_the_gallery_gets_prompts_of_its_vocabulary() -> None:
    teacher, guidance = Gallery(), ViewPerpNeg(7.5)
    x_t, t = diffused(4, 3, 8, 8)
    asked = Condition("a mug", camera=orbit(0.0, 80.0, 100.0, 180.0))
    ours = guidance(teacher, x_t, t, asked).epsilon
    for row in range(4):
        i = torch.tensor([row])
        torch.testing.assert_close(guidance(teacher, x_t[i], t[i], asked[i]).epsilon, ours[i])
    weights = guidance.weights(asked.camera.azimuth, asked.camera.elevation)  # type: ignore[union-attr]
    for row, view in enumerate(["front", "side", "side", "back"]):
        i = torch.tensor([row])
        own = PerpNeg(7.5, {f"a mug, {w} view": float(weights[row, k]) for k, w in enumerate(["front", "side"])})
        expected = own(teacher, x_t[i], t[i], asked[i].with_prompt(f"a mug, {view} view")).epsilon
        torch.testing.assert_close(ours[i], expected)
    assert (ours - CFG(7.5)(teacher, x_t, t, asked).epsilon).flatten(1).norm(dim=1).min() > 1


@pytest.mark.parametrize("asked", [None, Condition("a mug"), Condition(camera=orbit(0.0))])
def test_it_needs_a_prompt_and_cameras(asked: Condition | None) -> None:
    with pytest.raises(ValueError, match="needs a condition with a prompt and cameras"):
        ViewPerpNeg(7.5)(Embedding(), *diffused(1, 6), asked)


@pytest.mark.parametrize("f", [(-1.0, 0.5, 1.0), (1.0, -0.5, 0.0), (1.0, 0.5, -0.61)])
def test_weights_that_rise_or_change_sign_are_refused(f: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="f_sb needs a, b >= 0"):
        ViewPerpNeg(7.5, f_sb=f)
