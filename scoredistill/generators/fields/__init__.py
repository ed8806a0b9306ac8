"""Parts of the fields that NeRF and DMTet train: encodings of points, heads and backgrounds."""

from scoredistill.generators.fields.background import Background, LearnedBackground, RandomBackground, SolidBackground
from scoredistill.generators.fields.encodings import DenseGrid, Encoding, Frequency, HashGrid
from scoredistill.generators.fields.heads import DirectHead, Head, MLPHead, ParticleLinear, particle_mlp

__all__ = [
    "Background",
    "DenseGrid",
    "DirectHead",
    "Encoding",
    "Frequency",
    "HashGrid",
    "Head",
    "LearnedBackground",
    "MLPHead",
    "ParticleLinear",
    "RandomBackground",
    "SolidBackground",
    "particle_mlp",
]
