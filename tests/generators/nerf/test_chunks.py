"""Rays in chunks: the same pictures and gradients in bounded memory."""

import os
import subprocess
import sys

import pytest
import torch
from generators.nerf.test_nerf import batch, count_points, orbit, rng, small

from scoredistill.generators.fields import DenseGrid
from scoredistill.generators.nerf import Entropy, NeRF, Opacity, Orientation, Sparsity, TotalVariation, ZVariance

ALL = (Orientation(0.1), Entropy(0.1), ZVariance(0.1), Sparsity(0.1), Opacity(0.1), TotalVariation(0.1))


def gradients_with_penalties(nerf: NeRF) -> list[torch.Tensor]:
    sample = nerf(batch(), rng(2))
    total = (sample.x * torch.linspace(-1, 1, sample.x.numel()).view_as(sample.x)).sum()
    if sample.regularizer is not None:
        total = total + sample.regularizer
    return [sample.x, total, *torch.autograd.grad(total, list(nerf.parameters()))]


@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("regularizers", [(), ALL])
def test_chunks_bound_the_number_of_points_and_give_the_same_result(regularizers, skip):
    whole = small(regularizers=regularizers, skip=skip)
    chunked = small(chunk=1000, regularizers=regularizers, skip=skip)
    calls, before = count_points(chunked), rng(1)
    for nerf in (whole, chunked):
        nerf.on_progress(0, 0.0, before.manual_seed(1))
    calls.clear()
    for a, b in zip(gradients_with_penalties(whole), gradients_with_penalties(chunked), strict=True):
        torch.testing.assert_close(a, b)
    assert max(calls) <= 1000
    assert len(calls) > 4
    a, b = whole.render(orbit(), 16, 16), chunked.render(orbit(), 16, 16)
    for name in ("rgb", "opacity", "depth", "normals"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name))


def test_at_least_one_ray_of_all_particles_is_marched_at_a_time():
    whole, chunked = small(resolution=3, samples=16), small(resolution=3, samples=16, chunk=1)
    calls = count_points(chunked)
    for a, b in zip(gradients_with_penalties(whole), gradients_with_penalties(chunked), strict=True):
        torch.testing.assert_close(a, b)
    assert max(calls) == 2 * 16


def held(nerf: NeRF, run) -> int:
    """The maximum number of bytes that the autograd graph of one training step holds."""
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        run()
    return sum(kept.values())


def test_a_graph_keeps_memory_of_a_picture_and_not_of_its_samples():
    nerfs = {chunk: small(chunk=chunk, skip=False, resolution=24, encoding=DenseGrid(4)) for chunk in (2000, 2**20)}
    kept = {chunk: held(nerf, lambda nerf=nerf: nerf(batch(), rng())) for chunk, nerf in nerfs.items()}
    assert kept[2000] < kept[2**20] / 10


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the unit of ru_maxrss")
def test_memory_of_a_picture_follows_the_chunk():
    program = """
import resource, sys, torch
from scoredistill.generators.fields import DenseGrid
from scoredistill.generators.nerf import NeRF
from scoredistill.rendering.camera import Camera
torch.set_num_threads(1)
one = torch.ones(1)
camera = Camera.orbit(30 * one, 10 * one, 2.5 * one, 40 * one)
nerf = NeRF(1, DenseGrid(8), skip=False, chunk=2**13)
nerf.render(camera, 8, 8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
nerf.render(camera, 96, 96)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    # 590,000 samples of 170 bytes or more would be 100 MB.
    assert int(done.stdout) < 40 * 1024
