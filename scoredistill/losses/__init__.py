"""Score-distillation objectives: choices of slots of one gradient.

SDS = VSD with DiracCritic,   VSD = FDistill with ReverseKL,   FDistill = the trunk with a critic and a divergence
"""

from scoredistill.losses.base import Gradient, Reweighting, ScoreDistillation
from scoredistill.losses.fdistill import FDistill
from scoredistill.losses.gan import GAN
from scoredistill.losses.normalise import DMDNormaliser, GradientNormaliser
from scoredistill.losses.sds import SDS
from scoredistill.losses.vsd import VSD

__all__ = [
    "GAN",
    "SDS",
    "VSD",
    "DMDNormaliser",
    "FDistill",
    "Gradient",
    "GradientNormaliser",
    "Reweighting",
    "ScoreDistillation",
]
