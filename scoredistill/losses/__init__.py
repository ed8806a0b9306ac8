"""Objectives: choices of slots of one gradient, scalars through the networks, and terms around them.

SDS = VSD with DiracCritic,   VSD = FDistill with ReverseKL,   FDistill = the trunk with a critic and a divergence
CSD, DDS = the trunk with B the teacher's own, without the condition or at a reference
"""

from scoredistill.losses.adversarial import LADD, ADDDistillation, ADDWeight, WithGAN
from scoredistill.losses.csd import CSD
from scoredistill.losses.dds import DDS
from scoredistill.losses.distillation import SDS, VSD, DMDNormalizer, FDistill, GradientNormalizer, ScoreDistillation
from scoredistill.losses.few_step import DMD, DMD2, DecoupledDMD, Regression
from scoredistill.losses.objective import Gradient, Objective, Reweighting
from scoredistill.losses.scalar import ScalarDistillation
from scoredistill.losses.segments import TDM, SenseFlow

__all__ = [
    "CSD",
    "DDS",
    "DMD",
    "DMD2",
    "LADD",
    "SDS",
    "TDM",
    "VSD",
    "ADDDistillation",
    "ADDWeight",
    "DMDNormalizer",
    "DecoupledDMD",
    "FDistill",
    "Gradient",
    "GradientNormalizer",
    "Objective",
    "Regression",
    "Reweighting",
    "ScalarDistillation",
    "ScoreDistillation",
    "SenseFlow",
    "WithGAN",
]
