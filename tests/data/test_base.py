"""Behavior that all sources share."""

import pytest
import torch
from data.pictures_on_disk import rng
from torch import Tensor

from scoredistill.data import DigitImages, GalleryImages, ImageSource, LatentCache, TeacherSamples
from scoredistill.teachers import GaussianMixture


class Ramp(ImageSource):
    """Picture i has the value i / 10 everywhere and class i mod 3."""

    def __init__(self, count: int = 10, threads: int = 1) -> None:
        super().__init__((1, 2, 2), 3)
        self.count, self.threads = count, threads

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.full((1, 2, 2), self._checked(index) / 10), index % 3


class Bare(ImageSource):
    """A source that states neither shape nor classes."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> tuple[Tensor, None]:
        return torch.full((1, 2, 2), index / 4), None


def mixture() -> GaussianMixture:
    return GaussianMixture(torch.tensor([[0.0, 0.0], [3.0, 3.0]]), 0.1, labels=torch.tensor([0, 1]))


@pytest.fixture(params=["ramp", "threads", "bare", "digits", "gallery", "points", "latents"])
def source(request, tmp_path) -> ImageSource:  # type: ignore[no-untyped-def]
    return {
        "ramp": lambda: Ramp(),
        "threads": lambda: Ramp(threads=3),
        "bare": lambda: Bare(),
        "digits": lambda: DigitImages(),
        "gallery": lambda: GalleryImages(["a red mug", "a torus"], 8, 12),
        "points": lambda: TeacherSamples(mixture(), 20),
        "latents": lambda: LatentCache(Ramp(), torch.neg, tmp_path, name="minus"),
    }[request.param]()


def test_all_methods_of_reading_agree(source: ImageSource) -> None:
    samples, labels = source.all()
    assert samples.shape == (len(source), *source.shape)
    assert samples.dtype == torch.float64
    chosen = torch.tensor([len(source) - 1, 0, 0, 2])
    again, own = source.take(chosen)
    assert torch.equal(again, samples[chosen])
    for row, index in enumerate(chosen.tolist()):
        sample, label = source[index]
        assert torch.equal(sample, again[row])
        assert label == (None if labels is None else labels[index])
    assert (labels is None) == (own is None) == (source.classes is None)
    if labels is not None and own is not None:
        assert torch.equal(own, labels[chosen])
        assert (labels.dtype, int(labels.min()) >= 0, int(labels.max()) < source.classes) == (torch.long, True, True)


def test_draws_are_a_function_of_the_generator(source: ImageSource) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    (first, _), (again, _), (other, _) = (source.draw(12, rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_an_empty_selection_is_an_empty_batch(source: ImageSource) -> None:
    samples, labels = source.take(torch.tensor([], dtype=torch.long))
    assert samples.shape == (0, *source.shape)
    assert (labels is None) == (source.classes is None)


def test_an_index_out_of_range_is_an_error(source: ImageSource) -> None:
    if isinstance(source, Bare):
        pytest.skip("checks nothing itself")
    for index in (-1, len(source)):
        with pytest.raises(IndexError, match=rf"has samples 0 to {len(source) - 1}, got index {index}"):
            source[index]


def test_draws_are_uniform() -> None:
    n = 20_000
    samples, _ = Ramp(10).draw(n, rng())
    counts = torch.bincount((samples[:, 0, 0, 0] * 10).round().long(), minlength=10)
    assert ((counts - n / 10).abs() < 4 * (n * 0.09) ** 0.5).all()


def test_fingerprints_differ_by_content() -> None:
    class Shifted(Ramp):
        __qualname__ = Ramp.__qualname__

        def __getitem__(self, index: int) -> tuple[Tensor, int]:
            picture, label = super().__getitem__(index)
            return picture + 0.01, label

    prints = [source.fingerprint() for source in (Ramp(), Ramp(), Ramp(11), Shifted(), Bare())]
    assert (prints[0] == prints[1], len(set(prints))) == (True, 4)


def test_a_fingerprint_does_not_depend_on_the_default_type(source: ImageSource) -> None:
    if isinstance(source, LatentCache):
        pytest.skip("is named after its source")
    there = source.fingerprint()
    torch.set_default_dtype(torch.float32)
    assert source.fingerprint() == there
