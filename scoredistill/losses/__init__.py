"""Objectives: choices of slots of one gradient, scalars through the networks, and terms around them.

SDS = VSD with DiracCritic,   VSD = FDistill with ReverseKL,   FDistill = the trunk with a critic and a divergence
CSD, DDS = the trunk with B the teacher's own, without the condition or at a reference
"""

from scoredistill.losses.adversarial import WithGAN
from scoredistill.losses.csd import CSD
from scoredistill.losses.dds import DDS
from scoredistill.losses.distillation import SDS, VSD, DMDNormalizer, FDistill, GradientNormalizer, ScoreDistillation
from scoredistill.losses.objective import Gradient, Objective, Reweighting
from scoredistill.losses.scalar import ScalarDistillation

__all__ = [
    "CSD",
    "DDS",
    "SDS",
    "VSD",
    "DMDNormalizer",
    "FDistill",
    "Gradient",
    "GradientNormalizer",
    "Objective",
    "Reweighting",
    "ScalarDistillation",
    "ScoreDistillation",
    "WithGAN",
]
