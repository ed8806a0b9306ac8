"""Neural radiance fields."""

from scoredistill.generators.nerf.field import Field
from scoredistill.generators.nerf.initial_density import DensityBlob, HollowSphere, Initial
from scoredistill.generators.nerf.march import March
from scoredistill.generators.nerf.nerf import NeRF
from scoredistill.generators.nerf.occupancy import Occupancy
from scoredistill.generators.nerf.ray_sampling import RaySamples
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
