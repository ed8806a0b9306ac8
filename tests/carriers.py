"""The six kinds of generator and teacher that every objective runs on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from laws.zoo import Brightness, Quadratic
from teachers.tiny_pipelines import teacher_of
from torch import Tensor

from scoredistill import Batch, Condition
from scoredistill.critics import LoRACritic, NetworkCritic, ParticleCritic, TrainedCritic
from scoredistill.diffusion import CFG, Guidance, UniformTimesteps
from scoredistill.divergences import ForwardKL, JensenShannon
from scoredistill.generators import Generator, ImageParticles, NeRF, OneStepUNet
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
    GaussianPosterior,
    HiFA,
    LearnedManifold,
    LookaheadVSD,
    Objective,
    ParticlePosterior,
    RandomizedSJC,
    RenyiDistill,
    RewardSDS,
    RFDSRev,
    SenseFlow,
    SiD,
    SiDA,
    SteinSD,
    SwiftBrush,
    UniInstruct,
    VarDiU,
    WithGAN,
)
from scoredistill.networks import LoRA, MLPBackbone
from scoredistill.ratios import DiscriminatorRatio
from scoredistill.rendering.camera import Camera
from scoredistill.teachers import DiffusersTeacher, Digits, Gallery, GaussianMixture, NetworkTeacher, Teacher


@dataclass
class Carrier:
    """A generator under a teacher, and the networks that objectives train beside it.

    Args:
        generator, teacher, batch: of the run.
        shape: *D, of a sample in the teacher's space.
        critic: makes a trained critic.
        guidance: of the teacher.
        source: what the references of edits show.
        nfsd, bridge: settings of the words of NFSD and SDS-Bridge; the gallery knows only its own.
    """

    generator: Generator
    teacher: Teacher
    batch: Batch
    shape: tuple[int, ...]
    critic: Callable[[], TrainedCritic]
    guidance: Guidance = field(default_factory=lambda: CFG(7.5))
    source: dict[str, object] = field(default_factory=lambda: {"prompt": "a donut"})
    nfsd: dict[str, str] = field(default_factory=dict)
    bridge: dict[str, str | None] = field(default_factory=dict)

    @property
    def from_noise(self) -> bool:
        """Whether the generator samples from noise."""
        return self.generator.particles is None

    def network(self) -> MLPBackbone:
        """A small network over samples."""
        return MLPBackbone(self.shape, hidden=16, layers=2)

    def discriminator(self) -> DiscriminatorRatio:
        """A small learned ratio."""
        return DiscriminatorRatio(self.network(), hidden=8)

    def reference(self) -> Tensor:
        """One picture for edits."""
        return torch.zeros(1, *self.shape)


def _student(shape: tuple[int, ...]) -> tuple[MLPBackbone, NetworkTeacher]:
    network = MLPBackbone(shape, hidden=16, layers=2, classes=2, label_dropout=0.1)
    torch.nn.init.normal_(network.out.weight, std=0.3)
    return network, NetworkTeacher(network, prediction="edm")


def points() -> Carrier:
    """Points under a mixture with two classes."""
    teacher = GaussianMixture(torch.tensor([[-1.0, 0.0], [1.0, 0.5], [0.0, 1.0]]), 0.3, labels=torch.tensor([0, 1, 1]))
    batch = Batch(Condition(label=torch.ones(4, dtype=torch.long)), data=torch.randn(4, 2))
    critic = lambda: NetworkCritic(MLPBackbone((2,), hidden=16, layers=2))  # noqa: E731
    return Carrier(ImageParticles(torch.randn(4, 2)), teacher, batch, (2,), critic, source={"label": 0})


@cache
def _digits() -> Digits:
    return Digits(0.1)


def digits() -> Carrier:
    """Pictures of digits, 8 x 8."""
    shape = (1, 8, 8)
    batch = Batch(Condition(label=torch.full((4,), 3)), data=torch.randn(4, *shape))
    critic = lambda: NetworkCritic(MLPBackbone(shape, hidden=16, layers=2))  # noqa: E731
    particles = ImageParticles(0.1 * torch.randn(4, *shape))
    return Carrier(particles, _digits(), batch, shape, critic, source={"label": 8})


def nerf() -> Carrier:
    """The quickstart's gallery with small renders."""
    teacher, shape = Gallery(), (3, 16, 16)
    camera = Camera.orbit(torch.tensor([10.0, 130.0]), *(torch.full((2,), v) for v in (15.0, 2.5, 40.0)))
    batch = Batch(Condition("a red mug", camera=camera), data=torch.randn(4, *shape))
    critic = lambda: NetworkCritic(MLPBackbone(shape, hidden=16, layers=2))  # noqa: E731
    generator, words = NeRF(particles=2, resolution=16, samples=16), {"source": None, "target": ""}
    return Carrier(generator, teacher, batch, shape, critic, nfsd={"negative": "a gray toy"}, bridge=words)


def one_step() -> Carrier:
    """A one-step student of a small network with two classes."""
    _, teacher = _student((2,))
    batch = Batch(Condition(label=torch.ones(4, dtype=torch.long)), data=torch.randn(4, 2))
    return Carrier(OneStepUNet((2,)), teacher, batch, (2,), NetworkCritic, source={"label": 0})


@cache
def _pipeline(family: str) -> tuple[DiffusersTeacher, TemporaryDirectory[str]]:
    """A tiny pipeline, made once, and its folder: no run changes a teacher."""
    folder = TemporaryDirectory()
    return teacher_of(family, Path(folder.name)), folder


def _latents(family: str) -> Carrier:
    teacher, _ = _pipeline(family)
    shape = tuple(teacher.encode(torch.zeros(1, 3, 16, 16)).shape[1:])
    batch = Batch(Condition("a red mug"), data=torch.randn(2, *shape))
    critic = lambda: LoRACritic(LoRA(2))  # noqa: E731
    particles, bridge = ImageParticles(torch.randn(2, *shape)), {"source": " poor", "target": ""}
    return Carrier(particles, teacher, batch, shape, critic, nfsd={"negative": "poor"}, bridge=bridge)


def stable_diffusion() -> Carrier:
    """Latents of a tiny Stable Diffusion."""
    return _latents("sd")


def flow_transformer() -> Carrier:
    """Latents of a tiny flow transformer, Stable Diffusion 3."""
    return _latents("sd3")


CARRIERS = {make.__name__: make for make in (points, digits, nerf, one_step, stable_diffusion, flow_transformer)}

OBJECTIVES: dict[str, Callable[[Carrier], Objective]] = {
    "SDS": lambda c: SDS(),
    "VSD": lambda c: VSD(c.critic()),
    "VSD-particles": lambda c: VSD(ParticleCritic(0.3)),
    "FDistill": lambda c: FDistill(JensenShannon(), c.critic(), c.discriminator()),
    "FDistill-forward": lambda c: FDistill(ForwardKL(), ParticleCritic(0.3), c.discriminator()),
    "WithGAN": lambda c: WithGAN(SiD(c.critic()), c.discriminator()),
    "CSD": lambda c: CSD(),
    "NFSD": lambda c: NFSD(**c.nfsd),
    "Bridge": lambda c: Bridge(switch=0.5, **c.bridge),
    "DDS": lambda c: DDS(c.reference(), **c.source),  # type: ignore[arg-type]
    "PDS": lambda c: PDS(c.reference(), **c.source),  # type: ignore[arg-type]
    "ISM": lambda c: ISM(),
    "SDI": lambda c: SDI(),
    "RFDS": lambda c: RFDS(),
    "RFDSRev": lambda c: RFDSRev(),
    "DiffInstruct": lambda c: DiffInstruct(c.critic()),
    "SwiftBrush": lambda c: SwiftBrush(c.critic()),
    "ESD": lambda c: ESD(c.critic()),
    "ASD": lambda c: ASD(c.critic()),
    "LookaheadVSD": lambda c: LookaheadVSD(c.critic()),
    "LearnedManifold": lambda c: LearnedManifold(c.network()),
    "SteinSD": lambda c: SteinSD(Quadratic()),
    "RandomizedSJC": lambda c: RandomizedSJC(3),
    "RewardSDS": lambda c: RewardSDS(Brightness(), noises=4),
    "Consistent3D": lambda c: Consistent3D(),
    "HiFA": lambda c: HiFA(),
    "SiD": lambda c: SiD(c.critic()),
    "SiDA": lambda c: SiDA(c.critic(), c.discriminator()),
    "SIM": lambda c: SIM(c.critic()),
    "UniInstruct": lambda c: UniInstruct(JensenShannon(), c.critic(), c.discriminator()),
    "VarDiU": lambda c: VarDiU(GaussianPosterior(c.network()) if c.from_noise else ParticlePosterior()),
    "RenyiDistill": lambda c: RenyiDistill(0.5, c.critic(), c.discriminator()),
    "DMD": lambda c: DMD(c.critic()),
    "DMD2": lambda c: DMD2(c.critic(), c.discriminator()),
    "DecoupledDMD": lambda c: DecoupledDMD(c.critic(), UniformTimesteps()),
    "TDM": lambda c: TDM(c.critic()),
    "SenseFlow": lambda c: SenseFlow(c.critic(), c.discriminator()),
    "ADDDistillation": lambda c: ADDDistillation(c.discriminator()),
    "LADD": lambda c: LADD(c.discriminator()),
    "BregmanDistill": lambda c: BregmanDistill(0.5, c.critic(), c.discriminator()),
}
"""Every objective with the networks of a carrier; none of them knows which carrier it is."""
