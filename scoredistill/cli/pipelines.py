"""Students as pipelines of diffusers, which need nothing of ours to run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from scoredistill.cli.errors import UsageError
from scoredistill.diffusion.schedule import LinearSchedule
from scoredistill.generators.one_step import OneStepUNet
from scoredistill.networks.denoiser import Denoiser
from scoredistill.networks.diffusers import DiffusersBackbone


def save_pipeline(student: OneStepUNet, folder: Path, base: str | None = None) -> None:
    """Write a folder that `DiffusionPipeline.from_pretrained` loads, and whose single step is the student's.

    A UNet2DModel with EDM's preconditioning becomes a `ConsistencyModelPipeline`. A text-conditional student takes the
    place of the network in a copy of the pipeline that its teacher came from, under a one-step DDIM schedule.

    Args:
        student: of one step.
        folder: the destination, which does not exist yet.
        base: the pipeline's folder or hub id, for text-conditional students.

    Raises:
        UsageError: if diffusers has no pipeline whose step is the student's.
    """
    denoiser = student.denoiser
    if denoiser is None or student.schedule is None:
        raise UsageError("the student has no network")
    if len(student.times) > 1:
        raise UsageError(f"a student of {len(student.times)} steps has no pipeline in diffusers; predict samples it")
    network = denoiser.network
    if not isinstance(network, DiffusersBackbone):
        raise UsageError(f"a {type(network).__name__} has no pipeline in diffusers; its weights are in the checkpoint")
    if base is not None:
        _text_pipeline(student, denoiser, network, base).save_pretrained(folder)
    else:
        _consistency_pipeline(student, denoiser, network).save_pretrained(folder)


def _consistency_pipeline(student: OneStepUNet, denoiser: Denoiser, network: DiffusersBackbone) -> Any:
    """x = c_skip sigma z + c_out F(c_in sigma z, 250 log sigma), which is this pipeline's step where sigma_min = 0."""
    from diffusers import CMStochasticIterativeScheduler, ConsistencyModelPipeline, UNet2DModel

    if not isinstance(network.network, UNet2DModel) or network.condition.active:
        raise UsageError("only a UNet2DModel without cameras makes a pipeline by itself; for text give --pipeline BASE")
    if denoiser.prediction != "edm" or network.time != "edm":
        raise UsageError("a pipeline needs EDM's preconditioning: model.teacher prediction: edm and time: edm")
    t = torch.tensor([student.times[0]], dtype=torch.float64)
    assert student.schedule is not None
    if not math.isclose(float(student.schedule.alpha(t)), 1.0):
        raise UsageError("a pipeline needs a variance-exploding schedule, EDM's")
    scheduler = CMStochasticIterativeScheduler(
        sigma_min=0.0,
        sigma_max=float(student.schedule.sigma(t)),
        sigma_data=denoiser.sigma_data,
        clip_denoised=False,
    )
    return ConsistencyModelPipeline(network.network, scheduler)


def _text_pipeline(student: OneStepUNet, denoiser: Denoiser, network: DiffusersBackbone, base: str) -> Any:
    """One DDIM step from index N - 1 to clean, which is the student's where it starts at t = 1."""
    from diffusers import DDIMScheduler, DiffusionPipeline

    kinds = {"epsilon": "epsilon", "v": "v_prediction", "x0": "sample"}
    schedule = student.schedule
    if denoiser.prediction not in kinds or not isinstance(schedule, LinearSchedule) or student.times != (1.0,):
        raise UsageError("a text pipeline needs epsilon, v or x0, a LinearSchedule and times: [1.0]")
    pipeline = DiffusionPipeline.from_pretrained(base)
    scheduler = DDIMScheduler.from_config(
        pipeline.scheduler.config,
        timestep_spacing="trailing",
        set_alpha_to_one=True,
        clip_sample=False,
        prediction_type=kinds[denoiser.prediction],
    )
    pipeline.register_modules(unet=network.network, scheduler=scheduler)
    return pipeline
