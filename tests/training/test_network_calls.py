"""The cost of a step: how often each network is called, and on how many samples."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from critics.lora_networks import Batched, condition, text_teacher
from laws.zoo import Brightness, discriminator, training_loss
from pytorch_lightning import Trainer
from torch import Tensor, nn
from training.test_module import fit, run

from scoredistill.critics import LoRACritic, NetworkCritic, ParticleCritic
from scoredistill.diffusion import CFG, UniformTimesteps
from scoredistill.divergences import ForwardKL, JensenShannon
from scoredistill.generators import ImageParticles
from scoredistill.losses import (
    ASD,
    CSD,
    DDS,
    DMD,
    DMD2,
    ESD,
    ISM,
    LADD,
    NFSD,
    PDS,
    RFDS,
    SDI,
    SDS,
    SIM,
    TDM,
    VSD,
    ADDDistillation,
    BregmanDistill,
    Bridge,
    Consistent3D,
    DecoupledDMD,
    DiffInstruct,
    FDistill,
    HiFA,
    LearnedManifold,
    LookaheadVSD,
    ParticlePosterior,
    RandomizedSJC,
    RenyiDistill,
    RewardSDS,
    RFDSRev,
    ScoreDistillation,
    SenseFlow,
    SiD,
    SiDA,
    SteinSD,
    SwiftBrush,
    TeacherError,
    UniInstruct,
    VarDiU,
    WithGAN,
)
from scoredistill.networks import LoRA, MLPBackbone
from scoredistill.ratios import DiscriminatorRatio, ExactRatio
from scoredistill.teachers import GaussianMixture
from scoredistill.training import ConditionDataModule, Distillation, NetworkOptimizer, UpdatePlan
from scoredistill.training.callbacks.cost import outermost
from scoredistill.types import Batch, Condition

B = 4
START = torch.zeros(1, 2, 8, 8)
SHARED = UpdatePlan(noise="shared")


def small() -> MLPBackbone:
    return MLPBackbone((2, 8, 8), hidden=8)


class Asked(ConditionDataModule):
    """A batch of embedded prompts with cameras and real samples."""

    def batch_at(self, tick: int) -> Batch:
        return Batch(
            replace(condition(B), prompt="a red mug"),
            data=torch.randn(B, 2, 8, 8, generator=torch.Generator().manual_seed(tick)),
        )


class Latents(Batched):
    """A teacher that counts encoded and decoded pictures."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.codec: list[str] = []

    def encode(self, x: Tensor) -> Tensor:
        self.codec.append("encode")
        return x

    def decode(self, x: Tensor) -> Tensor:
        self.codec.append("decode")
        return x


def latents(**settings: Any) -> Latents:
    made = text_teacher(**settings)
    return Latents(made.denoiser.network, prediction="epsilon", schedule=made.schedule)


def module(loss: ScoreDistillation, plan: UpdatePlan | None = None, **settings: Any) -> Distillation:
    start = torch.randn(B, 2, 8, 8, generator=torch.Generator().manual_seed(1))
    fast = NetworkOptimizer(lambda groups: torch.optim.Adam(groups, lr=0.02))
    settings = {"teacher": latents(), "guidance": CFG(7.5), "plan": plan, "seed": 7} | settings
    return Distillation(ImageParticles(start), loss=loss, generator_optimizer=fast, critic_optimizer=fast, **settings)


def calls(model: Distillation, ticks: int = 1) -> dict[str, list[int]]:
    """Rows of each call of the networks of teacher, critics and discriminators."""
    found: dict[str, list[int]] = {"teacher": [], "critic": [], "discriminator": []}

    def counted(network: nn.Module, into: list[int]) -> None:
        network.register_forward_pre_hook(lambda module, inputs: into.append(len(inputs[0])))

    counted(model.distiller.teacher.denoiser.network, found["teacher"])  # type: ignore[arg-type,union-attr]
    for critic in model.distiller.critics:
        each = critic.denoisers if isinstance(critic, LoRACritic) else [critic]
        # The push of ASD holds the critic, which is counted once.
        for network in () if isinstance(critic, TeacherError) else (n for part in each for n in outermost(part)):
            counted(network, found["critic"])
    for ratio in model.distiller.discriminators:
        if ratio.own is not None:
            counted(ratio.own.network, found["discriminator"])
    fit(model, ticks, data=Asked())
    return {name: rows for name, rows in found.items() if rows}


def exact_ratio() -> ExactRatio:
    p = GaussianMixture(torch.zeros(1, 2, 8, 8), 1.0, schedule=latents().schedule)
    return ExactRatio(p, ParticleCritic(0.5))


def lora(**settings: Any) -> LoRACritic:
    return LoRACritic(LoRA(rank=2), camera=True, **settings)


CASES: dict[str, tuple[Callable[[], ScoreDistillation], UpdatePlan | None, dict[str, list[int]]]] = {
    "SDS": (SDS, None, {"teacher": [2 * B]}),
    "VSD, exact critic": (lambda: VSD(ParticleCritic()), None, {"teacher": [2 * B]}),
    "VSD": (lambda: VSD(lora()), None, {"teacher": [2 * B], "critic": [B, B]}),
    "VSD, shared": (lambda: VSD(lora()), SHARED, {"teacher": [2 * B], "critic": [B]}),
    "VSD, shared, network": (lambda: VSD(NetworkCritic()), SHARED, {"teacher": [2 * B], "critic": [B]}),
    "VSD, shared, two critic steps": (
        lambda: VSD(lora()), UpdatePlan(2, noise="shared"), {"teacher": [2 * B], "critic": [B, B]},
    ),
    "VSD, shared, adapters": (
        lambda: VSD(lora(particles=B)), SHARED, {"teacher": [2 * B], "critic": [1] * B},
    ),
    "FDistill, exact ratio": (
        lambda: FDistill(ForwardKL(), lora(), exact_ratio()), None, {"teacher": [2 * B], "critic": [B, B]},
    ),
    "FDistill, exact ratio, shared": (
        lambda: FDistill(ForwardKL(), lora(), exact_ratio()), SHARED, {"teacher": [2 * B], "critic": [B]},
    ),
    "FDistill, own discriminator, shared": (
        lambda: FDistill(ForwardKL(), lora(), discriminator((2, 8, 8))), SHARED,
        {"teacher": [2 * B], "critic": [B], "discriminator": [B, B, B]},
    ),
    "FDistill, the teacher's features, shared": (
        lambda: FDistill(ForwardKL(), lora(), DiscriminatorRatio("teacher")), SHARED,
        {"teacher": [2 * B, B, B, B], "critic": [B]},
    ),
    "GAN, the ratio's discriminator, shared": (
        lambda: WithGAN(FDistill(ForwardKL(), lora(), discriminator((2, 8, 8)))), SHARED,
        {"teacher": [2 * B], "critic": [B], "discriminator": [B, B, B]},
    ),
    "GAN, the teacher's features, shared": (
        lambda: WithGAN(FDistill(ForwardKL(), lora(), DiscriminatorRatio("teacher"))), SHARED,
        {"teacher": [B, 2 * B, B, B], "critic": [B]},
    ),
    "CSD": (CSD, None, {"teacher": [2 * B]}),
    "NFSD": (NFSD, None, {"teacher": [3 * B]}),
    "Bridge": (lambda: Bridge(switch=0.0), None, {"teacher": [2 * B]}),
    "DDS": (lambda: DDS(START, prompt="a toy"), None, {"teacher": [2 * B, 2 * B]}),
    "PDS": (lambda: PDS(START, prompt="a toy"), None, {"teacher": [2 * B, 2 * B]}),
    "ISM, to t = .9": (ISM, None, {"teacher": [B] * 6 + [2 * B]}),
    "SDI, to t = .9": (SDI, None, {"teacher": [2 * B] * 9 + [2 * B]}),
    "RFDS": (RFDS, None, {"teacher": [2 * B]}),
    "RFDSRev": (RFDSRev, None, {"teacher": [B, 2 * B]}),
    "SteinSD": (SteinSD, None, {"teacher": [2 * B]}),
    "RandomizedSJC": (lambda: RandomizedSJC(3), None, {"teacher": [2 * B] * 3}),
    "RewardSDS": (lambda: RewardSDS(Brightness(), noises=3), None, {"teacher": [2 * B] * 3}),
    "Consistent3D": (Consistent3D, None, {"teacher": [2 * B, 2 * B]}),
    "HiFA": (lambda: HiFA(steps=4), None, {"teacher": [2 * B] * 4}),
    "DiffInstruct": (lambda: DiffInstruct(lora()), SHARED, {"teacher": [2 * B], "critic": [B]}),
    "SwiftBrush": (lambda: SwiftBrush(lora()), SHARED, {"teacher": [2 * B], "critic": [B]}),
    "ESD": (lambda: ESD(lora()), None, {"teacher": [2 * B], "critic": [B, B, B]}),
    "ASD, shared": (lambda: ASD(lora()), SHARED, {"teacher": [2 * B, B], "critic": [B]}),
    "ASD": (lambda: ASD(lora()), None, {"teacher": [2 * B, B], "critic": [B, B, B]}),
    "LookaheadVSD": (lambda: LookaheadVSD(lora()), None, {"teacher": [2 * B], "critic": [B] * 4}),
    "LearnedManifold": (lambda: LearnedManifold(small()), None, {"teacher": [2 * B, B], "critic": [B, B]}),
    "SiD": (lambda: SiD(lora()), None, {"teacher": [2 * B], "critic": [B, B]}),
    "SiDA": (
        lambda: SiDA(lora(), discriminator((2, 8, 8))), None,
        {"teacher": [2 * B], "critic": [B, B], "discriminator": [B, B, B]},
    ),
    "SIM": (lambda: SIM(lora()), None, {"teacher": [2 * B], "critic": [B, B]}),
    "UniInstruct": (
        lambda: UniInstruct(JensenShannon(), lora(), discriminator((2, 8, 8))), None,
        {"teacher": [2 * B], "critic": [B, B], "discriminator": [B, B, B]},
    ),
    "VarDiU": (lambda: VarDiU(ParticlePosterior()), None, {"teacher": [2 * B]}),
    "RenyiDistill": (
        lambda: RenyiDistill(0.5, lora(), exact_ratio()), SHARED, {"teacher": [2 * B], "critic": [B]},
    ),
    "DMD": (lambda: DMD(lora()), SHARED, {"teacher": [2 * B], "critic": [B]}),
    "DMD2": (
        lambda: DMD2(lora(), discriminator((2, 8, 8))), SHARED,
        {"teacher": [2 * B], "critic": [B], "discriminator": [B, B, B]},
    ),
    "DecoupledDMD": (lambda: DecoupledDMD(lora()), SHARED, {"teacher": [B, 2 * B], "critic": [B]}),
    "TDM": (lambda: TDM(lora()), SHARED, {"teacher": [2 * B], "critic": [B]}),
    "SenseFlow": (
        lambda: SenseFlow(lora(), discriminator((2, 8, 8))), SHARED,
        {"teacher": [2 * B], "critic": [B], "discriminator": [B, B, B]},
    ),
    "ADDDistillation": (
        lambda: ADDDistillation(discriminator((2, 8, 8))), None,
        {"teacher": [2 * B], "discriminator": [B, B, B]},
    ),
    "LADD": (lambda: LADD(discriminator((2, 8, 8))), None, {"discriminator": [B, B, B]}),
    "BregmanDistill": (
        lambda: BregmanDistill(0.5, lora(), exact_ratio()), SHARED, {"teacher": [2 * B], "critic": [B]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_each_network_is_called_once(case: str) -> None:
    make, plan, expected = CASES[case]
    model = module(make(), plan, timesteps=UniformTimesteps(0.9, 0.9))
    assert calls(model) == expected
    ticks = int(model.ticks)
    codec = model.distiller.teacher.codec
    assert codec.count("encode") == ticks + (case in ("DDS", "PDS"))
    assert codec.count("decode") == 3 * (case == "RewardSDS")


def test_without_guidance_the_teacher_evaluates_one_branch() -> None:
    assert calls(module(SDS(), guidance=None)) == {"teacher": [B]}


def update(plan: UpdatePlan | None, **settings: Any) -> tuple[dict[str, Tensor], Tensor]:
    """The critic's gradient and the particles after a tick."""
    torch.manual_seed(0)
    model = module(VSD(lora()), plan, teacher=latents(), **settings)
    critic = model.distiller.critics[0]
    found: dict[str, Tensor] = {}

    def keep(*arguments: Any) -> None:
        found.update({n: w.grad.clone() for n, w in critic.named_parameters() if w.grad is not None})

    model._critic_step = _before(model._critic_step, keep)  # type: ignore[method-assign]
    fit(model, 1, data=Asked())
    return found, model.distiller.generator.values.detach().clone()  # type: ignore[operator,return-value]


def _before(method: Callable[..., Tensor], first: Callable[..., None]) -> Callable[..., Tensor]:
    def both(*arguments: Any) -> Tensor:
        first()
        return method(*arguments)

    return both


def test_a_shared_tick_gives_the_same_gradients_as_separate_calls() -> None:
    fresh, shared = update(None), update(SHARED)
    assert torch.equal(fresh[1], shared[1])
    assert any(not torch.equal(fresh[0][name], shared[0][name]) for name in fresh[0])
    torch.manual_seed(0)
    model = module(VSD(lora()), SHARED, teacher=latents())
    critic = model.distiller.critics[0].eval()
    step = None

    def keep(diffused: Any, gradient: Any) -> None:
        nonlocal step
        step = diffused

    model.distiller.loss.observe = keep  # type: ignore[method-assign,assignment]
    model._critic_step = lambda index, name: torch.zeros(())  # type: ignore[method-assign]
    fit(model, 1, data=Asked())
    critic.zero_grad()
    training_loss(critic, step).backward()  # type: ignore[arg-type]
    own = {name: weight.grad for name, weight in critic.named_parameters() if weight.grad is not None}
    assert own.keys() == shared[0].keys()
    assert all(torch.equal(own[name], shared[0][name]) for name in own)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("plan", [None, SHARED], ids=["fresh", "shared"])
def test_vsd_with_adapters_trains(plan: UpdatePlan | None, precision: Any) -> None:
    model = module(VSD(lora()), plan, teacher=latents(checkpointing=True)).float()
    teacher = {name: value.clone() for name, value in model.distiller.teacher.state_dict().items()}
    critic = {name: value.detach().clone() for name, value in model.distiller.loss.named_parameters()}
    trained = {name for name, value in model.distiller.loss.named_parameters() if value.requires_grad}
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    made = Trainer(
        accelerator="cpu", devices=1, max_steps=2, max_epochs=-1, limit_val_batches=0, logger=False,
        precision=precision, **quiet,
    )  # fmt: skip
    run(made, model, Single())
    moved = {n for n, value in model.distiller.loss.named_parameters() if not torch.equal(value, critic[n])}
    assert moved == trained
    assert all(torch.equal(value, teacher[name]) for name, value in model.distiller.teacher.state_dict().items())


class Single(Asked):
    """The same in single precision."""

    def batch_at(self, tick: int) -> Batch:
        batch = super().batch_at(tick)
        asked = batch.condition
        text = asked.embeddings.float()  # type: ignore[union-attr]
        return Batch(Condition(camera=asked.camera, embeddings=text))  # type: ignore[union-attr]


@pytest.mark.parametrize("base", [False, True], ids=["the teacher's", "another base"])
def test_checkpoints_hold_adapters_and_cameras_alone_and_resume(base: bool, tmp_path: Path) -> None:
    def make() -> Distillation:
        torch.manual_seed(0)
        teacher = latents()
        teacher.denoiser.register_buffer("kept", torch.ones(3))
        other = text_teacher("v") if base else None
        return module(VSD(lora(base=other, particles=B)), SHARED, teacher=teacher)

    whole, half, resumed = make(), make(), make()
    fit(whole, 4, data=Asked())
    fit(half, 2, data=Asked()).save_checkpoint(tmp_path / "half.ckpt")
    stored = torch.load(tmp_path / "half.ckpt", weights_only=True)["state_dict"]
    critic = {key for key in stored if ".critic." in key}
    trained = {f"distiller.{n}" for n, value in half.distiller.named_parameters() if value.requires_grad}
    assert critic == {name for name in trained if ".critic." in name}
    assert not any(".teacher." in key for key in stored)
    fit(resumed, 4, resume=tmp_path / "half.ckpt", data=Asked())
    expected = whole.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in resumed.state_dict().items())


def test_the_critics_optimizer_has_only_trainable_parameters() -> None:
    model = module(VSD(lora()))
    optimizer = model.configure_optimizers()[1]
    seen = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
    assert seen == {id(weight) for weight in model.distiller.critics[0].parameters() if weight.requires_grad}


@pytest.mark.parametrize("other", [{"mode": "alternating"}, {"accumulate": 2}])
def test_noise_cannot_be_shared_between_ticks_or_micro_batches(other: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="noise: shared needs plan"):
        UpdatePlan(noise="shared", **other)
