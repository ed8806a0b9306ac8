"""Laws of teachers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from scoredistill.diffusion.prediction import Prediction
from scoredistill.teachers.teacher import Teacher
from scoredistill.testing.law import (
    agree,
    ends,
    finite_or_refused,
    has_shape,
    hold,
    is_finite,
    rng,
    run,
    unchanged,
)
from scoredistill.types import Condition, right_pad_dims

ROWS = 4


@dataclass(frozen=True)
class Setting:
    """A teacher, and what it is checked with; see `check_teacher`."""

    teacher: Teacher
    shape: tuple[int, ...]
    condition: Condition | None
    may_refuse: bool
    dtype: torch.dtype

    @property
    def rtol(self) -> float:
        """What rounding may change: a single row takes other kernels than a batch."""
        return 1e-9 if self.dtype == torch.float64 else 1e-4

    def batch(self) -> tuple[Tensor, Tensor]:
        """x_t, (B, *D), and t, (B,)."""
        numbers = rng(1)
        t = torch.tensor([0.1, 0.35, 0.6, 0.85], dtype=self.dtype)
        alpha, sigma = (right_pad_dims(each, torch.empty(ROWS, *self.shape)) for each in self.teacher.schedule(t))
        x, epsilon = (torch.randn(ROWS, *self.shape, generator=numbers).to(self.dtype) for _ in range(2))
        return (alpha * 0.5 * x + sigma * epsilon).to(self.dtype), t

    def encoded(self) -> Condition | None:
        """The condition as the teacher reads it."""
        return self.teacher.encode_prompt(self.condition, ROWS)

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition | None) -> Prediction:
        """The prediction, without a graph."""
        with torch.no_grad():
            prediction: Prediction = self.teacher(x_t, t, condition)
        return prediction


def check_teacher(
    teacher: Teacher,
    *,
    shape: Sequence[int] = (2,),
    condition: Condition | None = None,
    may_refuse: bool = True,
    laws: Sequence[str] | None = None,
    skip: Mapping[str, str] | None = None,
) -> None:
    """Check a teacher against the laws that every one satisfies, in its own floating-point type.

    Args:
        teacher: what is checked.
        shape: *D, the shape of one sample, >= 1.
        condition: of four rows, or for all rows; None: unconditional.
        may_refuse: whether a prediction may be refused by a `ValueError` at the ends of t.
        laws: names of the laws to run; None: all of them.
        skip: names of laws that do not apply, each with the reason; None: none.

    Raises:
        AssertionError: naming the law that does not hold, by how much, and where.
    """
    tensors = chain(teacher.parameters(), teacher.buffers())
    dtype = next((each.dtype for each in tensors if each.is_floating_point()), torch.float64)
    run(teacher, Setting(teacher, tuple(shape), condition, may_refuse, dtype), LAWS, laws, skip, dtype)


def shape_and_type(setting: Setting) -> None:
    """A prediction, conditional or not, is one at x_t and t, with the samples' shape and floating-point type."""
    x_t, t = setting.batch()
    for name, condition in {"without a condition": None, "under the condition": setting.encoded()}.items():
        prediction = setting.predict(x_t, t, condition)
        hold(isinstance(prediction, Prediction), f"forward returns a {type(prediction).__name__} and no Prediction")
        agree(prediction.x_t, x_t, "x_t of the prediction")
        agree(prediction.t, t, "t of the prediction")
        has_shape(prediction.epsilon, x_t.shape, f"epsilon {name}")
        dtype = prediction.epsilon.dtype
        hold(dtype == setting.dtype, f"epsilon {name} is {dtype} at samples that are {setting.dtype}")
        is_finite(prediction.epsilon, f"epsilon {name}")


def no_side_effects(setting: Setting) -> None:
    """A prediction changes no parameter, buffer or mode, and a second one is the same bit for bit."""
    x_t, t = setting.batch()
    with unchanged(setting.teacher, what="a prediction"):
        first = setting.predict(x_t, t, setting.encoded()).epsilon
    agree(setting.predict(x_t, t, setting.encoded()).epsilon, first, "epsilon, predicted a second time,")


def stays_in_evaluation_mode(setting: Setting) -> None:
    """train() leaves a teacher, and every module in it, in evaluation mode."""
    setting.teacher.train()
    training = [name or "the teacher" for name, module in setting.teacher.named_modules() if module.training]
    hold(not training, f"{', '.join(training)} is in training mode after train()")


def one_by_one(setting: Setting) -> None:
    """The prediction at a batch is that at its samples one by one."""
    (x_t, t), condition = setting.batch(), setting.encoded()
    batch = setting.predict(x_t, t, condition).epsilon
    rows = [
        setting.predict(x_t[i], t[i], None if condition is None else condition[i]).epsilon
        for i in torch.arange(ROWS).split(1)
    ]
    atol = setting.rtol * float(batch.abs().max())
    agree(torch.cat(rows), batch, "epsilon at single samples", rtol=setting.rtol, atol=atol)


def predict_many_is_single_calls(setting: Setting) -> None:
    """`predict_many` gives the predictions of single calls, in the order of the conditions."""
    (x_t, t), condition = setting.batch(), setting.encoded()
    conditions = [condition, None, condition]
    with torch.no_grad():
        together = setting.teacher.predict_many(x_t, t, conditions)
    hold(len(together) == len(conditions), f"it gives {len(together)} predictions for {len(conditions)} conditions")
    for index, (each, own) in enumerate(zip(together, conditions, strict=True)):
        alone = setting.predict(x_t, t, own).epsilon
        atol = setting.rtol * float(alone.abs().max())
        agree(each.epsilon, alone, f"epsilon under condition {index}", rtol=setting.rtol, atol=atol)


def score_of_log_prob(setting: Setting) -> None:
    """An exact teacher predicts the gradient of `log_prob`: epsilon = -sigma grad log p_t(x_t)."""
    (x_t, t), condition = setting.batch(), setting.encoded()
    x_t.requires_grad_()
    with torch.enable_grad():
        try:
            log_prob = setting.teacher.log_prob(x_t, t, condition)
        except TypeError:  # no density in closed form
            return
        has_shape(log_prob, t.shape, "log_prob")
        (score,) = torch.autograd.grad(log_prob.sum(), x_t)
    expected = -right_pad_dims(setting.teacher.schedule(t)[1], score) * score
    epsilon = setting.predict(x_t.detach(), t, condition).epsilon
    atol = 10 * setting.rtol * float(expected.abs().max())
    agree(epsilon, expected, "epsilon, against -sigma times the gradient of log_prob,", 10 * setting.rtol, atol)


def ends_of_time(setting: Setting) -> None:
    """A prediction is finite on all of [0, 1], or refused by a ValueError."""
    condition = setting.encoded()
    condition = condition if condition is None else condition[torch.arange(1)]
    for t in ends(setting.dtype).split(1):
        x_t = setting.batch()[0][:1]
        what = f"epsilon at t = {float(t)!r}"
        finite_or_refused(what, setting.may_refuse, setting.dtype, _epsilon, setting, x_t, t, condition)


def _epsilon(setting: Setting, x_t: Tensor, t: Tensor, condition: Condition | None) -> Tensor:
    return setting.predict(x_t, t, condition).epsilon


LAWS = (
    shape_and_type,
    no_side_effects,
    stays_in_evaluation_mode,
    one_by_one,
    predict_many_is_single_calls,
    score_of_log_prob,
    ends_of_time,
)
