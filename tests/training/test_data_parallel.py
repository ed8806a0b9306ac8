"""Networks trained by several processes, as copies (ddp) or as shards (fsdp2)."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from critics.lora_networks import text_teacher
from pytorch_lightning.strategies import ModelParallelStrategy
from training.processes import Made, assert_same_checkpoint, train

from scoredistill.critics import LoRACritic, NetworkCritic
from scoredistill.data import TeacherSamples
from scoredistill.diffusion import EDMSchedule
from scoredistill.divergences import JensenShannon
from scoredistill.generators import OneStepUNet
from scoredistill.losses import VSD, FDistill, WithGAN
from scoredistill.networks import Backbone, DiffusersBackbone, EDM2UNet, EDMUNet, LoRA, MLPBackbone
from scoredistill.ratios import ClampRatio, DiscriminatorRatio
from scoredistill.teachers import GaussianMixture, NetworkTeacher
from scoredistill.training import (
    DenoiserTraining,
    Distillation,
    Images,
    Labels,
    NetworkOptimizer,
    UpdatePlan,
    images,
)
from scoredistill.training.strategies import fsdp
from scoredistill.training.training_module import TrainingModule
from scoredistill.types import Batch, Condition

SCHEDULE = EDMSchedule(0.05, 20.0)
shards = pytest.mark.skipif(not hasattr(torch.cpu.Stream, "record_event"), reason="this torch shards on GPUs alone")
STRATEGIES = pytest.mark.parametrize("strategy", ["ddp", pytest.param("fsdp2", marks=shards)])


def sgd() -> NetworkOptimizer:
    return NetworkOptimizer(lambda groups: torch.optim.SGD(groups, lr=0.05))


def mixture() -> GaussianMixture:
    means, labels = torch.tensor([[1.0, 0.0], [-1.0, 0.5], [0.0, -1.0]]), torch.arange(3)
    return GaussianMixture(means, 0.2, labels=labels, schedule=SCHEDULE)


def perceptron(seed: int) -> MLPBackbone:
    torch.manual_seed(seed)
    return awake(MLPBackbone((2,), hidden=16, layers=2, classes=3))


def awake(network: torch.nn.Module) -> Any:
    """A network with a nonzero initial output, so that all layers get a gradient."""
    for parameter in network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.3)
    return network


def student() -> Made:
    """A student, its average, a critic and a discriminator, updated in every tick."""
    with torch.random.fork_rng():
        ratio = DiscriminatorRatio(perceptron(2), hidden=8)
        loss = WithGAN(FDistill(JensenShannon(), NetworkCritic(perceptron(1), "edm"), ratio, [ClampRatio()]))
        one_step = OneStepUNet((2,), perceptron(0))
        awake(ratio)
    plan = UpdatePlan(noise="shared")
    settings = {f"{name}_optimizer": sgd() for name in ("generator", "critic", "discriminator")}
    module = Distillation(one_step, mixture(), loss, ema=0.5, seed=7, plan=plan, **settings)
    return module, Images(TeacherSamples(mixture(), 64), batch_size=8, condition_on="data")


class Texts(Labels):
    """Embedded texts, different on every process."""

    def batch_at(self, tick: int) -> Batch:
        return Batch(Condition(embeddings=torch.full((4, 5, 6), 1.0 + images.rank_of(self))))


def adapters() -> Made:
    """A LoRA student and a LoRA critic over one teacher's weights."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        one_step = OneStepUNet((2, 8, 8), lora=LoRA(rank=2), times=[0.9])
        settings = {f"{name}_optimizer": sgd() for name in ("generator", "critic")}
        return Distillation(one_step, text_teacher(), VSD(LoRACritic(LoRA(rank=2))), seed=7, **settings), Texts(
            1, batch_size=4
        )


def first_step(make: Callable[[], Made], rank: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The result of a single process with the random numbers of another rank."""
    with monkeypatch.context() as patched:
        patched.setattr(TrainingModule, "global_rank", property(lambda self: rank))
        patched.setattr("scoredistill.training.images.rank_of", lambda data: rank)
        return train(make, folder)["state_dict"]


@pytest.mark.parametrize(
    "make", [student, pytest.param(adapters, marks=pytest.mark.slow)], ids=lambda case: case.__name__
)
@STRATEGIES
def test_a_step_is_the_mean_of_the_processes_steps(make, strategy, tmp_path: Path, monkeypatch) -> None:
    """Plain gradient descent is linear in the gradient of generator, average, critic and discriminator."""
    alone = [first_step(make, rank, tmp_path / str(rank), monkeypatch) for rank in (0, 1)]
    together = train(make, tmp_path / "both", 2, strategy)["state_dict"]
    assert together.keys() == alone[0].keys()
    differing = 0
    for name, value in together.items():
        if value.is_floating_point() and value.numel():
            differing += int((alone[0][name] - alone[1][name]).abs().max() > 1e-9)
            torch.testing.assert_close(value, (alone[0][name] + alone[1][name]) / 2, rtol=1e-9, atol=1e-11, msg=name)
    assert differing > (40 if make is student else 8)


def teacher() -> Made:
    """A teacher that learns the score from data."""
    with torch.random.fork_rng():
        module = DenoiserTraining(perceptron(0), (2,), optimizer=sgd(), ema=0.5, seed=7)
    return module, Images(TeacherSamples(mixture(), 64), batch_size=8, condition_on="data")


@pytest.mark.slow
def test_a_teachers_step_is_the_mean_too(tmp_path: Path, monkeypatch) -> None:
    test_a_step_is_the_mean_of_the_processes_steps(teacher, "ddp", tmp_path, monkeypatch)


def test_only_distillations_are_sharded(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="FSDP2 is not supported; choose ddp\n"):
        train(teacher, tmp_path, 2, "fsdp2")


def adam(make: Callable[[], Made]) -> Callable[[], Made]:
    """The same with optimizers that have state, and with clipping."""

    def made() -> Made:
        module, data = make()
        for name in ("generator", "critic", "discriminator"):
            setattr(module, f"{name}_optimizer", NetworkOptimizer(lambda g: torch.optim.Adam(g, lr=0.01), clip=0.01))
        return module, data

    return made


@shards
@pytest.mark.slow
def test_shards_and_copies_compute_the_same_and_read_each_others_checkpoints(tmp_path: Path) -> None:
    make = adam(student)
    whole = train(make, tmp_path / "whole", 2, "ddp", steps=4)
    train(make, tmp_path / "a", 2, "fsdp2", steps=2)
    train(make, tmp_path / "b", 2, "ddp", steps=3, resume=tmp_path / "a" / "last.ckpt")
    assert_same_checkpoint(train(make, tmp_path / "c", 2, "fsdp2", steps=4, resume=tmp_path / "b" / "last.ckpt"), whole)


@shards
@pytest.mark.slow
def test_a_sharded_run_resumes_with_another_number_of_processes(tmp_path: Path) -> None:
    """Weights, averages and optimizer states are read as they were written."""
    make = adam(student)
    two = train(make, tmp_path / "two", 2, "fsdp2", steps=2)
    one = train(make, tmp_path / "one", steps=2, resume=tmp_path / "two" / "last.ckpt")
    assert_same_checkpoint(one, two)
    assert_same_checkpoint(
        train(make, tmp_path / "three", 3, "fsdp2", steps=2, resume=tmp_path / "one" / "last.ckpt"), two
    )
    train(make, tmp_path / "four", 3, "fsdp2", steps=3, resume=tmp_path / "three" / "last.ckpt")


def test_other_strategies_are_refused() -> None:
    """They would not average gradients over processes."""
    module, sharded = student()[0], ModelParallelStrategy()
    with pytest.raises(ValueError, match="ModelParallelStrategy is not supported; choose ddp, split_particles or"):
        TrainingModule.setup(
            SimpleNamespace(trainer=SimpleNamespace(strategy=sharded), strategies=module.strategies), "fit"
        )


def test_a_network_that_keeps_its_weights_normalized_cannot_be_sharded() -> None:
    network = EDM2UNet(8, 3, 8, (1, 2), 1, (4,))
    student = OneStepUNet((3, 8, 8), network, schedule=SCHEDULE)
    with pytest.raises(ValueError, match="EDM2UNet cannot be sharded by fsdp2: use ddp"):
        fsdp.shard([student], mixture(), SimpleNamespace(device_type="cuda"))  # type: ignore[arg-type]


def diffusers_unet() -> Backbone:
    from diffusers import UNet2DModel

    unet = UNet2DModel(
        sample_size=8, in_channels=3, out_channels=3, layers_per_block=1, block_out_channels=(8, 8), norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4,
    )  # fmt: skip
    return DiffusersBackbone(unet)


BACKBONES: dict[str, Callable[[], Backbone]] = {
    "edm": lambda: EDMUNet("ddpm++", 8, 3, 8, (1, 2), 1, (4,)),
    "diffusers": diffusers_unet,
    "mlp": lambda: MLPBackbone((3, 8, 8), hidden=16, layers=3),
}


@shards
@pytest.mark.slow
@pytest.mark.parametrize("name", BACKBONES)
def test_networks_in_blocks(name, tmp_path: Path, monkeypatch) -> None:
    """Every family, sharded by blocks, with a discriminator on the critic's features."""
    monkeypatch.setattr(fsdp, "SMALL", 1)

    def make() -> Made:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            teacher = NetworkTeacher(awake(BACKBONES[name]()))
            loss = FDistill(JensenShannon(), NetworkCritic(), DiscriminatorRatio("critic", hidden=8), [ClampRatio()])
            module = Distillation(OneStepUNet((3, 8, 8)), teacher, loss, seed=7, ema=0.5)
        return module, Images(TeacherSamples(GaussianMixture(torch.zeros(1, 3, 8, 8), 1.0), 16), batch_size=2)

    assert len(list(fsdp.blocks(BACKBONES[name]()))) > 2
    assert_same_checkpoint(
        train(make, tmp_path / "f", 2, "fsdp2", 2), train(make, tmp_path / "d", 2, "ddp", 2), rtol=1e-7, atol=1e-9
    )
