"""Score distillation sampling: VSD with the critic of a point mass."""

from __future__ import annotations

from scoredistill.critics.dirac import DiracCritic
from scoredistill.diffusion.weights import TimeWeight
from scoredistill.losses.normalise import GradientNormaliser
from scoredistill.losses.vsd import VSD


class SDS(VSD):
    """g = w(t) (epsilon_teacher - epsilon): `VSD` with `DiracCritic`.

    DreamFusion: Text-to-3D using 2D Diffusion, 2022, arXiv:2209.14988.

    Args:
        weight: w(t); None: `SigmaSquared`.
        normaliser: rescales each sample's gradient; None: no rescaling.
    """

    def __init__(self, weight: TimeWeight | None = None, normaliser: GradientNormaliser | None = None) -> None:
        super().__init__(DiracCritic(), weight=weight, normaliser=normaliser)
