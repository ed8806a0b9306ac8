"""The classifier of the Gallery's prompts."""

from pathlib import Path

import pytest
import torch

from scoredistill.data import GalleryImages
from scoredistill.evaluation import PromptClassifier
from scoredistill.evaluation.prompt_classifier import corrupt

PROMPTS = ("a red mug", "a mushroom")


def small() -> PromptClassifier:
    return PromptClassifier(PROMPTS, resolution=16, pictures=40, steps=80)


@pytest.fixture(scope="module")
def fitted() -> PromptClassifier:
    return small().fit()


def test_the_classifier_generalizes_to_new_pictures(fitted: PromptClassifier) -> None:
    # 0.95 and 0.94 of eighty pictures, whose standard error is 0.025; guessing has one of 0.056 around 0.5.
    assert min(fitted.accuracy, fitted.accuracy_corrupted) > 0.9
    pictures, labels = GalleryImages(PROMPTS, 48, 16, seed=9).take(torch.arange(16))
    # At least thirteen of sixteen, which guessing reaches with a probability of 1%.
    assert float((fitted.recognize(pictures.double()) == labels).double().mean()) > 0.8
    assert fitted.features(pictures).shape == (16, 64)
    seen, _ = GalleryImages(PROMPTS, 16, 80, seed=0).take(torch.arange(80))
    assert float(fitted.features(seen).square().mean()) == pytest.approx(1, rel=1e-5)


def test_training_depends_on_its_seed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scoredistill.evaluation.prompt_classifier.CHECKED", 4)
    first, state = PromptClassifier(PROMPTS, 16, 8, 3).fit().state_dict(), torch.get_rng_state()
    with torch.inference_mode():
        again = PromptClassifier(PROMPTS, 16, 8, 3).fit().state_dict()
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, first[key]) for key, value in again.items())
    other = PromptClassifier(PROMPTS, 16, 8, 3, seed=1).fit().state_dict()
    assert not torch.equal(other["head.weight"], first["head.weight"])


def test_a_trained_classifier_is_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scoredistill.evaluation.prompt_classifier.CHECKED", 4)
    monkeypatch.setattr(PromptClassifier.__init__, "__defaults__", (16, 8, 2, 0))
    first = PromptClassifier.cached(tmp_path / "kept", PROMPTS)
    monkeypatch.setattr(PromptClassifier, "fit", lambda self: pytest.fail("it was there already"))
    second = PromptClassifier.cached(tmp_path / "kept", PROMPTS)
    assert all(torch.equal(value, second.state_dict()[key]) for key, value in first.state_dict().items())
    assert second.accuracy == first.accuracy
    assert not any(parameter.requires_grad for parameter in second.parameters())
    assert len(list((tmp_path / "kept").iterdir())) == 1


def test_corrupted_pictures_keep_their_range_and_mean() -> None:
    x = GalleryImages(PROMPTS, 16, 8).take(torch.arange(8))[0].double()
    y = corrupt(x, torch.Generator().manual_seed(0))
    assert (y.shape, y.dtype) == (x.shape, x.dtype)
    assert float(y.abs().max()) <= 1
    # Noise alone changes a pixel by .1 in a picture of the middle strength; half of that in every picture.
    assert float((x - y).square().mean((1, 2, 3)).sqrt().min()) > 0.05
    # Contrast, saturation and blurring keep the mean; noise of up to .2 moves it by at most three standard errors.
    assert float((x - y).mean().abs()) < 3 * 0.2 / x.numel() ** 0.5


@pytest.mark.parametrize("prompts", ["a red mug", ["a red mug"], ["a red mug", "a red mug"]])
def test_fewer_than_two_different_prompts_are_refused(prompts: list[str]) -> None:
    with pytest.raises(ValueError, match="two or more different prompts"):
        PromptClassifier(prompts)


def test_prompts_outside_the_gallery_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown word 'unicorn'"):
        PromptClassifier(["a unicorn", "a red mug"]).fit()
