"""Density ratios r = p_t / q_t, and their normalisers."""

from scoredistill.ratios.base import DensityRatio
from scoredistill.ratios.discriminator import DiscriminatorRatio
from scoredistill.ratios.exact import ExactRatio
from scoredistill.ratios.normalise import (
    BatchMeanNormaliser,
    ClampRatio,
    RatioNormaliser,
    TimeBinNormaliser,
    WeightNormaliser,
)

__all__ = [
    "BatchMeanNormaliser",
    "ClampRatio",
    "DensityRatio",
    "DiscriminatorRatio",
    "ExactRatio",
    "RatioNormaliser",
    "TimeBinNormaliser",
    "WeightNormaliser",
]
