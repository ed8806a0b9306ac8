"""Density ratios r = p_t / q_t, and their normalisers."""

from scoredistill.ratios.discriminator import DiscriminatorRatio
from scoredistill.ratios.exact_ratio import ExactRatio
from scoredistill.ratios.normalizers import (
    BatchMeanNormaliser,
    ClampRatio,
    RatioNormaliser,
    TimeBinNormaliser,
    WeightNormaliser,
)
from scoredistill.ratios.ratio import DensityRatio

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
