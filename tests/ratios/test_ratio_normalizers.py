"""Normalizers of r and h: values, state, and several processes."""

import math
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from forks import torchrun
from torch import Tensor

from scoredistill import Distiller
from scoredistill.critics import ExactCritic
from scoredistill.diffusion import CosineSchedule
from scoredistill.distributed import BatchShard, is_distributed
from scoredistill.divergences import ForwardKL
from scoredistill.generators import ImageParticles
from scoredistill.losses import FDistill
from scoredistill.ratios import BatchMeanNormalizer, ClampRatio, ExactRatio, TimeBinNormalizer
from scoredistill.teachers import GaussianMixture
from scoredistill.types import Diffused, Sample
from scoredistill.types.batch import WHOLE

SCHEDULE = CosineSchedule()


def at_log_snr(*log_snr: float) -> Diffused:
    t = SCHEDULE.t_at_log_snr(torch.tensor(log_snr))
    x = torch.zeros(len(t), 1)
    return Diffused.diffuse(Sample(x), t, x, SCHEDULE)


def test_clamp() -> None:
    log_r = torch.tensor([-100.0, math.log(0.1), 0.0, 1.0, math.log(20), 100.0])
    r = ClampRatio()(log_r, at_log_snr(*[0.0] * 6)).exp()
    torch.testing.assert_close(r, torch.tensor([0.1, 0.1, 1.0, math.e, 20.0, 20.0]))
    with pytest.raises(ValueError, match="need low < high, got 2 and 1"):
        ClampRatio(2, 1)


def test_bins_lie_between_their_edges_and_the_outer_ones_take_the_rest() -> None:
    bins = TimeBinNormalizer(4, edges=[-4.0, 0.0, 4.0]).bin_of(
        at_log_snr(-30.0, -7.9, -4.1, -3.9, -0.1, 0.1, 4.1, 7.9, 30.0)
    )
    assert bins.tolist() == [0, 0, 0, 1, 1, 2, 3, 3, 3]


def test_forward_is_pure_and_observing_changes_only_the_statistics() -> None:
    normalizer, at = TimeBinNormalizer(2, edges=[0.0]), at_log_snr(-5.0, 5.0)
    log_r = torch.tensor([1.0, -2.0], requires_grad=True)
    assert torch.equal(normalizer(log_r, at), log_r)
    assert normalizer.count.tolist() == [0, 0]
    normalizer.observe(log_r, at)
    assert log_r.tolist() == [1.0, -2.0]
    assert normalizer.count.tolist() == [1, 1]
    before = {key: value.clone() for key, value in normalizer.state_dict().items()}
    torch.testing.assert_close(normalizer(log_r, at), torch.zeros(2))
    assert all(torch.equal(before[key], value) for key, value in normalizer.state_dict().items())
    assert not normalizer.log_mean.requires_grad


@pytest.mark.parametrize("default", [torch.float32, torch.float64])
def test_the_average_is_of_r_itself_and_starts_warm(default: torch.dtype) -> None:
    torch.set_default_dtype(default)
    decay, normalizer = 0.7, TimeBinNormalizer(1, decay=0.7)
    batches = torch.randn(8, 5, dtype=torch.float64)
    expected = torch.tensor(0.0, dtype=torch.float64)
    for i, log_r in enumerate(batches):
        fresh = max(1 / (i + 1), 1 - decay)
        expected = (1 - fresh) * expected + fresh * log_r.exp().mean()
        normalizer.observe(log_r, at_log_snr(*[0.0] * 5))
        torch.testing.assert_close(normalizer.log_mean.exp()[0], expected, rtol=1e-12, atol=0)
    assert normalizer.count.tolist() == [8]


def test_an_empty_bin_leaves_r_unchanged() -> None:
    normalizer = TimeBinNormalizer(4, edges=[-4.0, 0.0, 4.0])
    normalizer.observe(torch.tensor([3.0, 5.0]), at_log_snr(-5.0, -5.0))
    out = normalizer(torch.tensor([3.0, 3.0]), at_log_snr(-5.0, 5.0))
    mean = math.log((math.exp(3) + math.exp(5)) / 2)
    torch.testing.assert_close(out, torch.tensor([3.0 - mean, 3.0]))


def test_very_large_ratios_stay_finite() -> None:
    normalizer, at = TimeBinNormalizer(1), at_log_snr(0.0, 0.0)
    for _ in range(3):
        normalizer.observe(torch.tensor([800.0, 900.0]), at)
    torch.testing.assert_close(normalizer(torch.tensor([900.0, 0.0]), at), torch.tensor([0.0, -900.0]) + math.log(2))


def test_statistics_go_into_checkpoints() -> None:
    first, second, at = *(TimeBinNormalizer(3, edges=[-1.0, 1.0]) for _ in range(2)), at_log_snr(-5.0, 0.0, 5.0)
    for _ in range(4):
        first.observe(torch.randn(3), at)
    second.load_state_dict(first.state_dict())
    log_r = torch.randn(3)
    for normalizer in (first, second):
        normalizer.observe(log_r, at)
    assert torch.equal(first(log_r, at), second(log_r, at))


def test_batch_mean_is_one() -> None:
    h = torch.rand(7) + 0.1
    at = Diffused.diffuse(Sample(torch.zeros(7, 1)), 0.5, torch.zeros(7, 1), CosineSchedule())
    out = BatchMeanNormalizer()(h, at)
    assert float(out.mean()) == pytest.approx(1, abs=1e-15)
    torch.testing.assert_close(out / out[0], h / h[0])
    assert torch.equal(BatchMeanNormalizer()(h[:1], at), torch.ones(1))
    assert torch.equal(BatchMeanNormalizer()(torch.zeros(3), at), torch.zeros(3))


def gradient(x: Tensor, t: Tensor, epsilon: Tensor) -> Tensor:
    """The gradient of f-distill with h divided by its mean over the batch."""
    q = ExactCritic(GaussianMixture(torch.tensor([[0.5]], dtype=torch.float64), 0.8))
    loss = FDistill(ForwardKL(), q, ExactRatio(), weight_normalizer=BatchMeanNormalizer())
    teacher = GaussianMixture(torch.zeros(1, 1, dtype=torch.float64), 1.0)
    distiller = Distiller(ImageParticles(x), teacher, loss)
    distiller.shard = BatchShard() if is_distributed() else WHOLE
    return distiller.gradient(x, t=t, epsilon=epsilon)


def rows() -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    x, epsilon = (torch.randn(10, 1, generator=rng, dtype=torch.float64) for _ in range(2))
    return x, torch.rand(10, generator=rng, dtype=torch.float64), epsilon


SHARES = {"halves": (5, 5), "uneven": (3, 7)}


def one_rank(rank: int, folder: Path) -> None:
    """Write the gradient of each of two processes' shards to a file."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    for name, share in SHARES.items():
        mine = [tensor.split(share)[rank] for tensor in rows()]
        torch.save(gradient(*mine), folder / f"{name}_{rank}.pt")
    dist.destroy_process_group()


def test_law_18_the_mean_is_taken_over_all_processes(tmp_path: Path) -> None:
    assert torchrun(2, lambda rank: one_rank(rank, tmp_path), tmp_path) == [0, 0]
    whole = gradient(*rows())
    for name, share in SHARES.items():
        ranks = torch.cat([torch.load(tmp_path / f"{name}_{rank}.pt") for rank in range(2)])
        torch.testing.assert_close(ranks, whole, rtol=1e-12, atol=1e-14)
        alone = torch.cat([gradient(*part) for part in zip(*(r.split(share) for r in rows()), strict=True)])
        assert (alone - whole).abs().max() > 1e-3
