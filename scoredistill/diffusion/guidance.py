"""Guidance: combinations of conditional predictions, with one convention, uncond + s (cond - uncond)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Protocol

from torch import Tensor

from scoredistill.diffusion.prediction import Prediction
from scoredistill.diffusion.schedule import Schedule
from scoredistill.ranges import require
from scoredistill.types import Condition, right_pad_dims


class ConditionalPredictor(Protocol):
    """The interface of a teacher that guidance uses."""

    schedule: Schedule

    def predict_many(self, x_t: Tensor, t: Tensor, conditions: Sequence[Condition | None]) -> list[Prediction]:
        """Predictions of the same x_t under several conditions."""

    def encode_prompt(self, condition: Condition | None, rows: int | None) -> Condition | None:
        """Add the prompt's embeddings to a condition, if the teacher uses embeddings."""


class Guidance(ABC):
    """A combination of the teacher's predictions at one x_t under several conditions.

    A subclass implements `conditions` and `combine`. The teacher is called once for all conditions, including those of
    a loss.
    """

    @abstractmethod
    def conditions(
        self, condition: Condition | None, teacher: ConditionalPredictor, rows: int
    ) -> Sequence[Condition | None]:
        """The conditions whose predictions are combined.

        Args:
            condition: the samples' condition, B rows, or None.
            teacher: used to encode prompts that the guidance adds.
            rows: B.
        """

    @abstractmethod
    def combine(self, predictions: Sequence[Prediction], condition: Condition | None) -> Prediction:
        """The guided prediction.

        Args:
            predictions: of one x_t, under each of `conditions`, in that order.
            condition: the samples' condition, B rows, or None.
        """

    def __call__(
        self, teacher: ConditionalPredictor, x_t: Tensor, t: Tensor, condition: Condition | None
    ) -> Prediction:
        """The guided prediction, from one call of the teacher.

        Args:
            teacher: the model of p.
            x_t: (B, *D).
            t: (B,).
            condition: B rows, or None.
        """
        predictions = teacher.predict_many(x_t, t, self.conditions(condition, teacher, len(x_t)))
        return self.combine(predictions, condition)


class CFG(Guidance):
    """Classifier-free guidance: epsilon = uncond + s (cond - uncond).

    The negative prompt, if any, replaces the unconditional branch. At s = 1, or without a condition, one prediction
    suffices. DreamFusion's 100 is s = 101 here.

    "Classifier-Free Diffusion Guidance" (2022), arXiv:2207.12598.

    Args:
        scale: s, >= 0; 1 is the conditional model itself, 0 the unconditional one.
    """

    def __init__(self, scale: float = 1.0) -> None:
        require(">= 0", scale=scale)
        self.scale = scale

    def conditions(
        self, condition: Condition | None, teacher: ConditionalPredictor, rows: int
    ) -> Sequence[Condition | None]:
        return [condition] if condition is None or self.scale == 1 else [condition, condition.negative()]

    def combine(self, predictions: Sequence[Prediction], condition: Condition | None) -> Prediction:
        if len(predictions) == 1:
            return predictions[0]
        cond, uncond = (prediction.epsilon for prediction in predictions)
        return predictions[0].with_epsilon(uncond + self.scale * (cond - uncond))


class PerpNeg(Guidance):
    """Negative prompts that only act across the positive direction:

        epsilon = uncond + s (d_0 + sum_i w_i perp(d_i, d_0)),    d_i = epsilon_i - uncond,  w_i <= 0

    with perp(a, b) = a - (a.b / b.b) b taken sample by sample, so that a negative prompt never weakens the
    positive one.

    "Re-imagine the Negative Prompt Algorithm: Transform 2D Diffusion into 3D, alleviate Janus problem and Beyond"
    (2023), arXiv:2304.04968.

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
        self.scale = scale
        self.negatives = dict(negatives)

    def conditions(
        self, condition: Condition | None, teacher: ConditionalPredictor, rows: int
    ) -> Sequence[Condition | None]:
        if condition is None:
            raise ValueError("PerpNeg needs a condition with a prompt")
        return [condition, condition.negative(), *map(condition.with_prompt, self.negatives)]

    def combine(self, predictions: Sequence[Prediction], condition: Condition | None) -> Prediction:
        rows = predictions[0].x_t
        weights = [rows.new_full((len(rows),), weight) for weight in self.negatives.values()]
        return perp_neg(predictions, weights, self.scale)


def perp_neg(predictions: Sequence[Prediction], weights: Sequence[Tensor], scale: float) -> Prediction:
    """uncond + s (d_0 + sum_i w_i perp(d_i, d_0)), the formula of `PerpNeg`.

    Args:
        predictions: under the condition, without it, and under each negative prompt.
        weights: w_i in every sample, (B,) for each negative prompt.
        scale: s.
    """
    cond, uncond, *others = (prediction.epsilon for prediction in predictions)
    d_0 = cond - uncond
    direction = d_0
    for weight, other in zip(weights, others, strict=True):
        direction = direction + right_pad_dims(weight.to(d_0), d_0) * perpendicular(other - uncond, d_0)
    return predictions[0].with_epsilon(uncond + scale * direction)


def predict_distinct(
    teacher: ConditionalPredictor, x_t: Tensor, t: Tensor, conditions: Sequence[Condition | None]
) -> list[Prediction]:
    """Predictions under several conditions from one call, in which equal conditions appear once.

    Args:
        teacher: the model of p.
        x_t: (B, *D).
        t: (B,).
        conditions: of B rows each, or None.
    """
    distinct: list[Condition | None] = []
    index = []
    for condition in conditions:
        known = next((i for i, other in enumerate(distinct) if same(condition, other)), len(distinct))
        distinct += [condition] if known == len(distinct) else []
        index.append(known)
    predictions = teacher.predict_many(x_t, t, distinct)
    return [predictions[i] for i in index]


def same(a: Condition | None, b: Condition | None) -> bool:
    """Whether two conditions have equal texts and identical tensors and cameras."""
    if a is None or b is None:
        return a is b
    pairs = ((getattr(a, each.name), getattr(b, each.name)) for each in fields(Condition))
    return all(one is other or (isinstance(one, str | tuple) and one == other) for one, other in pairs)


def perpendicular(a: Tensor, b: Tensor) -> Tensor:
    """The part of a that is orthogonal to b, sample by sample; (B, *D). Where b is zero, a itself."""
    return a - parallel_part(a, b)


def parallel_part(a: Tensor, b: Tensor) -> Tensor:
    """The part of a that is parallel to b, sample by sample; (B, *D). Where b is zero, zero."""
    flat_a, flat_b = a.flatten(1), b.flatten(1)
    norm = (flat_b * flat_b).sum(1, keepdim=True)
    along = (flat_a * flat_b).sum(1, keepdim=True) / norm.where(norm > 0, 1)
    return (along * flat_b).view_as(a)
