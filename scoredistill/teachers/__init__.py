"""Frozen models of the score to be distilled."""

from scoredistill.teachers.analytic import Digits, Empirical, GaussianMixture
from scoredistill.teachers.base import Teacher
from scoredistill.teachers.gallery import Gallery

__all__ = ["Digits", "Empirical", "Gallery", "GaussianMixture", "Teacher"]
