"""Neural radiance fields."""

from scoredistill.generators.nerf.field import Field
from scoredistill.generators.nerf.initial import DensityBlob, HollowSphere, Initial
from scoredistill.generators.nerf.march import March
from scoredistill.generators.nerf.nerf import NeRF
from scoredistill.generators.nerf.occupancy import Occupancy
from scoredistill.generators.nerf.regularizers import (
    Emptiness,
    Entropy,
    Opacity,
    Orientation,
    Regularizer,
    Sparsity,
    TotalVariation,
    ZVariance,
)
from scoredistill.generators.nerf.sampling import RaySamples

__all__ = [
    "DensityBlob",
    "Emptiness",
    "Entropy",
    "Field",
    "HollowSphere",
    "Initial",
    "March",
    "NeRF",
    "Occupancy",
    "Opacity",
    "Orientation",
    "RaySamples",
    "Regularizer",
    "Sparsity",
    "TotalVariation",
    "ZVariance",
]
