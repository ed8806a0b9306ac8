"""Laws of critics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scoredistill.critics.critic import Critic, TrainedPart
from scoredistill.critics.trained import TrainedCritic, reuse_forward
from scoredistill.diffusion.prediction import Prediction
from scoredistill.networks.modules import eval_mode
from scoredistill.ratios.ratio import DensityRatio
from scoredistill.teachers.teacher import Teacher
from scoredistill.testing.law import (
    DTYPES,
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
from scoredistill.testing.reference import ReferenceTeacher
from scoredistill.testing.trained import require_trainable
from scoredistill.types import Condition, Diffused, Sample

ROWS = 6


@dataclass(frozen=True)
class Setting:
    """A critic, perhaps a ratio, and what they are checked with; see `check_critic`."""

    critic: Critic | None
    ratio: DensityRatio | None
    shape: tuple[int, ...]
    teacher: Teacher
    condition: Condition | None
    may_refuse: bool

    def bound(self, dtype: torch.dtype = torch.float64) -> tuple[Critic | None, DensityRatio | None, Teacher]:
        """Copies of the critic, the ratio and the teacher, bound to one another."""
        critic, ratio, teacher = deepcopy((self.critic, self.ratio, self.teacher))
        teacher.requires_grad_(False).eval()
        if critic is not None:
            critic.bind(teacher)
            critic.to(dtype)
        if ratio is not None:
            for module in ratio.modules():
                if isinstance(module, Critic):
                    module.bind(teacher)
            ratio.bind(teacher, critic)
            ratio.to(dtype)
        return critic, ratio, teacher.to(dtype)

    def predictor(self, dtype: torch.dtype = torch.float64) -> tuple[Critic, Teacher]:
        """The critic and the teacher."""
        critic, _, teacher = self.bound(dtype)
        assert critic is not None
        return critic, teacher

    def diffused(self, teacher: Teacher, t: Tensor | None = None, dtype: torch.dtype = torch.float64) -> Diffused:
        """Diffused samples with particles, a population and real data."""
        numbers = rng(1)
        rows = ROWS if t is None else len(t)
        x, data, epsilon = (torch.randn(rows, *self.shape, generator=numbers).to(dtype) for _ in range(3))
        t = 0.05 + 0.9 * torch.rand(rows, generator=numbers) if t is None else t
        condition = self.condition
        condition = condition if condition is None or condition.rows is None else condition[torch.arange(rows) % ROWS]
        condition = teacher.encode_prompt(condition, rows)
        views = None if condition is None else condition.views
        sample = Sample(x, condition, torch.arange(rows) % ROWS, views, x, views, data=data)
        return Diffused.diffuse(sample, t.to(dtype), epsilon, teacher.schedule, 0.5, rng())


def check_critic(
    critic: Critic,
    *,
    shape: Sequence[int] = (2,),
    teacher: Teacher | None = None,
    condition: Condition | None = None,
    may_refuse: bool = True,
    laws: Sequence[str] | None = None,
    skip: Mapping[str, str] | None = None,
) -> None:
    """Check a critic against the laws that every one satisfies. The critic itself is not changed.

    Args:
        critic: what is checked.
        shape: *D, the shape of one sample, >= 1.
        teacher: a small model of p, to which it is bound; None: a `ReferenceTeacher` of that shape.
        condition: of six rows; None: unconditional.
        may_refuse: whether a prediction may be refused by a `ValueError` at the ends of t.
        laws: names of the laws to run; None: all of them.
        skip: names of laws that do not apply, each with the reason; None: none.

    Raises:
        AssertionError: naming the law that does not hold, by how much, and where.
    """
    reference = teacher or ReferenceTeacher(shape)
    run(critic, Setting(critic, None, tuple(shape), reference, condition, may_refuse), LAWS, laws, skip)


def uses_the_schedule(setting: Setting) -> None:
    """A prediction has the samples' alpha and sigma, and binding a critic twice is the same as once."""
    critic, teacher = setting.predictor()
    diffused = setting.diffused(teacher)
    with eval_mode(critic):
        prediction = critic(diffused)
        with unchanged(critic, teacher, what="binding once more"):
            critic.bind(teacher)
    t = torch.linspace(0, 1, 9)
    pairs = zip(("alpha", "sigma"), prediction.schedule(t), diffused.schedule(t), strict=True)
    for name, ours, given in pairs:
        agree(ours, given, name, rtol=1e-12)


def shape_and_type(setting: Setting) -> None:
    """A prediction is one at x_t and t, with the samples' shape and floating-point type."""
    for dtype in DTYPES:
        critic, teacher = setting.predictor(dtype)
        diffused = setting.diffused(teacher, dtype=dtype)
        prediction = critic(diffused)
        hold(isinstance(prediction, Prediction), f"forward returns a {type(prediction).__name__} and no Prediction")
        agree(prediction.x_t, diffused.x_t, "x_t of the prediction")
        agree(prediction.t, diffused.t, "t of the prediction")
        has_shape(prediction.epsilon, diffused.x_t.shape, "epsilon")
        hold(prediction.epsilon.dtype == dtype, f"epsilon at {dtype} samples is {prediction.epsilon.dtype}")
        is_finite(prediction.epsilon, f"epsilon in {dtype}")


def no_side_effects(setting: Setting) -> None:
    """A prediction changes no parameter, buffer or mode, and a second one is the same in evaluation mode."""
    critic, teacher = setting.predictor()
    diffused = setting.diffused(teacher)
    with eval_mode(critic):
        with unchanged(critic, teacher, what="a prediction"):
            first = critic(diffused).epsilon
        agree(critic(diffused).epsilon, first, "epsilon, predicted a second time,")


def one_by_one(setting: Setting) -> None:
    """The prediction at a batch is that at its samples one by one."""
    critic, teacher = setting.predictor()
    diffused = setting.diffused(teacher)
    with eval_mode(critic):
        rows = [critic(each).epsilon for each in rows_of(diffused)]
        agree(torch.cat(rows), critic(diffused).epsilon, "epsilon at single samples", rtol=1e-10, atol=1e-12)


def score_of_log_prob(setting: Setting) -> None:
    """A critic with `log_prob` predicts the gradient of it: epsilon = -sigma grad log q_t(x_t)."""
    critic, teacher = setting.predictor()
    diffused = setting.diffused(teacher)
    try:
        with eval_mode(critic):
            log_prob = critic.log_prob(diffused)
    except TypeError:  # it has none
        return
    has_shape(log_prob, diffused.t.shape, "log_prob")
    with eval_mode(critic), torch.enable_grad():
        x_t = diffused.x_t.detach().requires_grad_()
        (score,) = torch.autograd.grad(critic.log_prob(replace(diffused, x_t=x_t)).sum(), x_t)
        epsilon = critic(diffused).epsilon
    sigma = diffused.sigma.reshape(-1, *[1] * len(setting.shape))
    agree(epsilon, -sigma * score, "epsilon, against -sigma times the gradient of log_prob,", rtol=1e-8, atol=1e-9)


def ends_of_time(setting: Setting) -> None:
    """A prediction is finite on all of [0, 1] in float32 and float64, or refused by a ValueError."""
    for dtype in DTYPES:
        critic, teacher = setting.predictor(dtype)
        diffused = setting.diffused(teacher, ends(dtype), dtype)
        for row in rows_of(diffused):
            what = f"epsilon in {dtype} at t = {float(row.t)!r}"
            finite_or_refused(what, setting.may_refuse, dtype, _epsilon, critic, row)


def trainable(setting: Setting) -> None:
    """A trained critic has an error per sample, and a step along its gradient, the critic's alone, lowers it."""
    critic, teacher = setting.predictor()
    if isinstance(critic, TrainedPart):
        require_trainable(critic, lambda: setting.diffused(teacher), teacher)


def reused_forward(setting: Setting) -> None:
    """Inside `reuse_forward` a trained critic's error is the same, from one call of its network."""
    critic, teacher = setting.predictor()
    if not isinstance(critic, TrainedCritic):
        return
    diffused = setting.diffused(teacher)
    with eval_mode(critic):
        expected = critic.training_error(diffused, teacher)
    with reuse_forward(critic):
        critic(diffused)
        agree(critic.training_error(diffused, teacher), expected, "training_error", rtol=1e-12)


def _epsilon(critic: Critic, diffused: Diffused) -> Tensor:
    epsilon: Tensor = critic(diffused).epsilon
    return epsilon


def rows_of(diffused: Diffused) -> list[Diffused]:
    """The diffused samples one by one, with the population of all."""
    return [
        replace(diffused, x_t=diffused.x_t[i], t=diffused.t[i], epsilon=diffused.epsilon[i], sample=diffused.sample[i])
        for i in torch.arange(len(diffused.t)).split(1)
    ]


LAWS = (
    uses_the_schedule,
    shape_and_type,
    no_side_effects,
    one_by_one,
    score_of_log_prob,
    ends_of_time,
    trainable,
    reused_forward,
)
