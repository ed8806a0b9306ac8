"""Score-distillation objectives: choices of slots of one gradient.

SDS = VSD with DiracCritic,   VSD = FDistill with ReverseKL,   FDistill = the trunk with a critic and a divergence
CSD, DDS = the trunk with B the teacher's own, without the condition or at a reference
"""

from scoredistill.losses.adversarial import WithGAN
from scoredistill.losses.csd import CSD
from scoredistill.losses.dds import DDS
from scoredistill.losses.distillation import (
    SDS,
    VSD,
    DMDNormalizer,
    FDistill,
    Gradient,
    GradientNormalizer,
    Reweighting,
    ScoreDistillation,
)

__all__ = [
    "CSD",
    "DDS",
    "SDS",
    "VSD",
    "DMDNormalizer",
    "FDistill",
    "Gradient",
    "GradientNormalizer",
    "Reweighting",
    "ScoreDistillation",
    "WithGAN",
]
