"""Sources that need no files: digits, the Gallery's pictures, samples of a mixture."""

import sys

import pytest
import torch
from data.pictures_on_disk import rng

from scoredistill.data import DigitImages, GalleryImages, TeacherSamples
from scoredistill.rendering.camera import Camera
from scoredistill.teachers import Digits, Gallery, GaussianMixture


def test_digits_are_those_of_the_teacher() -> None:
    samples, labels = DigitImages().all()
    teacher = Digits()
    assert torch.equal(samples.flatten(1), teacher.means)
    assert torch.equal(labels, teacher.labels)
    assert (float(samples.min()), float(samples.max())) == (-1, 1)


def test_digits_need_scikit_learn(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"install scoredistill\[digits\]"):
        DigitImages()


PROMPTS = ["a red mug", "a torus"]


def test_classes_are_prompts_and_variants_are_balanced() -> None:
    source = GalleryImages(PROMPTS, 16, 16, azimuth=(30, 30), elevation=(10, 10))
    samples, labels = source.all()
    assert labels.tolist() == [0, 1] * 8
    camera = Camera.orbit(*(torch.tensor([value], dtype=torch.float32) for value in (30.0, 10.0, 2.6, 40.0)))
    for label, prompt in enumerate(PROMPTS):
        expected = Gallery().renders(prompt, camera, 16, 16).rgb[0].double()
        distance = (samples[labels == label][:, None] - expected).abs().amax((2, 3, 4))
        assert (distance.min(1).values <= 1 / 255 + 1e-6).all()  # the nearest of 256 levels
        assert torch.bincount(distance.argmin(1)).tolist() == [8 // len(expected)] * len(expected)


def test_pictures_do_not_depend_on_the_order_of_access() -> None:
    forwards, backwards, other = (GalleryImages(PROMPTS, 8, 11, seed) for seed in (3, 3, 4))
    last = [backwards[index][0] for index in reversed(range(11))][::-1]
    assert torch.equal(torch.stack(last), forwards.all()[0])
    torch.set_default_dtype(torch.float32)
    single = GalleryImages(PROMPTS, 8, 11, 3).all()[0]
    assert single.dtype == torch.float32
    torch.testing.assert_close(single, torch.stack(last).float(), atol=1e-7, rtol=0)  # the same bytes
    assert not torch.equal(other.all()[0], single)


def test_variants_occur_in_proportion_to_their_weights(monkeypatch) -> None:
    source = GalleryImages(["a mug"], 8, 400)
    source._weights = [torch.tensor([0.7, 0.3, 0.0, 0.0], dtype=torch.float64)]
    frames = torch.arange(4.0)[:, None, None, None].expand(4, 3, 8, 8) / 4  # recognizable variants, quick to render

    class Frames:
        def renders(self, *args):  # type: ignore[no-untyped-def]
            return type("Render", (), {"rgb": frames[None]})

    source.gallery = Frames()
    variant = (source.all()[0][:, 0, 0, 0] * 4).round().long()
    # Of a camera's four pictures between two and three are of the first variant.
    shares = torch.bincount(variant, minlength=4) / 400
    assert abs(float(shares[0]) - 0.7) < 3 * 0.5 / 4 / 100**0.5
    assert shares[2:].tolist() == [0, 0]


def test_prompts_outside_the_vocabulary_are_refused() -> None:
    with pytest.raises(ValueError, match="unicorn"):
        GalleryImages(["a unicorn"])
    for prompts in ([], "a mug"):
        with pytest.raises(ValueError, match="prompts: expected a list of at least one"):
            GalleryImages(prompts, count=4)


def mixture(labels: bool = True) -> GaussianMixture:
    means = torch.tensor([[0.0, 0.0], [9.0, 9.0], [0.0, 9.0]])
    return GaussianMixture(means, 0.1, labels=torch.tensor([2, 0, 2]) if labels else None)


def test_samples_without_end_are_new_and_labeled_by_component() -> None:
    teacher = mixture()
    source = TeacherSamples(teacher)
    x, label = source.draw(300, rng())
    nearest = torch.cdist(x, teacher.means).argmin(1)
    assert torch.equal(label, teacher.labels[nearest])
    assert (source.classes, source.shape, len(x.unique(dim=0))) == (3, (2,), 300)
    assert TeacherSamples(mixture(labels=False)).draw(3, rng())[1] is None
    for ask in (len, lambda endless: endless.all(), lambda endless: endless.take(torch.tensor([0]))):
        with pytest.raises(TypeError, match="has no end: use draw, or set count"):
            ask(source)


def test_a_fixed_set_is_reused() -> None:
    source = TeacherSamples(mixture(), 5, seed=3)
    assert torch.equal(source.all()[0], TeacherSamples(mixture(), 5, seed=3).all()[0])
    assert not torch.equal(source.all()[0], TeacherSamples(mixture(), 5, seed=4).all()[0])
    assert len(source.draw(100, rng())[0].unique(dim=0)) == 5
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        TeacherSamples(mixture(), 0)


def test_view_words_add_captions_and_their_pictures_show_that_view():
    source = GalleryImages(["a red mug", "a tree"], 16, 12, view_words=["front", "back"])
    plain = ("a red mug", "a tree")
    assert source.prompts == (*plain, *(f"{p}, front view" for p in plain), *(f"{p}, back view" for p in plain))
    assert source.classes == 6
    named = GalleryImages(list(source.prompts), 16, 12)
    assert torch.equal(named.all()[0], source.all()[0])
