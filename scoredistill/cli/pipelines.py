"""Exports students as diffusers pipelines, which run without this package."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import torch

from scoredistill.cli.errors import UsageError
from scoredistill.diffusion.schedule import DiscreteSchedule, FlowSchedule, Schedule
from scoredistill.files import atomic_folder
from scoredistill.generators.one_step import OneStepUNet
from scoredistill.networks.denoiser import Denoiser
from scoredistill.networks.diffusers import DiffusersBackbone
from scoredistill.networks.text_backbones import FluxBackbone, MultiViewBackbone
from scoredistill.teachers.diffusers.families import FAMILIES
from scoredistill.teachers.diffusers.loading import Source

GRID = 4_000_001
"""Number of noise levels of a consistency pipeline, enough for an error of a few millionths in each level."""

RHO = 7.0
"""Curvature of these levels, as in EDM."""

Call = dict[str, object]
"""Arguments of a pipeline's call for which its steps are the student's."""

CARD = """\
---
library_name: diffusers
---
A student of {steps}, distilled with scoredistill. To sample it:

```python
from diffusers import DiffusionPipeline

pipeline = DiffusionPipeline.from_pretrained(folder)
pipeline({call})
```
"""


def save_pipeline(student: OneStepUNet, folder: Path, base: Source | None = None) -> str:
    """Write a folder that `DiffusionPipeline.from_pretrained` loads, and whose steps are the student's:

        x_k = x0(alpha_k x_{k-1} + sigma_k z_k, t_k)

    A UNet2DModel with EDM's preconditioning becomes a `ConsistencyModelPipeline`. A text-conditional student replaces
    the network in a copy of its teacher's pipeline, with an `LCMScheduler`, or for flows a stochastic
    `FlowMatchEulerDiscreteScheduler`. README.md in the folder contains the call.

    Args:
        student: with one step or several.
        folder: the destination, which must not exist.
        base: the teacher's pipeline, for text-conditional students.

    Returns:
        The arguments of the pipeline's call, as Python.

    Raises:
        UsageError: if diffusers has no pipeline whose steps are the student's.
    """
    denoiser, schedule = student.denoiser, student.schedule
    if denoiser is None or schedule is None:
        raise UsageError("the student has no network")
    network = denoiser.network
    if not isinstance(network, DiffusersBackbone):
        raise UsageError(f"a {type(network).__name__} has no pipeline in diffusers; its weights are in the checkpoint")
    if (
        student.sampling == "ode"
        and len(student.times) > 1
        and (base is None or not isinstance(schedule, FlowSchedule))
    ):
        raise UsageError("sampling: a pipeline takes the steps of an ode only under a flow's schedule")
    if base is None:
        pipeline, call = _consistency_pipeline(student, denoiser, network, schedule)
    else:
        pipeline, call = _text_pipeline(student, denoiser, network, schedule, base)
    words = ", ".join([*(["prompt"] if base else []), *(f"{name}={value!r}" for name, value in call.items())])
    steps = "one step" if len(student.times) == 1 else f"{len(student.times)} steps"
    with atomic_folder(folder) as draft:
        pipeline.save_pretrained(draft)
        (draft / "README.md").write_text(CARD.format(steps=steps, call=words))
    return words


def _consistency_pipeline(
    student: OneStepUNet, denoiser: Denoiser, network: DiffusersBackbone, schedule: Schedule
) -> tuple[Any, Call]:
    """x_k = c_skip y + c_out F(c_in y, 250 log sigma_k) with y = x_{k-1} + sigma_k z, which are this pipeline's steps
    for sigma_min = 0. Its levels are sigma_1 (1 - i / (GRID - 1))^RHO with integers i as timesteps.
    """
    from diffusers import CMStochasticIterativeScheduler, ConsistencyModelPipeline, UNet2DModel

    if not isinstance(network.network, UNet2DModel) or network.condition.active:
        raise UsageError("only a UNet2DModel without cameras is a pipeline by itself; for text give --base PIPELINE")
    if denoiser.prediction != "edm" or network.time != "edm":
        raise UsageError("a pipeline needs EDM's preconditioning: model.teacher prediction: edm and time: edm")
    t = torch.tensor(student.times, dtype=torch.float64)
    if not torch.allclose(schedule.alpha(t), torch.ones_like(t)):
        raise UsageError("a pipeline needs EDM's variance-exploding schedule")
    sigma = schedule.sigma(t)
    scheduler = CMStochasticIterativeScheduler(
        num_train_timesteps=GRID,
        sigma_min=0.0,
        sigma_max=float(sigma[0]),
        sigma_data=denoiser.sigma_data,
        rho=RHO,
        clip_denoised=False,
    )
    levels = ((1 - (sigma / sigma[0]) ** (1 / RHO)) * (GRID - 1)).round().long().tolist()
    call: Call = {"num_inference_steps": 1} if len(levels) == 1 else {"timesteps": levels[::-1]}
    return ConsistencyModelPipeline(_merged(student, network), scheduler), call


def _text_pipeline(
    student: OneStepUNet, denoiser: Denoiser, network: DiffusersBackbone, schedule: Schedule, base: Source
) -> tuple[Any, Call]:
    """The base with the student's network and a scheduler whose steps are the student's."""
    from diffusers import DiffusionPipeline

    kind = base.name
    if kind not in FAMILIES or kind == "IFPipeline" or isinstance(network, MultiViewBackbone):
        raise UsageError(f"a {type(network).__name__} in a {kind} has no scheduler whose steps are the student's")
    if network.condition.active:
        raise UsageError("a text pipeline cannot pass labels or cameras to its network")
    scheduler = base.read("scheduler")
    made, call = (
        _flow_scheduler(student, denoiser, network, scheduler)
        if isinstance(schedule, FlowSchedule)
        else _discrete_scheduler(student, denoiser, network, schedule, scheduler)
    )
    parts = {FAMILIES[kind].network: _merged(student, network), "scheduler": made}
    pipeline = DiffusionPipeline.from_pretrained(base.model, revision=base.revision, variant=base.variant, **parts)
    scale = network.guidance if isinstance(network, FluxBackbone) else 1.0
    return pipeline, {"guidance_scale": scale} | call


def _discrete_scheduler(
    student: OneStepUNet, denoiser: Denoiser, network: DiffusersBackbone, schedule: Schedule, scheduler: Any
) -> tuple[Any, Call]:
    """x_k = c_out x0 + c_skip y at the integers i_k = N t_k - 1, with c_skip = (1 + (2 i timestep_scaling)^2)^-1, which
    is negligible for a large scaling. Its first y has unit variance; the student's has sigma_1.
    """
    from diffusers import LCMScheduler

    kinds = {"epsilon": "epsilon", "v": "v_prediction", "x0": "sample"}
    if denoiser.prediction not in kinds or not isinstance(schedule, DiscreteSchedule) or network.time != "discrete":
        raise UsageError("a text pipeline needs epsilon, v or x0 under a discrete schedule, or a flow's transformer")
    t = torch.tensor(student.times, dtype=torch.float64)
    position = schedule.steps * t - 1
    index = position.round().long()
    if not torch.allclose(position, index.double(), atol=1e-6) or index[-1] < 1:
        raise UsageError(f"times: a pipeline stops at multiples of 1/{schedule.steps}, not at {list(student.times)}")
    made = LCMScheduler.from_config(
        scheduler.config,
        original_inference_steps=schedule.steps,
        timestep_scaling=1e6,
        clip_sample=False,
        thresholding=False,
        prediction_type=kinds[denoiser.prediction],
    )
    if len(made.alphas_cumprod) != schedule.steps or not torch.allclose(
        made.alphas_cumprod.double()[index].sqrt(), schedule.alpha(t), rtol=0, atol=1e-3
    ):
        raise UsageError("the student's schedule is not that of the base: use the pipeline of its teacher")
    indices = index.tolist()
    return made, {"num_inference_steps": 1} if student.times == (1.0,) else {"timesteps": indices}


def _flow_scheduler(
    student: OneStepUNet, denoiser: Denoiser, network: DiffusersBackbone, scheduler: Any
) -> tuple[Any, Call]:
    """x_k = y - t_k F(y, t_k), y = (1 - t_k) x_{k-1} + t_k z: a flow scheduler's stochastic steps, or its ODE's."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    if denoiser.prediction != "flow" or network.time != "flow" or (denoiser.scale_input and student.times != (1.0,)):
        raise UsageError("a flow's pipeline needs a transformer that predicts the flow from an unscaled x_t")
    made = FlowMatchEulerDiscreteScheduler.from_config(
        scheduler.config,
        shift=1.0,
        use_dynamic_shifting=False,
        shift_terminal=None,
        stochastic_sampling=student.sampling == "consistency",
    )
    return made, {"num_inference_steps": 1} if student.times == (1.0,) else {"sigmas": list(student.times)}


def _merged(student: OneStepUNet, network: DiffusersBackbone) -> Any:
    """The diffusers model, with its adapters merged into a copy of the weights that it shares with the teacher."""
    model: Any = network.network
    if student.lora is None:
        return model
    model = deepcopy(model)
    model.fuse_lora()
    model.unload_lora()
    return model
