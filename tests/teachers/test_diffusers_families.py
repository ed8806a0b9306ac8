"""Every family of pipelines, compared with the library's own pipeline."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from laws.test_end_laws import REFUSED
from teachers.tiny_pipelines import FAMILIES, in_float32, stock, teacher_of
from torch import Tensor

from scoredistill.diffusion import CFG, FlowSchedule, Prediction
from scoredistill.networks.text_backbones import unpack
from scoredistill.rendering.camera import Camera
from scoredistill.teachers import DiffusersTeacher
from scoredistill.types import Condition, Diffused, Sample

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")

ASKED: dict[str, dict[str, Any]] = {
    "sdxl": {"height": 16, "width": 16},
    "sd3": {"height": 16, "width": 16},
    "flux": {"height": 16, "width": 16, "negative_prompt": "", "true_cfg_scale": 3.0},
    "flux-distilled": {"height": 16, "width": 16, "guidance_scale": 3.5, "negative_prompt": "", "true_cfg_scale": 3.0},
    "pixart-alpha": {"use_resolution_binning": False, "height": 16, "width": 16},
    "pixart-sigma": {"use_resolution_binning": False, "height": 16, "width": 16},
    "if": {"output_type": "pt"},
}
STOCK = [family for family in FAMILIES if family != "multi-view"]  # no pipeline of the library passes cameras


def run(pipeline: Any, family: str, prompt: str) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Inputs, times and outputs of the network in two steps of the library's pipeline."""
    network, calls = getattr(pipeline, "transformer", None) or pipeline.unet, []

    def note(module: object, inputs: tuple[Tensor, ...], named: dict[str, Any], output: Any) -> None:
        x = inputs[0] if inputs else named["hidden_states"]
        time = inputs[1] if len(inputs) > 1 else named["timestep"]
        calls.append((x, torch.as_tensor(time).expand(len(x)), output[0]))

    network.register_forward_hook(note, with_kwargs=True)
    settings: dict[str, Any] = {"num_inference_steps": 2, "output_type": "latent"}
    with in_float32():
        pipeline(prompt, generator=torch.Generator().manual_seed(0), **settings | ASKED.get(family, {}))
    return calls


def teachers_time(teacher: DiffusersTeacher, time: Tensor, flux: bool) -> Tensor:
    if isinstance(teacher.schedule, FlowSchedule):
        return time.double() if flux else time.double() / 1000
    return (time.double() + 1) / teacher.schedule.steps  # type: ignore[attr-defined]


@pytest.mark.parametrize("family", STOCK)
def test_the_network_output_equals_that_of_the_pipeline(family: str, tmp_path: Path) -> None:
    settings = {"guidance_embedding": 3.5} if family == "flux-distilled" else {}
    teacher = teacher_of(family, tmp_path, **settings)
    calls, flux = run(stock(teacher), family, "a red mug"), family.startswith("flux")
    assert len(calls) == (4 if flux else 2)
    for i, (x, time, output) in enumerate(calls):
        x, output = (unpack(each, 4) for each in (x, output)) if flux else (x, output)
        branches = [i % 2 == 0] if flux else [False, True]  # FLUX: a call each, prompt first; else one, prompt last
        rows = x.double()[:1], teachers_time(teacher, time, flux)[:1]
        asked = [Condition(prompt="a red mug") if prompted else None for prompted in branches]
        if flux and not branches[0]:
            asked = [Condition(prompt="")]
        ours = torch.cat([each.value for each in teacher.predict_many(*rows, asked)])
        theirs = output[:, : x.shape[1]].double()
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
        assert len(ours) == 1 or (ours[0] - ours[1]).abs().max() > 1e-4


@pytest.mark.parametrize("family", ["sd", "sd-v"])
def test_guidance_equals_that_of_the_pipeline(family: str, tmp_path: Path) -> None:
    teacher = teacher_of(family, tmp_path)
    pipeline, x = stock(teacher), torch.randn(2, 4, 8, 8)
    settings = {
        "guidance_scale": 7.5,
        "num_inference_steps": 3,
        "output_type": "latent",
        "negative_prompt": ["blue"] * 2,
    }
    with in_float32():
        theirs = pipeline(["a mug", "a cat"], latents=x.float(), height=16, width=16, **settings).images
    condition = teacher.encode_prompt(Condition(prompt=("a mug", "a cat"), negative_prompt="blue"), 2)
    guidance = CFG(7.5)
    for index in pipeline.scheduler.timesteps:
        at = guidance(teacher, x, torch.full((2,), (float(index) + 1) / 1000), condition)
        x = pipeline.scheduler.step(at.v if family == "sd-v" else at.epsilon, index, x).prev_sample
    torch.testing.assert_close(x, theirs.double(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_schedule_equals_the_schedulers(family: str, tmp_path: Path) -> None:
    teacher = teacher_of(family, tmp_path)
    scheduler = stock(teacher).scheduler
    x, epsilon = torch.randn(2, 5, 4, 8, 8)
    if isinstance(teacher.schedule, FlowSchedule):
        index = scheduler.timesteps[::222]
        t, noisy = index.double() / 1000, scheduler.scale_noise(x, index, epsilon)
        torch.testing.assert_close(teacher.schedule.sigma(t), scheduler.sigmas[::222].double(), rtol=1e-6, atol=1e-6)
    else:
        index = torch.tensor([0, 10, 500, 900, 999])
        t, alpha = (index + 1) / 1000, scheduler.alphas_cumprod[index].double().sqrt()
        # A step without any signal keeps alpha = 2^-12, so that its logarithm is finite.
        near = {"rtol": 1e-4, "atol": 3e-4 if family == "sd-zero-snr" else 1e-6}
        torch.testing.assert_close(teacher.schedule.alpha(t), alpha, **near)
        # In float32, as they keep it, 1 - alpha^2 has three digits at the first step.
        torch.testing.assert_close(teacher.schedule.sigma(t), (1 - alpha**2).sqrt(), rtol=1e-3, atol=near["atol"])
        torch.testing.assert_close(teacher.schedule.t_at_log_snr(teacher.schedule.log_snr(t)), t)
        noisy = alpha[:, None, None, None] * x + (1 - alpha**2).sqrt()[:, None, None, None] * epsilon
    ours = Diffused.diffuse(Sample(x), t, epsilon, teacher.schedule).x_t
    # The schedulers' alpha^2 is off by up to 2^-24, hence sigma by 2^-25 / sigma, and sigma is .006 or more: 5e-6 times
    # a noise of 4. A step without any signal has alpha = 2^-12 here.
    least = 2**-12 * float(x.abs().max()) if family == "sd-zero-snr" else 0.0
    torch.testing.assert_close(ours, noisy.double(), rtol=0, atol=2e-5 + least)


@pytest.mark.parametrize("family", ["sd", "sd-v", "sd-zero-snr"])
def test_the_clean_sample_equals_the_schedulers(family: str, tmp_path: Path) -> None:
    teacher = teacher_of(family, tmp_path)
    scheduler, x_t = stock(teacher).scheduler, torch.randn(1, 4, 8, 8)
    scheduler.set_timesteps(1000)
    for index in (0, 400, 998):
        at = teacher(x_t, torch.full((1,), (index + 1) / 1000), Condition(prompt="a mug"))
        theirs = scheduler.step(at.value, index, x_t).pred_original_sample
        torch.testing.assert_close(at.x0, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_branches_of_guidance_are_one_call(family: str, tmp_path: Path) -> None:
    from scoredistill.rendering.camera import Camera

    teacher, calls = teacher_of(family, tmp_path), []
    camera = Camera.orbit(torch.tensor([0.0, 90.0]), torch.zeros(2), torch.ones(2), torch.full((2,), 40.0))
    condition = Condition(prompt="a mug", camera=camera if family == "multi-view" else None)
    x_t, t = teacher.encode(torch.randn(2, 3, 16, 16)), torch.tensor([0.3, 0.6])
    teacher.denoiser.network.network.register_forward_hook(lambda module, inputs, output: calls.append(len(output[0])))
    guided = CFG(7.5)(teacher, x_t, t, teacher.encode_prompt(condition, 2))
    assert calls == [4]
    alone = [teacher(x_t, t, each).epsilon for each in (condition, condition.negative())]
    expected = alone[1] + 7.5 * (alone[0] - alone[1])
    torch.testing.assert_close(guided.epsilon, expected, rtol=1e-4, atol=1e-4)
    one = torch.tensor([1])
    row = teacher(x_t[one], t[one], condition[one])  # a batch of two is two batches of one
    torch.testing.assert_close(row.epsilon, alone[0][one], rtol=1e-4, atol=1e-5)


def tried(prediction: Prediction, kind: str) -> Tensor | str:
    """A prediction, or the message of its error."""
    try:
        return getattr(prediction, kind)
    except ValueError as error:
        return str(error)


def refusal(said: str) -> bool:
    return re.search(REFUSED, said) is not None


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prediction_is_finite_at_the_ends_of_time_or_refused_by_name(family: str, tmp_path: Path) -> None:
    teacher = teacher_of(family, tmp_path)
    x_t = torch.randn(1, teacher.codec.channels, *(side // teacher.codec.pixels for side in teacher.size))
    camera = Camera.orbit(*torch.tensor([[0.0], [15.0], [2.6], [40.0]])) if family == "multi-view" else None
    for t in (0.0, 1e-7, 1.0):
        prediction = teacher(x_t, t, Condition(prompt="a red mug", camera=camera))
        assert bool(torch.isfinite(prediction.value).all())
        for kind in ("x0", "epsilon"):
            said = tried(prediction, kind)
            assert bool(torch.isfinite(said).all()) if isinstance(said, Tensor) else t in (0.0, 1.0) and refusal(said)
