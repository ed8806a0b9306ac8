"""What a step says in the logs: means over the processes."""

from __future__ import annotations

from pytorch_lightning import LightningModule
from torch import Tensor

from scoredistill.diffusion.time_bins import TimeBins
from scoredistill.distiller import Step
from scoredistill.types import Noised


def report_step(module: LightningModule, step: Step, norm: Tensor) -> None:
    """A generator step.

    Args:
        module: whose log it is.
        step: what was evaluated.
        norm: of the whole gradient in the generator's parameters.
    """
    module.log_dict({"loss": step.loss.detach(), "gradient_norm": norm}, prog_bar=True, sync_dist=True)
    figures = {f"objective/{key}": value for key, value in step.gradient.report().items()}
    figures["objective/t"] = step.noised.t.mean()
    if step.noised.sample.regulariser is not None:
        figures["regulariser"] = step.noised.sample.regulariser.detach()
    module.log_dict(figures, sync_dist=True)


def report_critic(
    module: LightningModule, name: str, error: Tensor, norm: Tensor, noised: Noised, levels: TimeBins
) -> None:
    """A step of a critic or a discriminator, by noise level too: level_0 is the noisiest part of the times.

    Args:
        module: whose log it is.
        name: critic or discriminator.
        error: (B,) of each sample.
        norm: of the whole gradient.
        noised: the samples.
        levels: of noise; a level that no sample has is not reported, and so each process has its own.
    """
    module.log_dict({f"{name}/loss": error.mean(), f"{name}/gradient_norm": norm}, sync_dist=True)
    means = levels.means(error, noised.t, noised.schedule)
    module.log_dict({f"{name}/loss/level_{level}": mean for level, mean in means.items()})
