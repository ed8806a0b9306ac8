"""Neural radiance fields."""

from scoredistill.generators.fields.background import Background, LearnedBackground, RandomBackground, SolidBackground
from scoredistill.generators.fields.encodings import DenseGrid, Encoding, Frequency, HashGrid
from scoredistill.generators.fields.heads import DirectHead, Head, MLPHead
from scoredistill.generators.nerf.initial import DensityBlob, HollowSphere, Initial
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

__all__ = [
    "Background",
    "DenseGrid",
    "DensityBlob",
    "DirectHead",
    "Emptiness",
    "Encoding",
    "Entropy",
    "Frequency",
    "HashGrid",
    "Head",
    "HollowSphere",
    "Initial",
    "LearnedBackground",
    "MLPHead",
    "NeRF",
    "Occupancy",
    "Opacity",
    "Orientation",
    "RandomBackground",
    "Regularizer",
    "SolidBackground",
    "Sparsity",
    "TotalVariation",
    "ZVariance",
]
