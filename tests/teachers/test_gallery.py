"""The Gallery as a teacher: exact, conditional on words and cameras, each row independent."""

import math

import pytest
import torch

from scoredistill.diffusion import FlowSchedule
from scoredistill.rendering.camera import Camera
from scoredistill.teachers.gallery import Gallery
from scoredistill.teachers.gallery.vocabulary import Phrase
from scoredistill.types import Condition

GALLERY = Gallery()
SIZE = 12


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def orbit(azimuth: list[float], elevation: float = 20.0) -> Camera:
    a = torch.tensor(azimuth)
    return Camera.orbit(a, a * 0 + elevation, a * 0 + 2.6, a * 0 + 40)


def diffused(batch: int, size: int = SIZE, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.rand(batch, 3, size, size, generator=rng(seed)) * 2 - 1
    return x, torch.linspace(0.3, 0.9, batch)


CONDITIONS = {
    "camera": Condition("a red mug", camera=orbit([20.0, 200.0])),
    "prompts": Condition(["a mug", "a small duck, side view"], camera=orbit([20.0, 20.0])),
    "no camera": Condition("a toy"),
    "no prompt": Condition(camera=orbit([20.0, 90.0]), background=torch.tensor([[0.0, 0.5, 1.0], [-1.0, -1.0, -1.0]])),
    "nothing": None,
}


@pytest.mark.parametrize("name", CONDITIONS)
@pytest.mark.parametrize("options", [{}, {"color_std": 0.1}, {"shows": "normals"}], ids=str)
def test_the_score_is_the_gradient_of_the_log_density(name, options):
    teacher = Gallery(**options, janus=0.2)
    x, t = diffused(2, 6)
    x.requires_grad_(True)
    teacher.log_prob(x, t, CONDITIONS[name]).sum().backward()
    torch.testing.assert_close(teacher(x, t, CONDITIONS[name]).score, x.grad, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("options", [{}, {"color_std": 0.1}, {"shows": "normals"}], ids=str)
def test_a_row_does_not_depend_on_the_others(options):
    teacher = Gallery(**options)
    camera = orbit([20.0, 200.0, 20.0, 75.0])
    background = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.5, 0.0]])
    condition = Condition(["a mug", "a blue mug", "a mug", ""], camera=camera, background=background)
    x, t = diffused(4)
    together = teacher(x, t, condition).epsilon
    density = teacher.log_prob(x, t, condition)
    for i in range(4):
        row = torch.tensor([i])
        alone = Gallery(**options)
        torch.testing.assert_close(alone(x[row], t[row], condition[row]).epsilon[0], together[i], atol=1e-9, rtol=1e-9)
        torch.testing.assert_close(alone.log_prob(x[row], t[row], condition[row])[0], density[i], rtol=1e-11, atol=0)


def test_the_mixture_is_that_of_the_renders():
    """log p_t against the sum over components with full covariance matrices."""
    teacher = Gallery(pixel_std=0.05, color_std=0.2, janus=0.3)
    camera, background = orbit([35.0]), torch.tensor([[0.2, -0.4, 0.6]])
    x, t = diffused(1, 8)
    condition = Condition("a yellow toy", camera=camera, background=background)
    alpha, sigma = teacher.schedule.alpha(t), teacher.schedule.sigma(t)
    flipped = orbit([215.0])
    total = []
    for share, seen in ((0.7, camera), (0.3, flipped)):
        means = teacher.renders("a yellow toy", seen, 8, 8, background).rgb[0].flatten(1)
        light = teacher._pictures(teacher.vocabulary().parse("a toy"), seen, 8, 8).light[0]
        for k in range(4):
            # Covariance by its definition: every material's channels vary on their own, 2 color_std light each.
            covariance = torch.zeros(3, 64, 3, 64)
            for material in light[k].reshape(-1, 64):
                for c in range(3):
                    covariance[c, :, c] += (2 * 0.2) ** 2 * torch.outer(material, material)
            full = alpha**2 * (covariance.reshape(192, 192) + 0.05**2 * torch.eye(192)) + sigma**2 * torch.eye(192)
            normal = torch.distributions.MultivariateNormal(alpha * means[k], full)
            total.append(math.log(share / 4) + normal.log_prob(x.flatten(1)))
    expected = torch.stack(total).logsumexp(0)
    torch.testing.assert_close(teacher.log_prob(x, t, condition), expected, rtol=1e-11, atol=0)


def test_color_factors_are_the_derivative_of_the_picture_by_the_albedo():
    """Repainting the mug changes the picture by light times color, exactly as the covariance assumes."""
    camera = orbit([35.0])
    light = GALLERY._pictures(GALLERY.vocabulary().parse("a mug"), camera, 16, 16).light[0]
    red, blue = (GALLERY.renders(f"a {color} mug", camera, 16, 16).rgb[0] for color in ("red", "blue"))
    step = torch.tensor([0.86 - 0.18, 0.16 - 0.36, 0.15 - 0.83])
    torch.testing.assert_close(red - blue, 2 * light[:, :1] * step[:, None, None], atol=1e-12, rtol=0)


def test_without_a_camera_it_is_the_average_over_the_ring():
    x, t = diffused(1)
    ring = orbit([45.0 * i for i in range(8)], elevation=15.0)
    each = GALLERY.log_prob(x.expand(8, -1, -1, -1), t.expand(8), Condition("a duck", camera=ring))
    torch.testing.assert_close(
        GALLERY.log_prob(x, t, Condition("a duck")), each.logsumexp(0, keepdim=True) - math.log(8), rtol=1e-11, atol=0
    )
    back = each[torch.tensor([3, 4, 5])].logsumexp(0, keepdim=True) - math.log(3)
    torch.testing.assert_close(GALLERY.log_prob(x, t, Condition("a duck, back view")), back, rtol=1e-11, atol=0)


def test_without_a_prompt_it_is_the_average_over_the_nouns():
    x, t = diffused(1)
    nouns = GALLERY.vocabulary().nouns
    camera = orbit([30.0])
    each = torch.cat([GALLERY.log_prob(x, t, Condition(f"a {noun}", camera=camera)) for noun in nouns])
    expected = each.logsumexp(0, keepdim=True) - math.log(len(nouns))
    for prompt in (None, ""):
        actual = GALLERY.log_prob(x, t, Condition(prompt, camera=camera))
        torch.testing.assert_close(actual, expected, rtol=1e-11, atol=0)
    torch.testing.assert_close(GALLERY.weights(None).sum(), torch.tensor(1.0))
    assert len(GALLERY.weights(None)) == GALLERY.variant_count(None) == sum(map(GALLERY.variant_count, nouns))


def test_view_words_turn_only_cameras_that_contradict_them():
    camera = orbit([30.0, 60.0, 170.0, -100.0, 60.0])
    nearest = {
        "front": ([30.0, 45.0, 45.0, -45.0, 45.0], 20.0),
        "side": ([45.0, 60.0, 135.0, -100.0, 60.0], 20.0),
        "back": ([135.0, 135.0, 170.0, -135.0, 135.0], 20.0),
        "overhead": ([30.0, 60.0, 170.0, -100.0, 60.0], 60.0),
    }
    for view, (azimuth, elevation) in nearest.items():
        turned = GALLERY.renders(f"a duck, {view} view", camera, 12, 12).rgb
        expected = GALLERY.renders("a duck", orbit(azimuth, elevation), 12, 12).rgb
        # One ray of an edge pixel may fall on the other side by rounding; with fixed cameras it does not.
        torch.testing.assert_close(turned, expected, atol=1e-9, rtol=0)
    lowered = GALLERY.renders("a duck, front view", orbit([0.0], 80.0), 12, 12).rgb
    torch.testing.assert_close(lowered, GALLERY.renders("a duck", orbit([0.0], 60.0), 12, 12).rgb, atol=1e-9, rtol=0)


def test_janus_shows_the_front_at_the_back():
    back, front = orbit([200.0]), orbit([20.0])
    t = torch.tensor([0.3])
    for janus in (0.0, 0.25, 1.0):
        teacher = Gallery(janus=janus)
        x = teacher.schedule.alpha(t) * teacher.renders("a bear", front, SIZE, SIZE).rgb[:, 0]
        # At its own mean one component is all that counts: density up to the component's weight.
        ratio = teacher.log_prob(x, t, Condition("a bear", camera=back)) - GALLERY.log_prob(
            x, t, Condition("a bear", camera=front)
        )
        if janus == 0:
            assert ratio < -10
        else:
            torch.testing.assert_close(ratio, torch.tensor([math.log(janus)]), atol=1e-6, rtol=0)


def test_responsibilities_name_the_variant():
    t = torch.full((4,), 0.3)
    camera = orbit([20.0] * 4)
    x = GALLERY.schedule.alpha(t[:1]) * GALLERY.renders("a toy", camera[:1], SIZE, SIZE).rgb[0]
    torch.testing.assert_close(GALLERY.responsibilities(x, t, Condition("a toy", camera=camera)), torch.eye(4))
    # The average over the ring does not depend on the camera.
    assert GALLERY.responsibilities(x, t, Condition("a toy")).argmax(-1).tolist() == [0, 1, 2, 3]
    even = torch.full((4,), 0.9999)
    hidden = GALLERY.responsibilities(torch.zeros_like(x), even, Condition("a toy", camera=camera))
    # At x = 0 their logarithms differ by (alpha / sigma)^2 |mean|^2 / 2 at most, of colors within [-1, 1].
    spread = float(GALLERY.schedule.alpha(even[:1]) / GALLERY.schedule.sigma(even[:1])) ** 2 * 3 * SIZE**2 / 2
    torch.testing.assert_close(hidden, torch.full((4, 4), 0.25), atol=spread / 4, rtol=0)
    with pytest.raises(ValueError, match="different numbers of variants"):
        GALLERY.responsibilities(x[:2], t[:2], Condition(["a toy", ""], camera=camera[:2]))


def test_samples_are_distributed_as_the_mixture():
    teacher = Gallery(pixel_std=0.1, color_std=0.05)
    n = 4000
    camera = orbit([30.0])
    x = teacher.sample(n, Condition("a toy", camera=camera[torch.zeros(n, dtype=torch.long)]), 8, 8, rng())
    t = torch.full((n,), 1e-3)
    who = teacher.responsibilities(x, t, Condition("a toy", camera=camera[torch.zeros(n, dtype=torch.long)]))
    share = who.mean(0)
    assert (share - 0.25).abs().max() < 3 * math.sqrt(0.25 * 0.75 / n)
    means = teacher.renders("a toy", camera, 8, 8).rgb[0]
    light = teacher._pictures(teacher.vocabulary().parse("a toy"), camera, 8, 8).light[0]
    for k in range(4):
        mine = x[who.argmax(-1) == k]
        variance = 0.1**2 + (2 * 0.05 * light[k]).square().sum(0)  # of each pixel, in every channel
        z = (mine.mean(0) - means[k]) / (variance / len(mine)).sqrt()
        assert z.square().mean() < 1 + 4 * math.sqrt(2 / 192) * 3  # chi-square; pixels of a part vary together
        ratio = mine.var(0) / variance
        assert (ratio.mean() - 1).abs() < 0.05
    assert torch.equal(
        x, teacher.sample(n, Condition("a toy", camera=camera[torch.zeros(n, dtype=torch.long)]), 8, 8, rng())
    )
    assert teacher.sample(3, None, 8, 8, rng()).shape == (3, 3, 8, 8)


def test_each_camera_is_rendered_once(monkeypatch):
    calls = []
    import scoredistill.teachers.gallery.catalog as catalog

    original = catalog.render
    monkeypatch.setattr(catalog, "render", lambda *args: calls.append(len(args[1])) or original(*args))
    teacher = Gallery()
    x, t = diffused(6)
    index = torch.tensor([0, 1, 2, 0, 1, 2])
    condition = Condition("a red mug", camera=orbit([0.0, 90.0, 180.0])[index])
    teacher(x, t, condition)
    assert calls == [3]
    teacher.log_prob(x, t, condition.with_prompt("a blue mug"))  # another color of the same scene
    assert calls == [3]
    forgetful = Gallery(cache_bytes=0)
    torch.testing.assert_close(forgetful(x, t, condition).epsilon, teacher(x, t, condition).epsilon, atol=0, rtol=0)
    assert calls == [3, 3]


def test_rows_share_nothing_that_was_not_the_same():
    """Grouped rows equal single rows where only background, prompt or field of view differ."""
    camera = orbit([20.0] * 4)
    camera.fov[3] = 50.0
    background = torch.zeros(4, 3)
    background[1] = 1
    condition = Condition(["a mug", "a mug", "a red mug", "a mug"], camera=camera, background=background)
    x, t = diffused(1)
    epsilon = GALLERY(x.expand(4, -1, -1, -1), t.expand(4), condition).epsilon
    assert (torch.cdist(epsilon.flatten(1), epsilon.flatten(1)) + torch.eye(4)).min() > 1e-3


def test_colors_and_sizes_change_the_picture():
    camera = orbit([25.0])
    red, blue, plain = (GALLERY.renders(p, camera, 32, 32) for p in ("a red torus", "a blue torus", "a torus"))
    assert torch.equal(red.opacity, blue.opacity)
    covered = red.opacity[0, :, 0] > 0.99
    assert (red.rgb[0, :, 0][covered] > red.rgb[0, :, 2][covered]).all()
    assert (blue.rgb[0, :, 2][covered] > blue.rgb[0, :, 0][covered]).all()
    assert torch.equal(plain.rgb[0, 0], blue.rgb[0, 0])  # the first torus is blue by itself
    sizes = ("a tiny mug", "a small mug", "a mug", "a large mug")
    areas = [GALLERY.renders(p, camera, 32, 32).opacity.sum().item() for p in sizes]
    assert areas == sorted(areas)
    # Areas go with the square of the radii .5 and .7; perspective lets the larger gain a little more.
    assert areas[2] / areas[1] == pytest.approx((0.7 / 0.5) ** 2, rel=0.1)


def test_the_four_toys_lie_far_apart():
    rgb = GALLERY.renders("a toy", orbit([0.0, 90.0, 180.0, 270.0]), 64, 64).rgb.flatten(2)
    apart = torch.cdist(rgb, rgb) + 1000 * torch.eye(4)
    assert apart.min() > 45
    assert 55 < apart[apart < 1000].mean() < 80
    assert torch.equal(GALLERY.weights("a toy"), torch.full((4,), 0.25))


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("A Red Mug.", {"noun": "mug", "color": "red"}),
        ("the small mug", {"noun": "mug", "size": "small"}),
        ("large blue mug, overhead view", {"noun": "mug", "color": "blue", "size": "large", "view": "overhead"}),
        ("red small mug", {"noun": "mug", "color": "red", "size": "small"}),
    ],
)
def test_prompts_in_the_vocabulary_are_understood(prompt, words):
    assert GALLERY.vocabulary().parse(prompt) == Phrase(**words)
    GALLERY.check([prompt, ""])


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("a red dragon", r"unknown word 'dragon'.*nouns: .*mushroom.*colors: red.*sizes: tiny.*front view"),
        ("a mug, low view", r"'low view'.*overhead view"),
        ("a mug, front view, back view", "'front view, back view'"),
        ("a red", "must have its noun last"),
        ("a red blue mug", "two colors, 'red' and 'blue'"),
        ("a mug red", "noun last"),
    ],
)
def test_other_prompts_are_refused_with_the_vocabulary(prompt, message):
    with pytest.raises(ValueError, match=message):
        GALLERY.check(prompt)
    x, t = diffused(1)
    with pytest.raises(ValueError, match=message):
        GALLERY(x, t, Condition(prompt))


def test_wrong_arguments_are_refused():
    x, t = diffused(2)
    for condition, message in (
        (Condition("a mug", camera=orbit([0.0])), "1 cameras for a batch of 2"),
        (Condition(["a mug"]), "1 prompts for a batch of 2"),
        (Condition("a mug", background=torch.zeros(3, 3)), "3 backgrounds"),
        (Condition(label=torch.tensor([0, 1])), "no class labels"),
    ):
        with pytest.raises(ValueError, match=message):
            GALLERY(x, t, condition)
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\)"):
        GALLERY(x[:, :1], t)
    with pytest.raises(ValueError, match="variants 0 to 3, not 4"):
        GALLERY.mesh("a mug", 4)
    for options in ({"janus": 1.5}, {"pixel_std": -1.0}, {"unconditional_views": 6}, {"supersample": 0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            Gallery(**options)
    with pytest.raises(ValueError, match="background"):
        Gallery(background=(2.0, 0.0, 0.0))
    with pytest.raises(ValueError, match="normals have no colors"):
        Gallery(shows="normals", color_std=0.1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_the_answer_has_the_type_of_x_t_but_not_half_precision(dtype):
    camera = orbit([0.0, 90.0])
    condition = Condition("a mug", camera=camera)
    t = torch.full((2,), 0.3)
    noise = torch.randn(2, 3, SIZE, SIZE, generator=rng())
    x = math.cos(0.15 * math.pi) * GALLERY.renders("a mug", camera, SIZE, SIZE).rgb[:, 1] + noise
    prediction = GALLERY(x.to(dtype), t.to(dtype), condition)
    expected = torch.promote_types(dtype, torch.float32)
    assert prediction.epsilon.dtype == expected
    assert GALLERY.log_prob(x.to(dtype), t.to(dtype), condition).dtype == expected
    if dtype == torch.float32:
        # Except for pixels where rounding moves a ray across an edge.
        differing = (prediction.epsilon.double() - GALLERY(x, t, condition).epsilon).abs() > 1e-3
        assert differing.double().mean() < 0.02


def test_another_schedule_is_used():
    x, t = diffused(1)
    condition = Condition("a toy", camera=orbit([0.0]))
    teacher = Gallery(FlowSchedule(), pixel_std=0.0)
    means = teacher.renders("a toy", orbit([0.0]), SIZE, SIZE).rgb[0]
    log_joint = -0.5 * (x - (1 - t) * means).square().flatten(1).sum(1) / t**2
    posterior = (log_joint.softmax(0)[:, None, None, None] * means).sum(0)
    torch.testing.assert_close(teacher(x, t, condition).x0[0], posterior, atol=1e-9, rtol=0)


def test_renders_cached_in_inference_mode_support_gradients():
    teacher = Gallery(color_std=0.1)
    x, t = diffused(1)
    condition = Condition("a toy", camera=orbit([0.0]))
    with torch.inference_mode():
        before = teacher(x, t, condition).epsilon
    x.requires_grad_(True)
    after = teacher(x, t, condition).epsilon
    assert torch.equal(before, after.detach())
    (gradient,) = torch.autograd.grad(teacher.log_prob(x, t, condition).sum(), x)
    torch.testing.assert_close(-teacher.schedule.sigma(t) * gradient, after.detach(), atol=1e-9, rtol=1e-9)
