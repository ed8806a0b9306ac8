"""One-step students in training: known faults of other implementations, exact resume, several processes."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from forks import torchrun
from pytorch_lightning import Callback
from torch import Tensor
from training.test_module import fit, trainer

from scoredistill import Distiller
from scoredistill.critics import NetworkCritic, ParticleCritic
from scoredistill.data import TeacherSamples
from scoredistill.diffusion import EDMSchedule
from scoredistill.distributed import BatchShard, is_distributed
from scoredistill.divergences import Divergence, ForwardKL, JensenShannon, ReverseKL
from scoredistill.generators import OneStepUNet
from scoredistill.losses import VSD, DMDNormalizer, FDistill, WithGAN
from scoredistill.networks import LoRA, MLPBackbone
from scoredistill.ratios import BatchMeanNormalizer, ClampRatio, DiscriminatorRatio, TimeBinNormalizer
from scoredistill.teachers import GaussianMixture, NetworkTeacher
from scoredistill.training import Distillation, Images, Labels, NetworkOptimizer, UpdatePlan
from scoredistill.types import Batch, Condition, Diffused, Sample
from scoredistill.types.batch import WHOLE

SCHEDULE = EDMSchedule(0.05, 20.0)


def mixture() -> GaussianMixture:
    means, labels = torch.tensor([[1.0, 0.0], [-1.0, 0.5], [0.0, -1.0]]), torch.arange(3)
    return GaussianMixture(means, 0.2, labels=labels, schedule=SCHEDULE)


def network(seed: int, dropout: float = 0.0) -> MLPBackbone:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = MLPBackbone((2,), hidden=16, layers=2, classes=3)
        torch.nn.init.normal_(made.out.weight, std=0.3)
    if dropout:
        made.deep = torch.nn.Dropout(dropout)  # type: ignore[assignment]
    return made


def loss(divergence: Divergence | None = None, statistics: bool = True, dropout: float = 0.0) -> WithGAN:
    """f-distill with all trained parts and running statistics."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        ratio = DiscriminatorRatio(network(2), hidden=8)
    torch.nn.init.normal_(ratio.head.out.weight, std=0.1, generator=torch.Generator().manual_seed(3))  # type: ignore[union-attr]
    normalizers = [ClampRatio(), TimeBinNormalizer(3)] if statistics else []
    weight = BatchMeanNormalizer() if statistics else None
    critic = NetworkCritic(network(1, dropout), "edm")
    return WithGAN(FDistill(divergence or JensenShannon(), critic, ratio, normalizers, weight), balance=0.1)


def module(objective: WithGAN | None = None, **settings: Any) -> Distillation:
    student = OneStepUNet((2,), network(0), times=[1.0, 0.4])
    optimizer = NetworkOptimizer(lambda groups: torch.optim.SGD(groups, lr=0.05))
    settings = {"generator_optimizer": optimizer, "seed": 7, "ema": 0.5} | settings
    return Distillation(student, mixture(), objective or loss(), **settings)


def data(size: int = 8) -> Images:
    return Images(TeacherSamples(mixture()), size, condition_on="uniform")


def weights(model: Distillation) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


@pytest.mark.parametrize("divergence", [ReverseKL(), ForwardKL(), JensenShannon()], ids=lambda d: type(d).__name__)
@pytest.mark.parametrize("size", [1, 6])
def test_every_divergence_and_a_batch_of_one_go_through_the_whole_step(divergence: Divergence, size: int) -> None:
    model = module(loss(divergence))
    before = weights(model)
    fit(model, 2, data=data(size))
    after = weights(model)
    for part in ("generator.denoiser", "loss.loss.critic", "loss.loss.ratio"):
        moved = [key for key in before if f"distiller.{part}" in key and not torch.equal(before[key], after[key])]
        assert moved, part


def test_a_batch_of_one_keeps_its_weight_without_batch_mean() -> None:
    x, t = torch.tensor([[2.0, 1.0]]), torch.tensor([0.5])
    epsilon, condition = torch.tensor([[0.3, -0.4]]), Condition(label=torch.tensor([1]))
    plain, forward = (loss(d, statistics=False) for d in (ReverseKL(), ForwardKL()))
    for each in (plain, forward):
        Distiller(OneStepUNet((2,), network(0)), mixture(), each)
    diffused = Diffused.diffuse(Sample(x, condition), t, epsilon, SCHEDULE)
    kl, reverse = forward.loss.gradient(diffused, mixture()), plain.loss.gradient(diffused, mixture())
    r = kl.reweighting.log_r.exp()  # type: ignore[union-attr]
    assert abs(float(r) - 1) > 0.01
    torch.testing.assert_close(kl.g, r[:, None] * reverse.g)


@pytest.mark.parametrize("parts", [2, 3])
def test_accumulation_changes_nothing_batch_statistics_included(parts: int) -> None:
    results = []
    for accumulate in (1, parts):
        model = module(plan=UpdatePlan(accumulate=accumulate))
        fit(model, 3, data=data(8))
        results.append(weights(model))
    for key, value in results[0].items():
        torch.testing.assert_close(results[1][key], value, rtol=1e-9, atol=1e-12, msg=key)


def test_evaluation_has_no_side_effects() -> None:
    model = module(loss(dropout=0.3))
    fit(model, 2, data=data())
    before, state = weights(model), torch.get_rng_state()
    made = trainer(2)
    made.validate(model, data(), verbose=False)
    with torch.no_grad():
        model.eval_generator.eval()(Batch(Condition(label=torch.arange(3))), torch.Generator().manual_seed(0))
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())


def test_the_dmd_gradient_is_finite_where_x_is_the_teachers_x0() -> None:
    teacher = NetworkTeacher(network(3))
    objective = FDistill(ReverseKL(), NetworkCritic(network(1), "edm"), normalizer=DMDNormalizer())
    distiller = Distiller(OneStepUNet((2,), network(0)), teacher, objective)
    label = Condition(label=torch.zeros(4, dtype=torch.long))
    x, t, epsilon = torch.randn(4, 2), torch.full((4,), 0.5), torch.zeros(4, 2)
    for _ in range(200):  # the fixed point x = x0(x + sigma epsilon)
        x = teacher(x + teacher.schedule.sigma(t)[:, None] * epsilon, t, label).x0.detach()
    g = distiller.gradient(x, t=t, epsilon=epsilon, condition=label)
    assert torch.isfinite(g).all()
    assert float(g.norm(dim=1).max()) < 1e4


def test_the_average_follows_generator_steps_only() -> None:
    slow, quick = module(plan=UpdatePlan(3, "alternating")), module(plan=UpdatePlan(1, "alternating"))
    fit(slow, 2, data=data())
    fit(quick, 2, data=data())
    assert slow.average.updates == quick.average.updates == 2  # type: ignore[union-attr]
    assert slow.critic_steps == 6


def test_logs_show_whether_a_run_is_healthy() -> None:
    model = module()
    seen: dict[str, float] = {}
    model.log = lambda name, value, **_: seen.__setitem__(name, float(value))  # type: ignore[method-assign, assignment]
    model.log_dict = lambda values, **_: [model.log(key, value) for key, value in values.items()]  # type: ignore[method-assign]
    fit(model, 3, data=data())
    wanted = ["objective/log_r/q05", "objective/log_r/q50", "objective/log_r/q95", "objective/log_r/changed"]
    wanted += ["objective/h/mean", "objective/h/effective_sample_size", "critic/loss", "discriminator/loss"]
    wanted += ["objective/gan/norm", "objective/gan/distillation_norm", "objective/gan/weight"]
    assert not set(wanted) - seen.keys()
    for name in ("critic", "discriminator"):
        assert [key for key in seen if key.startswith(f"{name}/loss/level_")]
    assert seen["objective/gan/norm"] * seen["objective/gan/weight"] > 0


@pytest.mark.parametrize("ema", [None, 0.5])
def test_a_resumed_run_ends_bit_for_bit_as_one_that_was_not(ema: float | None, tmp_path: Path) -> None:
    def made() -> Distillation:
        settings = {
            f"{name}_optimizer": NetworkOptimizer(warmup=2) for name in ("generator", "critic", "discriminator")
        }
        return module(loss(dropout=0.3), ema=ema, plan=UpdatePlan(2), **settings)

    whole, first, second = made(), made(), made()
    fit(whole, 6, data=data())
    fit(first, 6, Stop(3, tmp_path / "half.ckpt"), data=data())
    torch.manual_seed(99)
    fit(second, 6, data=data(), resume=tmp_path / "half.ckpt")
    for key, value in whole.state_dict().items():
        assert torch.equal(value, second.state_dict()[key]), key
    assert not torch.equal(whole.state_dict()["distiller.generator.denoiser.network.out.weight"], network(0).out.weight)


def test_a_lora_students_checkpoint_and_average_hold_its_adapters_alone(tmp_path: Path) -> None:
    teacher = NetworkTeacher(network(0))
    student = OneStepUNet((2,), lora=LoRA(2, targets=["layers.1"]))
    made = Distillation(student, teacher, VSD(ParticleCritic()), ema=0.5)
    fit(made, 2, Stop(2, tmp_path / "end.ckpt"), data=Labels(classes=3, batch_size=4))
    stored = torch.load(tmp_path / "end.ckpt", weights_only=True)["state_dict"]
    assert not [key for key in stored if key.endswith((".weight", ".bias")) and "lora_" not in key]
    assert any("lora_" in key and key.startswith("averages.") for key in stored)
    assert made.average is not None
    base = {id(weight) for weight in teacher.parameters()}
    shared = [id(weight) in base for name, weight in made.average.named_parameters() if "lora_" not in name]
    assert shared
    assert all(shared)


class Stop(Callback):
    """Saves a checkpoint at a step and ends the run there."""

    def __init__(self, at: int, path: Path) -> None:
        self.at, self.path = at, path

    def on_train_batch_end(self, trainer: Any, *rest: Any) -> None:
        if trainer.global_step == self.at and not trainer.should_stop:
            trainer.save_checkpoint(self.path)
            trainer.should_stop = True


def rows() -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    z, epsilon = (torch.randn(10, 2, generator=rng, dtype=torch.float64) for _ in range(2))
    return z, 0.2 + 0.6 * torch.rand(10, generator=rng, dtype=torch.float64), epsilon


def gradient(z: Tensor, t: Tensor, epsilon: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient of the student's weights from given noise, and the statistics of the time bins afterwards."""
    student, objective = OneStepUNet((2,), network(0)), loss()
    distiller = Distiller(student, mixture(), objective)
    distiller.shard = BatchShard() if is_distributed() else WHOLE
    objective.loss.ratio_normalizers[1].log_mean += torch.tensor([0.1, -0.2, 0.3])
    sample = Sample(
        student.denoiser(20 * z, torch.ones(len(z)), Condition(label=label), SCHEDULE).x0, Condition(label=label)
    )  # type: ignore[misc]
    step = distiller.evaluate(sample, t=t, epsilon=epsilon)
    step.loss.backward()
    objective.observe(step.diffused, step.gradient)
    found = torch.cat([weight.grad.flatten() for weight in student.parameters() if weight.grad is not None])
    return found, objective.loss.ratio_normalizers[1].log_mean


def one_rank(rank: int, folder: Path) -> None:
    """Half of the batch on each of two processes, whose gradients are averaged as in data-parallel training."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    halves = [tensor.chunk(2)[rank] for tensor in (*rows(), torch.arange(10) % 3)]
    found, means = gradient(*halves)
    dist.all_reduce(found)
    torch.save({"gradient": found / 2, "means": means}, folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_give_the_gradient_of_one_batch_statistics_included(tmp_path: Path) -> None:
    assert torchrun(2, lambda rank: one_rank(rank, tmp_path), tmp_path) == [0, 0]
    whole, means = gradient(*rows(), torch.arange(10) % 3)
    alone = torch.stack([gradient(*(half.chunk(2)[k] for half in (*rows(), torch.arange(10) % 3)))[0] for k in (0, 1)])
    assert (alone.mean(0) - whole).abs().max() > 1e-6  # statistics of a half are others
    for rank in (0, 1):
        found = torch.load(tmp_path / f"{rank}.pt")
        torch.testing.assert_close(found["gradient"], whole, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(found["means"], means, rtol=1e-9, atol=1e-12)
