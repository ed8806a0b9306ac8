"""How the teacher is asked: one convention, uncond + s (cond - uncond), everywhere."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Protocol

from torch import Tensor

from scoredistill.diffusion.prediction import Prediction
from scoredistill.diffusion.schedule import Schedule
from scoredistill.ranges import require
from scoredistill.types import Condition, right_pad_dims


class ConditionalPredictor(Protocol):
    """What guidance needs of a teacher."""

    schedule: Schedule

    def predict_many(self, x_t: Tensor, t: Tensor, conditions: Sequence[Condition | None]) -> list[Prediction]:
        """Predictions of the same x_t under several conditions."""

    def encode_prompt(self, condition: Condition | None, rows: int | None) -> Condition | None:
        """The condition with its prompt as embeddings too, where the teacher has text embedded."""


class Guidance(ABC):
    """A combination of the teacher's predictions under several conditions."""

    @abstractmethod
    def __call__(
        self, teacher: ConditionalPredictor, x_t: Tensor, t: Tensor, condition: Condition | None
    ) -> Prediction:
        """The guided prediction.

        Args:
            teacher: user to ask.
            x_t: (B, *D).
            t: (B,).
            condition: B rows, or None.
        """


class CFG(Guidance):
    """Classifier-free guidance: epsilon = uncond + s (cond - uncond).

    The unconditional branch is the negative prompt's where the condition has one. At s = 1, or without a condition,
    the teacher is asked once. DreamFusion's 100 is s = 101 here.

    Classifier-Free Diffusion Guidance, 2022, arXiv:2207.12598.

    Args:
        scale: s, >= 0; 1 is the conditional model itself, 0 the unconditional one.
    """

    def __init__(self, scale: float = 1.0) -> None:
        require(">= 0", scale=scale)
        self.scale = scale

    def __call__(
        self, teacher: ConditionalPredictor, x_t: Tensor, t: Tensor, condition: Condition | None
    ) -> Prediction:
        if condition is None or self.scale == 1:
            return teacher.predict_many(x_t, t, [condition])[0]
        cond, uncond = (p.epsilon for p in teacher.predict_many(x_t, t, [condition, condition.negative()]))
        return Prediction(x_t, t, teacher.schedule, epsilon=uncond + self.scale * (cond - uncond))


class PerpNeg(Guidance):
    """Negative prompts that only act across the positive direction:

        epsilon = uncond + s (d_0 + sum_i w_i perp(d_i, d_0)),    d_i = epsilon_i - uncond,  w_i <= 0

    with perp(a, b) = a - (a.b / b.b) b taken sample by sample, so that a negative prompt never weakens what the prompt
    asks for.

    Re-imagine the Negative Prompt Algorithm: Transform 2D Diffusion into 3D, alleviate Janus problem and Beyond, 2023,
    arXiv:2304.04968.

    Args:
        scale: s of `CFG`, >= 0.
        negatives: weight w_i <= 0 of each negative prompt.
    """

    def __init__(self, scale: float, negatives: Mapping[str, float]) -> None:
        require(">= 0", scale=scale)
        require("<= 0", negatives=negatives)
        positive = [prompt for prompt, weight in negatives.items() if weight > 0]
        if positive:
            raise ValueError(f"PerpNeg weights must be <= 0; {positive[0]!r} has {negatives[positive[0]]}")
        self.scale, self.negatives = scale, dict(negatives)

    def __call__(
        self, teacher: ConditionalPredictor, x_t: Tensor, t: Tensor, condition: Condition | None
    ) -> Prediction:
        if condition is None:
            raise ValueError("PerpNeg needs a condition with a prompt")
        negatives = [
            (condition.with_prompt(prompt), x_t.new_full((len(x_t),), weight))
            for prompt, weight in self.negatives.items()
        ]
        return perp_neg(teacher, x_t, t, self.scale, condition, negatives)


def perp_neg(
    teacher: ConditionalPredictor,
    x_t: Tensor,
    t: Tensor,
    scale: float,
    condition: Condition,
    negatives: Sequence[tuple[Condition, Tensor]],
) -> Prediction:
    """uncond + s (d_0 + sum_i w_i perp(d_i, d_0)), the formula of `PerpNeg`.

    Args:
        teacher, x_t, t: as for `Guidance`.
        scale: s.
        condition: the positive.
        negatives: the other conditions, and (B,) the weight of each in every sample.
    """
    asked = [condition, condition.negative(), *(negative for negative, _ in negatives)]
    cond, uncond, *others = (p.epsilon for p in teacher.predict_many(x_t, t, asked))
    d_0 = cond - uncond
    direction = d_0
    for (_, weight), other in zip(negatives, others, strict=True):
        direction = direction + right_pad_dims(weight.to(d_0), d_0) * perpendicular(other - uncond, d_0)
    return Prediction(x_t, t, teacher.schedule, epsilon=uncond + scale * direction)


def perpendicular(a: Tensor, b: Tensor) -> Tensor:
    """The part of a that is orthogonal to b, sample by sample; (B, *D). Where b is zero, a itself."""
    flat_a, flat_b = a.flatten(1), b.flatten(1)
    norm = (flat_b * flat_b).sum(1, keepdim=True)
    along = (flat_a * flat_b).sum(1, keepdim=True) / norm.where(norm > 0, 1)
    return (flat_a - along * flat_b).view_as(a)
