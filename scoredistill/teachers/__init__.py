"""Teachers: frozen models of the score."""

from scoredistill.teachers.analytic import Digits, Empirical, GaussianMixture
from scoredistill.teachers.diffusers import DiffusersTeacher, PromptSettings
from scoredistill.teachers.gallery import Gallery
from scoredistill.teachers.latent_diffusion import LatentDiffusionTeacher
from scoredistill.teachers.network import NetworkTeacher
from scoredistill.teachers.sampling import Churn, sample
from scoredistill.teachers.teacher import Teacher

__all__ = [
    "Churn",
    "DiffusersTeacher",
    "Digits",
    "Empirical",
    "Gallery",
    "GaussianMixture",
    "LatentDiffusionTeacher",
    "NetworkTeacher",
    "PromptSettings",
    "Teacher",
    "sample",
]
