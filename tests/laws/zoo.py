"""The classes that all laws run over. A new divergence, critic or loss is one line in its list."""

from collections.abc import Callable

import torch
from torch import Tensor

from scoredistill.critics import (
    Critic,
    DiracCritic,
    ExactCritic,
    LoRACritic,
    NetworkCritic,
    ParticleCritic,
    TrainedPart,
)
from scoredistill.diffusion import (
    CFG,
    CFGZeroStar,
    CosineSchedule,
    DiscreteSchedule,
    DivergenceWeight,
    DreamTimeTimesteps,
    EDMSchedule,
    FlowSchedule,
    FlowWeight,
    Guidance,
    IntervalCFG,
    LinearSchedule,
    LogitNormalTimesteps,
    LogNormalTimesteps,
    NoiseLevelTimesteps,
    PerpNeg,
    PolynomialTimesteps,
    ProjectedCFG,
    RescaledCFG,
    ShiftedTimesteps,
    SigmaSquaredWeight,
    SNRWeight,
    SquareRootTimesteps,
    StudentTTimesteps,
    TimestepSampler,
    TimeWeight,
    TwoStageTimesteps,
    UniformTimesteps,
    UniformWeight,
    X0Weight,
)
from scoredistill.divergences import (
    Alpha,
    BregmanPower,
    Divergence,
    ForwardKL,
    Jeffreys,
    JensenShannon,
    Neyman,
    Pearson,
    ReverseKL,
    SoftenedReverseKL,
    SquaredHellinger,
)
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
    ADDWeight,
    BregmanDistill,
    Bridge,
    Consistent3D,
    DecoupledDMD,
    DiffInstruct,
    DMDNormalizer,
    FDistill,
    GaussianPosterior,
    HiFA,
    LearnedManifold,
    LookaheadVSD,
    Objective,
    ParticlePosterior,
    PosteriorWeight,
    RandomizedSJC,
    Regression,
    RenyiDistill,
    Reward,
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
from scoredistill.ratios import BatchMeanNormalizer, ClampRatio, DiscriminatorRatio, ExactRatio, TimeBinNormalizer
from scoredistill.rendering.camera import Camera
from scoredistill.teachers import GaussianMixture, NetworkTeacher
from scoredistill.types import Condition, Diffused

DIVERGENCES: list[Divergence] = [
    ReverseKL(),
    SoftenedReverseKL(),
    JensenShannon(),
    SquaredHellinger(),
    ForwardKL(),
    Jeffreys(),
    Pearson(),
    Neyman(),
    Alpha(0.5),
    Alpha(-0.5),
    Alpha(1.5),
    BregmanPower(0.5),
]

SCHEDULES = [CosineSchedule(), LinearSchedule(), LinearSchedule(1e-4, 0.02, scaled=False), EDMSchedule(),
             EDMSchedule(0.01, 50.0, float("inf")), FlowSchedule()]  # fmt: skip

WITHOUT_TERMINAL_SIGNAL = DiscreteSchedule(torch.tensor([0.1, 0.5, 1.0]))

WEIGHTS: list[TimeWeight] = [
    SigmaSquaredWeight(),
    UniformWeight(),
    DivergenceWeight(),
    X0Weight(),
    FlowWeight(),
    PosteriorWeight(),
    SNRWeight(),
    ADDWeight(),
]

TIMESTEPS: list[TimestepSampler] = [
    UniformTimesteps(0.0, 1.0),
    UniformTimesteps(0.0, 0.0),
    UniformTimesteps(1.0, 1.0),
    TwoStageTimesteps(0.0, 1.0),
    LogNormalTimesteps(0.0, 100.0),
    NoiseLevelTimesteps(1e-30),
    NoiseLevelTimesteps(1e30),
    DreamTimeTimesteps(low=0.0),
    DreamTimeTimesteps(high=1.0),
    ShiftedTimesteps(3.0, 0.0, 1.0),
    SquareRootTimesteps(0.0, 1.0),
    LogitNormalTimesteps(0.0, 100.0),
    StudentTTimesteps(degrees=1.0),
    PolynomialTimesteps(1e-30, 1e30, 1.0),
]


def name(thing: object) -> str:
    """A readable test id."""
    return f"{type(thing).__name__}{getattr(thing, 'alpha', '') if isinstance(thing, Divergence) else ''}"


def mlp(shape: tuple[int, ...] = (2,)) -> MLPBackbone:
    """A small network with nonzero weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = MLPBackbone(shape, hidden=16, layers=2)
        torch.nn.init.normal_(network.out.weight)
    return network


def mlp_critic(shape: tuple[int, ...] = (2,)) -> NetworkCritic:
    """A small network critic."""
    return NetworkCritic(mlp(shape))


CRITICS: dict[str, Callable[[], Critic]] = {
    "dirac": DiracCritic,
    "particles": lambda: ParticleCritic(0.1),
    "network": mlp_critic,
    "lora": lambda: LoRACritic(LoRA(2, targets=["layers.1"]), NetworkTeacher(mlp(), prediction="epsilon")),
    "exact": lambda: ExactCritic(GaussianMixture(torch.tensor([[0.5, -0.3]]), 0.8)),
}


def discriminator(shape: tuple[int, ...] = (2,)) -> DiscriminatorRatio:
    """A small learned ratio with nonzero weights."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        ratio = DiscriminatorRatio(MLPBackbone(shape, hidden=16, layers=2), hidden=8)
        torch.nn.init.normal_(ratio.head.out.weight)  # type: ignore[union-attr]
    return ratio


class Brightness(Reward):
    """The mean of a sample."""

    def forward(self, pictures: Tensor, condition: Condition | None) -> Tensor:
        return pictures.flatten(1).mean(1)


class Quadratic(torch.nn.Module):
    """A function of x_t and t for control variates."""

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        return 1 + t - 0.1 * x_t.square().flatten(1).sum(1)


LOSSES: dict[str, Callable[[], Objective]] = {
    "SDS": SDS,
    "CSD": CSD,
    "DDS": lambda: DDS(torch.tensor([[0.4, -0.2]]), prompt="left"),
    "NFSD": NFSD,
    "Bridge": Bridge,
    "Bridge-switched": lambda: Bridge(switch=0.4),
    "PDS": lambda: PDS(torch.tensor([[0.4, -0.2]]), prompt="left"),
    "ISM": ISM,
    "SDI": SDI,
    "RFDS": RFDS,
    "RFDSRev": RFDSRev,
    "DiffInstruct": lambda: DiffInstruct(mlp_critic()),
    "SwiftBrush": lambda: SwiftBrush(CRITICS["lora"]()),
    "ESD-particles": lambda: ESD(ParticleCritic(0.1)),
    "ESD-lora": lambda: ESD(CRITICS["lora"]()),
    "ASD": lambda: ASD(mlp_critic()),
    "LearnedManifold": lambda: LearnedManifold(mlp()),
    "SteinSD": SteinSD,
    "RandomizedSJC": RandomizedSJC,
    "SteinSD-quadratic": lambda: SteinSD(Quadratic()),
    "Consistent3D": Consistent3D,
    "HiFA": HiFA,
    "SiD": lambda: SiD(mlp_critic()),
    "SiDA": lambda: SiDA(mlp_critic(), discriminator()),
    "SIM": lambda: SIM(mlp_critic()),
    "UniInstruct": lambda: UniInstruct(JensenShannon(), ParticleCritic(0.1), ExactRatio()),
    "VarDiU-particles": lambda: VarDiU(ParticlePosterior()),
    "VarDiU-Gaussian": lambda: VarDiU(GaussianPosterior(mlp())),
    "BregmanDistill": lambda: BregmanDistill(0.5, ParticleCritic(0.1), ExactRatio()),
    "SDS-DMD": lambda: SDS(normalizer=DMDNormalizer()),
    **{f"VSD-{key}": (lambda make=make: VSD(make())) for key, make in CRITICS.items()},
    **{
        f"FDistill-{name(divergence)}": (
            lambda divergence=divergence: FDistill(divergence, ParticleCritic(0.1), ExactRatio())
        )
        for divergence in DIVERGENCES
    },
    "FDistill-network-clamped": lambda: FDistill(
        ForwardKL(), mlp_critic(), ExactRatio(q=ParticleCritic(0.1)), [ClampRatio(), TimeBinNormalizer()]
    ),
    "FDistill-discriminator": lambda: FDistill(JensenShannon(), ParticleCritic(0.1), discriminator(), [ClampRatio()]),
    "DMD": lambda: DMD(mlp_critic()),
    "DMD2": lambda: DMD2(mlp_critic(), gan_weight=0.3),
    "DecoupledDMD": lambda: DecoupledDMD(mlp_critic()),
    "Regression": Regression,
    "ADDDistillation": lambda: ADDDistillation(discriminator()),
    "LADD": lambda: LADD(discriminator()),
    "TDM": lambda: TDM(mlp_critic()),
    "SenseFlow": lambda: SenseFlow(mlp_critic(), discriminator()),
    "GAN-SDS": lambda: WithGAN(SDS(), discriminator(), gan_weight=0.3),
    "GAN-FDistill": lambda: WithGAN(FDistill(ForwardKL(), mlp_critic(), discriminator()), gan_weight=0.3),
}

BATCH_STATISTICS: dict[str, Callable[[], Objective]] = {
    "RenyiDistill": lambda: RenyiDistill(0.5, ParticleCritic(0.1), ExactRatio()),
    "LookaheadVSD": lambda: LookaheadVSD(mlp_critic()),
    "RandomizedSJC-averaged": lambda: RandomizedSJC(3),
    "RewardSDS": lambda: RewardSDS(Brightness(), noises=4),
    "FDistill-batch-mean": lambda: FDistill(
        ForwardKL(), ParticleCritic(0.1), ExactRatio(), weight_normalizer=BatchMeanNormalizer()
    ),
    "GAN-balanced": lambda: WithGAN(SDS(), discriminator(), balance=0.5),
}

REFUSES_AN_END = {
    *("PDS", "ISM", "SDI", "RFDS", "RFDSRev", "LearnedManifold", "Consistent3D", "HiFA", "RewardSDS"),
    *("SiD", "SiDA", "SIM", "UniInstruct", "VarDiU-particles"),
}
"""Objectives that divide by alpha or sigma: by their weight, for a clean prediction, or for an exact posterior."""

GUIDANCES: dict[str, Callable[[], Guidance]] = {
    "none": CFG,
    "CFG": lambda: CFG(7.5),
    "PerpNeg": lambda: PerpNeg(7.5, {"left": -0.5, "up": -1.0}),
    "IntervalCFG": lambda: IntervalCFG(7.5, 0.3, 2.0),
    "RescaledCFG": lambda: RescaledCFG(7.5),
    "ProjectedCFG": lambda: ProjectedCFG(7.5, 0.2, 1.0),
    "CFGZeroStar": lambda: CFGZeroStar(7.5),
}


CAMERAS = Camera.orbit(60 * torch.arange(1, 7), *(number * torch.ones(6) for number in (15, 2.5, 40)))
"""A camera for each of six rows."""


def training_error(critic: TrainedPart, diffused: Diffused) -> Tensor:
    """The error of a trained part, (B,), with a teacher that it does not call."""
    return critic.training_error(diffused, GaussianMixture(torch.zeros(1, 2), 1.0))


def training_loss(critic: TrainedPart, diffused: Diffused) -> Tensor:
    """The mean of that error."""
    return training_error(critic, diffused).mean()
