"""Generators: image particles, NeRFs, meshes, one-step networks and a teacher's samples."""

from scoredistill.generators.dmtet import DMTet
from scoredistill.generators.generator import Generator
from scoredistill.generators.image import GaussianInit, ImageParticles, ParticleInit, PictureInit
from scoredistill.generators.nerf import NeRF
from scoredistill.generators.one_step import OneStepUNet, SampledTeacher
from scoredistill.generators.scenes import SceneGenerator

__all__ = [
    "DMTet",
    "GaussianInit",
    "Generator",
    "ImageParticles",
    "NeRF",
    "OneStepUNet",
    "ParticleInit",
    "PictureInit",
    "SampledTeacher",
    "SceneGenerator",
]
