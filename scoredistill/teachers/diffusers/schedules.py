"""The noise schedule that a scheduler of diffusers describes."""

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
    """alpha and sigma of the process that a scheduler's config names; how the scheduler would sample it is left aside.

    A flow's `shift` is left aside too: it only moves the times at which a sampler stops.

    Args:
        scheduler: of diffusers.

    Raises:
        ValueError: if it has neither betas nor a flow.
    """
    config = scheduler.config
    if is_flow(scheduler):
        return FlowSchedule()
    if not hasattr(scheduler, "betas"):
        raise ValueError(
            f"model: the schedule of a {type(scheduler).__name__} is not known; known are schedulers with betas (DDPM, "
            "DDIM, PNDM, Euler, DPMSolver, UniPC) and of flows (FlowMatchEuler)"
        )
    plain = config.get("trained_betas") is None and not config.get("rescale_betas_zero_snr")
    if plain and config.beta_schedule in ("linear", "scaled_linear"):
        scaled = config.beta_schedule == "scaled_linear"
        return LinearSchedule(config.beta_start, config.beta_end, scaled, config.num_train_timesteps)
    return DiscreteSchedule(scheduler.betas)


def prediction_of(scheduler: Any) -> Parameterization:
    """What the network outputs, by its scheduler's config.

    Args:
        scheduler: of diffusers.

    Raises:
        ValueError: if that is not known.
    """
    kind = "flow_prediction" if is_flow(scheduler) else scheduler.config.get("prediction_type", "epsilon")
    if kind not in _PREDICTIONS:
        raise ValueError(f"model: the scheduler's prediction_type {kind!r} is not among {', '.join(_PREDICTIONS)}")
    return _PREDICTIONS[kind]
