"""Frozen models of the score to be distilled."""

from scoredistill.teachers.analytic import Digits, Empirical, GaussianMixture
from scoredistill.teachers.base import Teacher
from scoredistill.teachers.diffusers import DiffusersTeacher, PromptSettings
from scoredistill.teachers.edm import EDMTeacher
from scoredistill.teachers.gallery import Gallery

__all__ = [
    "DiffusersTeacher",
    "Digits",
    "EDMTeacher",
    "Empirical",
    "Gallery",
    "GaussianMixture",
    "PromptSettings",
    "Teacher",
]
