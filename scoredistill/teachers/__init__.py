"""Frozen models of the score to be distilled."""

from scoredistill.teachers.analytic import Digits, Empirical, GaussianMixture
from scoredistill.teachers.base import Teacher

__all__ = ["Digits", "Empirical", "GaussianMixture", "Teacher"]
