"""View words: which camera gets which, and how their embeddings are blended."""

import pytest
import torch
from torch import Tensor

from scoredistill.diffusion import ViewPrompts
from scoredistill.diffusion.view_prompts import blend, from_front, shares
from scoredistill.rendering.camera import Camera
from scoredistill.teachers.gallery.views import obey
from scoredistill.types import TextEmbeddings

VIEWS = ("front", "side", "back", "overhead")


def orbit(azimuth: Tensor, elevation: float | Tensor = 15.0) -> Camera:
    return Camera.orbit(azimuth, azimuth * 0 + elevation, azimuth * 0 + 2.6, azimuth * 0 + 40)


def embeddings(rows: int, seed: int = 0) -> TextEmbeddings:
    rng = torch.Generator().manual_seed(seed)
    tokens, pooled = torch.randn(rows, 3, 2, generator=rng), torch.randn(rows, 4, generator=rng)
    return TextEmbeddings(tokens, pooled, (torch.rand(rows, 3, generator=rng) > 0.5).long())


@pytest.mark.parametrize(
    ("azimuth", "elevation", "view"),
    [
        (0.0, 0.0, "front"), (44.0, 0.0, "front"), (-44.0, 59.0, "front"), (316.0, -80.0, "front"),
        (360.0, 0.0, "front"),
        (46.0, 0.0, "side"), (90.0, 30.0, "side"), (134.0, 0.0, "side"), (226.0, 0.0, "side"), (270.0, 0.0, "side"),
        (-90.0, 0.0, "side"), (136.0, 0.0, "back"), (180.0, 0.0, "back"), (-180.0, 59.0, "back"), (224.0, 0.0, "back"),
        (0.0, 61.0, "overhead"), (90.0, 90.0, "overhead"), (180.0, 75.0, "overhead"),
    ],
)  # fmt: skip
def test_the_view_of_a_camera(azimuth: float, elevation: float, view: str) -> None:
    camera = orbit(torch.tensor([azimuth]), elevation)
    assert ViewPrompts().text("a mug", camera) == (f"a mug, {view} view",)


def test_the_limits_belong_to_front_back_and_overhead() -> None:
    views = ViewPrompts(front_threshold=30, back_threshold=60, overhead_threshold=50)
    azimuth, elevation = torch.tensor([30.0, 330.0, 120.0, 240.0, 90.0, 31.0]), torch.tensor([0, 0, 0, 0, 50.0, 49.9])
    assert [VIEWS[i] for i in views.chosen(azimuth, elevation)] == [
        "front",
        "front",
        "back",
        "back",
        "overhead",
        "side",
    ]


def test_the_default_words_match_the_gallerys_views() -> None:
    rng = torch.Generator().manual_seed(0)
    azimuth, elevation = 360 * torch.rand(200, generator=rng), 180 * torch.rand(200, generator=rng) - 90
    camera = orbit(azimuth, elevation)
    for row, text in enumerate(ViewPrompts().text("a mug", camera)):
        own = camera[torch.tensor([row])]
        assert torch.equal(obey(own, text.split()[-2]).pose, own.pose)  # type: ignore[arg-type]


def test_texts_of_one_prompt_and_of_several() -> None:
    views = ViewPrompts(side=" from the side")
    assert views.texts("a mug")[1:3] == ["a mug from the side", "a mug, back view"]
    assert views.texts(["a mug", ""])[0] == ("a mug, front view", "")
    assert views.texts("") == [""] * 4
    camera = orbit(torch.tensor([0.0, 90.0, 180.0]))
    assert views.text(["a", "", "c"], camera) == ("a, front view", "", "c, back view")


def test_interpolated_weights_are_exact_at_the_views_and_symmetric() -> None:
    views = ViewPrompts(interpolate=True)
    azimuth = torch.tensor([0.0, 90.0, 180.0, 270.0, 360.0, -90.0, 45.0, 150.0])
    weights = views.weights(azimuth, torch.zeros(8))
    whole = torch.eye(4)[[0, 1, 2, 1, 0, 1]]
    assert torch.equal(weights[:6], whole)
    torch.testing.assert_close(weights[6:], torch.tensor([[0.5, 0.5, 0, 0], [0, 1 / 3, 2 / 3, 0]]))
    torch.testing.assert_close(views.weights(-azimuth, torch.zeros(8)), weights)


@pytest.mark.parametrize("interpolate", [False, True])
def test_weights_sum_to_one_and_overhead_is_not_blended(interpolate: bool) -> None:
    azimuth = torch.linspace(-360, 720, 1081)
    views = ViewPrompts(interpolate=interpolate)
    weights = views.weights(azimuth, azimuth * 0)
    torch.testing.assert_close(weights.sum(1), torch.ones(1081), rtol=0, atol=1e-15)
    assert weights.min() >= 0
    assert torch.equal(views.weights(azimuth, azimuth * 0 + 60), torch.eye(4)[3].expand(1081, 4))


def test_interpolated_weights_are_continuous() -> None:
    azimuth = torch.linspace(-10, 370, 3801)
    steps = shares(azimuth).diff(dim=0).abs()
    assert steps.max() == pytest.approx(0.1 / 90)
    assert from_front(azimuth).diff().abs().max() == pytest.approx(0.1)


def test_a_blend_is_the_weighted_sum_of_its_parts() -> None:
    parts = [embeddings(3, seed) for seed in range(4)]
    weights = torch.tensor([[0.0, 1, 0, 0], [0.25, 0.75, 0, 0], [0.0, 0.0, 0.0, 1.0]])
    mixed = blend(parts, weights)
    assert mixed.pooled is not None
    assert mixed.mask is not None
    for row, view in ((0, 1), (2, 3)):
        for name in ("tokens", "pooled", "mask"):
            assert torch.equal(getattr(mixed, name)[row], getattr(parts[view], name)[row])
    torch.testing.assert_close(mixed.tokens[1], 0.25 * parts[0].tokens[1] + 0.75 * parts[1].tokens[1])
    torch.testing.assert_close(mixed.pooled[1], 0.25 * parts[0].pooled[1] + 0.75 * parts[1].pooled[1])  # type: ignore[index]
    assert torch.equal(mixed.mask[1], parts[0].mask[1] | parts[1].mask[1])  # type: ignore[index]


def test_half_precision_stays_half_and_its_weights_sum_to_one() -> None:
    part = TextEmbeddings(torch.full((1, 1, 8), 1.0, dtype=torch.bfloat16))
    weights = ViewPrompts(interpolate=True).weights(torch.tensor([37.0]), torch.zeros(1))
    mixed = blend([part] * 4, weights)
    assert mixed.tokens.dtype == torch.bfloat16
    assert torch.equal(mixed.tokens, part.tokens)
    assert (mixed.pooled, mixed.mask) == (None, None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"front_threshold": 0.0}, r"front_threshold must lie in \(0, 180\), got 0"),
        ({"front_threshold": 100.0, "back_threshold": 81.0}, "at most 180"),
        ({"overhead_threshold": 91.0}, r"overhead_threshold must lie in \(0, 90\]"),
    ],
)
def test_impossible_thresholds_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ViewPrompts(**settings)  # type: ignore[arg-type]
