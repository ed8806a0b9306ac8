"""Laws of generators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import chain

import torch
from torch import Tensor

from scoredistill.distributed import ParticleShard
from scoredistill.generators.generator import Generator
from scoredistill.generators.scenes import SceneGenerator
from scoredistill.rendering.camera import Camera
from scoredistill.teachers.teacher import Teacher
from scoredistill.testing.law import (
    agree,
    global_numbers_untouched,
    hold,
    is_finite,
    rng,
    run,
    unchanged,
)
from scoredistill.types import Batch, Condition, Sample

ROWS = 4


@dataclass(frozen=True)
class Setting:
    """A generator, and what it is checked with; see `check_generator`."""

    generator: Generator
    batch: Batch
    teacher: Teacher | None
    dtype: torch.dtype

    @property
    def rtol(self) -> float:
        """What rounding may change: a part of a batch takes other kernels than the batch."""
        return 1e-9 if self.dtype == torch.float64 else 1e-4

    def bound(self) -> Generator:
        """A copy, bound to the teacher."""
        generator = deepcopy(self.generator)
        if self.teacher is not None:
            generator.bind(self.teacher)
        return generator

    def sample(self, generator: Generator, batch: Batch | None = None, seed: int = 0) -> Sample:
        """What the generator makes of the batch."""
        sample: Sample = generator(batch or self.batch, rng(seed))
        return sample


def check_generator(
    generator: Generator,
    *,
    batch: Batch | None = None,
    teacher: Teacher | None = None,
    laws: Sequence[str] | None = None,
    skip: Mapping[str, str] | None = None,
) -> None:
    """Check a generator against the laws that every one satisfies, in its own floating-point type and mode.

    The generator itself is not changed.

    Args:
        generator: what is checked.
        batch: what it generates; None: from two cameras for a `SceneGenerator`, four samples for one from noise, and
            all particles otherwise.
        teacher: the model of p to which it is bound; None: none.
        laws: names of the laws to run; None: all of them.
        skip: names of laws that do not apply, each with the reason; None: none.

    Raises:
        AssertionError: naming the law that does not hold, by how much, and where.
    """
    tensors = chain(generator.parameters(), generator.buffers())
    dtype = next((each.dtype for each in tensors if each.is_floating_point()), torch.get_default_dtype())
    if batch is None and isinstance(generator, SceneGenerator):
        batch = Batch(Condition(camera=_cameras()))
    elif batch is None:
        batch = Batch(size=ROWS) if generator.particles is None else Batch()
    run(generator, Setting(generator, batch, teacher, dtype), LAWS, laws, skip, dtype)


def _cameras() -> Camera:
    every = torch.ones(2)
    return Camera.orbit(torch.tensor([20.0, 200.0]), 15 * every, 2.6 * every, 40 * every)


def rows(setting: Setting) -> None:
    """x is finite, and everything that has rows has as many as x."""
    sample = setting.sample(setting.bound())
    count = len(sample.x)
    hold(sample.x.ndim >= 2, f"x has shape {tuple(sample.x.shape)} and must be (B, *D)")
    is_finite(sample.x, "x")
    fields = {"particle": sample.particle, "view_index": sample.view_index, "noise": sample.noise}
    for name, value in fields.items():
        hold(value is None or len(value) == count, f"{name} has {0 if value is None else len(value)} rows, x {count}")
    condition = None if sample.condition is None else sample.condition.rows
    hold(condition in (None, count), f"the condition has {condition} rows, x {count}")
    if sample.population is not None:
        hold(not sample.population.requires_grad, "the population requires a gradient; detach it")
        hold(sample.population.shape[1:] == sample.x.shape[1:], "the population has another shape than x")
    if sample.regularizer is not None:
        hold(sample.regularizer.shape == (), "the regularizer is no scalar")
        is_finite(sample.regularizer, "the regularizer")


def determined_by_rng(setting: Setting) -> None:
    """With the same rng the samples are the same bit for bit, and torch's global random numbers are not used."""
    generator = setting.bound()
    with global_numbers_untouched("forward"):
        first = setting.sample(generator).x
    agree(setting.sample(generator).x, first, "x, generated a second time,")


def no_side_effects(setting: Setting) -> None:
    """Generating changes no parameter, buffer or mode."""
    generator = setting.bound()
    with unchanged(generator, what="forward"):
        setting.sample(generator)


def gradient_reaches_every_parameter(setting: Setting) -> None:
    """The gradient of the samples and of the regularizer reaches every parameter that requires one."""
    generator = setting.bound()
    parameters = {name: value for name, value in generator.named_parameters() if value.requires_grad}
    sample = setting.sample(generator)
    hold(bool(parameters), "no parameter requires a gradient")
    hold(sample.x.requires_grad, "x has no graph")
    scalar = (sample.x * torch.randn(sample.x.shape, generator=rng(5)).to(sample.x)).sum()
    if sample.regularizer is not None:
        scalar = scalar + sample.regularizer
    gradients = torch.autograd.grad(scalar, list(parameters.values()), allow_unused=True)
    missing = [name for name, each in zip(parameters, gradients, strict=True) if each is None]
    hold(not missing, f"no gradient reaches {', '.join(missing)}")
    for name, each in zip(parameters, gradients, strict=True):
        is_finite(each, f"the gradient of {name}")
    hold(any(bool(each.any()) for each in gradients), "the gradient is zero in every parameter")


def micro_batches(setting: Setting) -> None:
    """A batch that is split into two parts gives the same samples."""
    count = setting.batch.count
    if count is None or count < 2:
        return
    generator = setting.bound()
    batch = setting.sample(generator)
    joined = Sample.cat([setting.sample(generator, part) for part in setting.batch.split(2)])
    # Scenes are ordered by particle in each part.
    order = torch.arange(len(joined.x)) if joined.particle is None else torch.argsort(joined.particle, stable=True)
    _same(joined.x[order], batch.x, "x of two parts, against the batch's,", setting.rtol)
    if batch.regularizer is not None and joined.regularizer is not None:
        what = "the regularizer of two parts, against the batch's,"
        _same(joined.regularizer[None], batch.regularizer[None], what, setting.rtol)


def particles_are_independent(setting: Setting) -> None:
    """`keep_particles` leaves the samples of the particles that are kept as they are."""
    count = setting.generator.particles
    if count is None:
        return
    sample = setting.sample(setting.bound())
    hold(sample.particle is not None, "the samples of a generator with particles have no `particle`")
    assert sample.particle is not None
    for particle in range(count):
        generator = setting.bound()
        generator.keep_particles(particle, 1)
        shard = ParticleShard(process=particle, processes=count, particles=count)
        kept = setting.sample(generator, replace(setting.batch, shard=shard))
        hold(kept.particle is not None, "the samples have no `particle` after keep_particles")
        assert kept.particle is not None
        hold(bool((kept.particle == particle).all()), f"particle {particle} is numbered {kept.particle.tolist()}")
        what = f"x of particle {particle} alone, against that among {count},"
        _same(kept.x, sample.x[sample.particle == particle], what, setting.rtol)


def starts_from_its_like(setting: Setting) -> None:
    """`start_from` another of its class gives the other's samples."""
    generator, other = setting.bound(), setting.bound()
    with torch.no_grad():
        for value in other.parameters():
            value.mul_(0.5)
    generator.start_from(other)
    _same(setting.sample(generator).x, setting.sample(other).x, "x, after start_from,", setting.rtol)


def progress(setting: Setting) -> None:
    """The samples are finite at the beginning, in the middle and at the end of training."""
    generator = setting.bound()
    for step, fraction in enumerate((0.0, 0.5, 1.0)):
        generator.on_progress(step, fraction, rng(step))
        is_finite(setting.sample(generator).x, f"x at progress {fraction:g}")
        hold(generator.progress == fraction, f"progress is {generator.progress:g} after on_progress({fraction:g})")


def _same(actual: Tensor, expected: Tensor, what: str, rtol: float) -> None:
    scale = float(expected.detach().abs().max()) if expected.numel() else 0.0
    agree(actual, expected, what, rtol=rtol, atol=rtol * scale)


LAWS = (
    rows,
    determined_by_rng,
    no_side_effects,
    gradient_reaches_every_parameter,
    micro_batches,
    particles_are_independent,
    starts_from_its_like,
    progress,
)
