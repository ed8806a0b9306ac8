"""Cached latents."""

import functools

import pytest
import torch
from data.test_base import Bare, Ramp, mixture
from torch import Tensor, nn

from scoredistill.data import LatentCache, TeacherSamples
from scoredistill.data.latents import encoder_name


def halves(pictures: Tensor) -> Tensor:
    return pictures.flatten(1)[:, :2] / 2


class Counted(nn.Module):
    """An encoder that counts calls and raises an error at a given one."""

    def __init__(self, stop_at: int | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((), 0.5))
        self.calls, self.stop_at = 0, stop_at

    def forward(self, pictures: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == self.stop_at:
            raise KeyboardInterrupt
        return self.weight * pictures.flatten(1)[:, :2]


def test_latents_are_those_of_the_encoder_with_the_source_labels(tmp_path) -> None:
    cache = LatentCache(Ramp(), halves, tmp_path / "deep" / "cache", batch=2, shard=4)
    latents, labels = cache.all()
    assert torch.equal(latents, halves(Ramp().all()[0]))
    assert torch.equal(labels, Ramp().all()[1])
    assert (cache.shape, cache.classes, len(cache)) == ((2,), 3, 10)
    assert len(list(cache.folder.iterdir())) == 3
    bare = LatentCache(Bare(), halves, tmp_path / "bare")
    assert (bare.all()[1], bare.classes) == (None, None)


def test_a_full_cache_is_not_encoded_again(tmp_path) -> None:
    first, again = Counted(), Counted()
    LatentCache(Ramp(), first, tmp_path, batch=2, shard=4).prepare()
    latents = LatentCache(Ramp(), again, tmp_path, batch=2, shard=4).all()[0]
    assert (first.calls, again.calls) == (5, 0)
    assert not latents.requires_grad


def test_an_interrupted_cache_resumes_with_the_same_files(tmp_path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    LatentCache(Ramp(), Counted(), whole, batch=2, shard=4).prepare()
    with pytest.raises(KeyboardInterrupt):
        LatentCache(Ramp(), Counted(stop_at=4), cut, batch=2, shard=4).prepare()
    assert len(list(cut.iterdir())) == 1
    resumed = Counted()
    LatentCache(Ramp(), resumed, cut, batch=2, shard=4).prepare()
    assert resumed.calls == 3  # two batches of the second file, one of the last
    files = sorted(path.name for path in whole.iterdir())
    assert files == sorted(path.name for path in cut.iterdir())
    assert all((whole / name).read_bytes() == (cut / name).read_bytes() for name in files)


def test_one_folder_holds_caches_of_several_sources_and_encoders(tmp_path) -> None:
    other = Counted()
    with torch.no_grad():
        other.weight.fill_(0.25)
    for source, encode, shard in [(Ramp(), Counted(), 4), (Ramp(9), Counted(), 4), (Ramp(), other, 4)]:
        cache = LatentCache(source, encode, tmp_path, shard=shard)
        assert torch.equal(cache.all()[0], encode(source.all()[0]))
    LatentCache(Ramp(), Counted(), tmp_path, shard=5).prepare()
    assert len({path.name.partition("-")[0] for path in tmp_path.iterdir()}) == 4


def test_encoders_are_distinguished_by_name_and_weights() -> None:
    network = Counted()
    assert encoder_name(network) == encoder_name(Counted()) != encoder_name(network.forward)
    assert encoder_name(halves) == f"{__name__}.halves"
    for nameless in (lambda x: x, functools.partial(halves), Ramp().take):
        with pytest.raises(ValueError, match="set LatentCache's name"):
            encoder_name(nameless)


def test_sources_that_cannot_be_cached_are_errors(tmp_path) -> None:
    with pytest.raises(ValueError, match="source: TeacherSamples has no end"):
        LatentCache(TeacherSamples(mixture()), halves, tmp_path)
    with pytest.raises(ValueError, match="batch must be at least 1, got 0"):
        LatentCache(Ramp(), halves, tmp_path, batch=0)
    with pytest.raises(ValueError, match="minus returned 1 latents for 10 pictures"):
        LatentCache(Ramp(), lambda x: x[:1], tmp_path, name="minus").prepare()
    assert list(tmp_path.iterdir()) == []
