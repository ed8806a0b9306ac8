"""What is trained: particles, NeRFs, meshes, one-step networks."""

from scoredistill.generators.base import Generator
from scoredistill.generators.image import GaussianInit, ImageParticles, ParticleInit
from scoredistill.generators.nerf import NeRF

__all__ = ["GaussianInit", "Generator", "ImageParticles", "NeRF", "ParticleInit"]
