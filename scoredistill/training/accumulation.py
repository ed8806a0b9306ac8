"""The objective on a batch whose graph is too large to be held at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from scoredistill.distiller import Step, surrogate
from scoredistill.training.randomness import generator_at
from scoredistill.types import Batch, Sample

if TYPE_CHECKING:
    from scoredistill.training.module import Distillation


def accumulated(module: Distillation, batch: Batch, rng: torch.Generator) -> Step:
    """The objective on the whole batch, the generator's graph one micro-batch at a time.

    Samples are made twice: first without a graph, to evaluate g on all of them together, so that batch statistics and
    particle critics see the whole batch; then from the same random numbers again, to give each its share of g. Those
    are a stream of their own, so that nothing random depends on the number of micro-batches.

    Args:
        module: whose generator gets the gradient.
        batch: what to generate.
        rng: of the tick.
    """
    distiller, parts = module.distiller, batch.split(module.plan.accumulate)
    seed, generate = rng.initial_seed(), distiller.generate
    with torch.no_grad():
        samples = [generate(part, generator_at(seed, 0)) for part in parts]
    whole = Sample.cat(samples)
    # In the order of an unsplit batch, particle by particle, so that each sample gets the same t and epsilon.
    none = torch.zeros(len(whole.x), device=whole.x.device)
    order = torch.argsort(none if whole.particle is None else whole.particle, stable=True)
    whole = whole[order]
    noised = distiller.diffuse(whole, distiller.timesteps, progress=module.progress, rng=rng)
    gradient = distiller.loss.gradient(noised, distiller.teacher, distiller.guidance)
    shares = torch.empty_like(gradient.g).index_copy(0, order, gradient.g)
    for part, g in zip(parts, shares.split([len(s.x) for s in samples]), strict=True):
        sample = generate(part, generator_at(seed, 0))
        share = module.share_of_batch * len(sample.x) / len(whole.x)
        module.manual_backward(share * with_regulariser(surrogate(sample.x, g), sample))
    return Step(surrogate(whole.x, gradient.g), noised, gradient)


def with_regulariser(loss: Tensor, sample: Sample) -> Tensor:
    """The loss and what the generator puts on itself."""
    return loss if sample.regulariser is None else loss + sample.regulariser
