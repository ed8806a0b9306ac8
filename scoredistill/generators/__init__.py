"""What is trained: particles, NeRFs, meshes, one-step networks."""

from scoredistill.generators.base import Generator
from scoredistill.generators.image import GaussianInit, ImageParticles, ParticleInit

__all__ = ["GaussianInit", "Generator", "ImageParticles", "ParticleInit"]
