"""Noise schedules and prediction types of diffusers' schedulers."""

from __future__ import annotations

from typing import Any

from scoredistill.diffusion.schedule import DiscreteSchedule, FlowSchedule, LinearSchedule, Schedule
from scoredistill.networks.denoiser import Parameterization

_PREDICTIONS: dict[str, Parameterization] = {
    "epsilon": "epsilon",
    "v_prediction": "v",
    "sample": "x0",
    "flow_prediction": "flow",
}


def is_flow(scheduler: Any) -> bool:
    """Whether x_t = (1 - t) x + t epsilon."""
    return type(scheduler).__name__.startswith("FlowMatch") or bool(scheduler.config.get("use_flow_sigmas"))


def schedule_of(scheduler: Any) -> Schedule:
    """The noise schedule of a scheduler's config. Settings of the sampler are ignored.

    A flow's `shift` is ignored too, because it only changes the sampler's times.

    Args:
        scheduler: a scheduler of diffusers.

    Raises:
        ValueError: if it has no betas and is not a flow.
    """
    config = scheduler.config
    if is_flow(scheduler):
        return FlowSchedule()
    if not hasattr(scheduler, "betas"):
        raise ValueError(
            f"model: the schedule of a {type(scheduler).__name__} is not supported; supported are schedulers with "
            "betas (DDPM, DDIM, PNDM, Euler, DPMSolver, UniPC) and of flows (FlowMatchEuler)"
        )
    plain = config.get("trained_betas") is None and not config.get("rescale_betas_zero_snr")
    if plain and config.beta_schedule in ("linear", "scaled_linear"):
        scaled = config.beta_schedule == "scaled_linear"
        return LinearSchedule(config.beta_start, config.beta_end, scaled, config.num_train_timesteps)
    return DiscreteSchedule(scheduler.betas)


def prediction_of(scheduler: Any) -> Parameterization:
    """The output of the network, from its scheduler's config.

    Args:
        scheduler: a scheduler of diffusers.

    Raises:
        ValueError: if the prediction type is not supported.
    """
    kind = "flow_prediction" if is_flow(scheduler) else scheduler.config.get("prediction_type", "epsilon")
    if kind not in _PREDICTIONS:
        raise ValueError(f"model: the scheduler's prediction_type {kind!r} is not among {', '.join(_PREDICTIONS)}")
    return _PREDICTIONS[kind]
