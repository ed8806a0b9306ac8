"""Variational score distillation: f-distill under reverse KL."""

from __future__ import annotations

from scoredistill.critics.base import Critic
from scoredistill.diffusion.weights import TimeWeight
from scoredistill.divergences import ReverseKL
from scoredistill.losses.fdistill import FDistill
from scoredistill.losses.normalise import GradientNormaliser


class VSD(FDistill):
    """g = w(t) (epsilon_teacher - epsilon_critic): `FDistill` with `ReverseKL`, h = 1.

    ProlificDreamer: High-Fidelity and Diverse Text-to-3D Generation with VSD, 2023, arXiv:2305.16213.

    Args:
        critic: the model of the generator's score.
        weight: w(t); None: `SigmaSquared`.
        normaliser: rescales each sample's gradient; None: no rescaling.
    """

    def __init__(
        self, critic: Critic, weight: TimeWeight | None = None, normaliser: GradientNormaliser | None = None
    ) -> None:
        super().__init__(ReverseKL(), critic, weight=weight, normaliser=normaliser)
