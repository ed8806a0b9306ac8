"""The law of everything that is trained beside the generator."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from scoredistill.critics.critic import TrainedPart
from scoredistill.teachers.teacher import Teacher
from scoredistill.testing.law import has_shape, hold, is_finite
from scoredistill.types import Diffused

DECREASE = 1e-3
"""Share of the error by which a step along the gradient lowers it, to first order."""


def require_trainable(part: TrainedPart, diffused: Callable[[], Diffused], teacher: Teacher) -> None:
    """Require one error per sample, whose gradient is the part's alone, and which a step along it lowers.

    Args:
        part: a critic, a discriminator, or another trained part.
        diffused: makes the diffused samples, with the same random numbers in each call.
        teacher: the model of p.

    Raises:
        BrokenLaw: if one of these does not hold.
    """
    name = type(part).__name__
    parameters = {key: value for key, value in part.named_parameters() if value.requires_grad}
    hold(bool(parameters), f"{name} has a training_error and no parameter that requires a gradient")

    def error() -> Tensor:
        torch.manual_seed(0)  # for dropout
        return part.training_error(diffused(), teacher)

    errors = error()
    has_shape(errors, (len(diffused().t),), f"training_error of {name}")
    is_finite(errors, f"training_error of {name}")
    hold(errors.requires_grad, f"training_error of {name} has no graph")
    frozen = [each for each in teacher.parameters() if each.requires_grad]
    hold(not frozen, f"{name} makes parameters of the teacher trainable")
    gradients = torch.autograd.grad(errors.mean(), list(parameters.values()), allow_unused=True)
    reached = {key: g for key, g in zip(parameters, gradients, strict=True) if g is not None}
    norm2 = float(sum(g.square().sum() for g in reached.values()))
    hold(norm2 > 0, f"the gradient of {name}'s training_error is zero in all of its parameters")
    before = float(errors.detach().mean())
    rate = DECREASE * abs(before) / norm2
    _move(parameters, reached, -rate)
    after = float(error().detach().mean())
    _move(parameters, reached, rate)
    hold(after < before, f"a step along its gradient changes {name}'s training_error from {before:.9g} to {after:.9g}")


@torch.no_grad()
def _move(parameters: Mapping[str, Tensor], gradients: Mapping[str, Tensor], rate: float) -> None:
    for key, gradient in gradients.items():
        parameters[key].add_(rate * gradient)
