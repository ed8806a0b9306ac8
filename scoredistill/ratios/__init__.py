"""Density ratios r = p_t / q_t, and their normalizers."""

from scoredistill.ratios.discriminator import DiscriminatorRatio
from scoredistill.ratios.normalizers import (
    BatchMeanNormalizer,
    ClampRatio,
    RatioNormalizer,
    TimeBinNormalizer,
    WeightNormalizer,
)
from scoredistill.ratios.ratio import DensityRatio, ExactRatio

__all__ = [
    "BatchMeanNormalizer",
    "ClampRatio",
    "DensityRatio",
    "DiscriminatorRatio",
    "ExactRatio",
    "RatioNormalizer",
    "TimeBinNormalizer",
    "WeightNormalizer",
]
