"""Objectives: choices of slots of one gradient, scalars through the networks, and terms around them.

distillation    SDS = VSD with DiracCritic,   VSD = FDistill with ReverseKL,   FDistill = the trunk, critic, divergence
differences     CSD, NFSD, Bridge, DDS, PDS: two predictions of the teacher
inversion       ISM, SDI, RFDS, RFDSRev: the noise is found
variational     DiffInstruct, SwiftBrush, ESD, ASD, LookaheadVSD, LearnedManifold: VSD with another critic
control         SteinSD, RandomizedSJC, RewardSDS, Consistent3D: the noise is chosen or weighed
picture         HiFA: a term of the rendered picture
score_identity  SiD, SiDA, SIM, UniInstruct: scalars through teacher and critic
vardiu          VarDiU: a posterior in place of the critic
weighted        RenyiDistill, BregmanDistill: other weights of f-distill
few_step        DMD, DMD2, DecoupledDMD, Regression: students of one or a few steps
segments        TDM, SenseFlow: the steps of such a student
adversarial     WithGAN: a term around any of them; ADDDistillation, LADD
"""

from scoredistill.losses.adversarial import LADD, ADDDistillation, ADDWeight, WithGAN
from scoredistill.losses.control import Consistent3D, DensityReward, RandomizedSJC, Reward, RewardSDS, SteinSD
from scoredistill.losses.differences import CSD, DDS, NFSD, PDS, Bridge, PosteriorWeight
from scoredistill.losses.distillation import SDS, VSD, DMDNormalizer, FDistill, GradientNormalizer, ScoreDistillation
from scoredistill.losses.few_step import DMD, DMD2, DecoupledDMD, Regression
from scoredistill.losses.inversion import ISM, RFDS, SDI, RFDSRev
from scoredistill.losses.objective import Gradient, Objective, Reweighting
from scoredistill.losses.picture import HiFA
from scoredistill.losses.reweighting import RatioWeighted
from scoredistill.losses.scalar import ScalarDistillation
from scoredistill.losses.score_identity import SIM, SiD, SiDA, UniInstruct
from scoredistill.losses.segments import TDM, SenseFlow
from scoredistill.losses.vardiu import GaussianPosterior, ParticlePosterior, Posterior, VarDiU
from scoredistill.losses.variational import (
    ASD,
    ESD,
    DenoisingBias,
    DiffInstruct,
    LearnedManifold,
    LookaheadVSD,
    SwiftBrush,
    TeacherError,
)
from scoredistill.losses.weighted import BregmanDistill, RenyiDistill

__all__ = [
    "ASD",
    "CSD",
    "DDS",
    "DMD",
    "DMD2",
    "ESD",
    "ISM",
    "LADD",
    "NFSD",
    "PDS",
    "RFDS",
    "SDI",
    "SDS",
    "SIM",
    "TDM",
    "VSD",
    "ADDDistillation",
    "ADDWeight",
    "BregmanDistill",
    "Bridge",
    "Consistent3D",
    "DMDNormalizer",
    "DecoupledDMD",
    "DenoisingBias",
    "DensityReward",
    "DiffInstruct",
    "FDistill",
    "GaussianPosterior",
    "Gradient",
    "GradientNormalizer",
    "HiFA",
    "LearnedManifold",
    "LookaheadVSD",
    "Objective",
    "ParticlePosterior",
    "Posterior",
    "PosteriorWeight",
    "RFDSRev",
    "RandomizedSJC",
    "RatioWeighted",
    "Regression",
    "RenyiDistill",
    "Reward",
    "RewardSDS",
    "Reweighting",
    "ScalarDistillation",
    "ScoreDistillation",
    "SenseFlow",
    "SiD",
    "SiDA",
    "SteinSD",
    "SwiftBrush",
    "TeacherError",
    "UniInstruct",
    "VarDiU",
    "WithGAN",
]
