"""The benchmark of a full-size step: its straight-line version equals the package's step, and its small size runs."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from teachers.tiny_pipelines import in_float32
from torch import nn

from scoredistill import Distiller
from scoredistill.critics import LoRACritic
from scoredistill.diffusion import CFG
from scoredistill.generators import ImageParticles
from scoredistill.losses import VSD
from scoredistill.networks import LoRA
from scoredistill.training import PromptAndCameras
from scoredistill.types import Diffused, Sample


@pytest.fixture(autouse=True)
def _scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")


def test_the_straight_line_version_equals_the_package_step() -> None:
    from sd_networks import SIZES, random_teacher
    from sd_steps import GUIDANCE, Networks, adapted, alphas_cumprod

    with in_float32():
        teacher = random_teacher(SIZES["tiny"], "float32").double()
    critic = LoRACritic(LoRA(rank=4), camera=True)
    x, epsilon, index = torch.randn(2, 4, 4, 4), torch.randn(2, 4, 4, 4), torch.tensor([150, 700])
    distiller = Distiller(ImageParticles(x), teacher, VSD(critic), CFG(GUIDANCE)).eval()
    unet: Any = teacher.denoiser.network.network
    texts = teacher.prompts.texts(["a red mug", ""]).tokens
    plain = Networks(unet, teacher.codec.vae, texts, adapted(unet))
    _fill(critic)
    _fill(plain.critic)

    condition = PromptAndCameras("a red mug", views=2).batch_at(0).condition
    assert condition is not None
    assert condition.camera is not None
    t = (index + 1) / 1000
    found = distiller.gradient(x, t=t, epsilon=epsilon, condition=condition)
    alpha = alphas_cumprod()[index][:, None, None, None]
    x_t = alpha.sqrt() * x + (1 - alpha).sqrt() * epsilon
    estimate = plain.estimate(x_t, index, condition.camera.pose.flatten(1))
    torch.testing.assert_close(found, (1 - alpha) * (plain.guided(x_t, index) - estimate), rtol=1e-8, atol=1e-9)
    assert found.abs().max() > 1e-3

    diffused = Diffused.diffuse(Sample(x, condition), t, epsilon, teacher.schedule)
    error = nn.functional.mse_loss(estimate, epsilon)
    torch.testing.assert_close(distiller.critic_loss(diffused=diffused), error, rtol=1e-8, atol=1e-9)
    pictures = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(teacher.encode(pictures), plain.encode(pictures))


def _fill(critic: nn.Module) -> None:
    """Fill adapters and camera embeddings with the same numbers, in their common order."""
    rng = torch.Generator().manual_seed(0)
    for weight in filter(lambda each: each.requires_grad, critic.parameters()):
        weight.data = 0.1 * torch.randn(weight.shape, generator=rng, dtype=weight.dtype)


@pytest.mark.slow
def test_arithmetic_is_counted_for_what_a_step_needs() -> None:
    from sd_bound import counted, step_flops
    from sd_networks import SIZES, TOKENS

    size = SIZES["tiny"]
    with torch.device("meta"):
        unet, latent = size.make_unet(), torch.randn(1, 4, 4, 4)
        forward = counted(lambda: unet(latent, torch.zeros(1), torch.randn(1, TOKENS, size.text)))
    sds, vsd = (step_flops(size, vsd=each) for each in (False, True))
    assert sds > 2 * forward
    assert 1.5 * forward < vsd - sds < 3 * forward


def test_stage_times_exclude_other_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    import step_meter

    clock = iter([0.0, 1.0, 3.0, 6.0, 10.0, 15.0])
    monkeypatch.setitem(step_meter.CLOCKS, "wall", lambda: next(clock))
    meter = step_meter.Meter(torch.device("cpu"))
    meter.start()
    with meter("outer"), meter("inner"):
        pass
    step = meter.stop()
    assert step.seconds == {"other": 1.0 + 5.0, "outer": 2.0 + 4.0, "inner": 3.0}
    assert step.total == 15.0
    assert step.of("inner", "decode") == 3.0


@pytest.mark.slow
def test_the_tiny_size_measures_every_variant(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from sd_step import NETWORK, main

    with in_float32():
        main(
            [
                "--size",
                "tiny",
                "--particles",
                "2",
                "--repeats",
                "1",
                "--device",
                "cpu",
                "--clock",
                "cpu",
                "--output",
                str(tmp_path),
            ]
        )
    report = json.loads((tmp_path / "sd_step_tiny.json").read_text())
    assert {"device", "torch", "diffusers", "threads"} <= report.keys()
    sds, vsd = report["cases"]
    assert (sds["objective"], vsd["objective"]) == ("SDS", "VSD")
    for case in (sds, vsd):
        assert case["steps"].keys() == {"scoredistill", "straight line", "threestudio"}
        assert case["ratios"].keys() == sds["ratios"].keys()
        assert min(*case["ratios"].values(), case["bound_ms"], case["teraflops_per_second"]) >= 0
    for step in vsd["steps"].values():
        assert {*NETWORK, "render", "encode", "backward", "optimizer"} <= step["stages_ms"].keys()
        # Each figure is rounded to a tenth of a millisecond.
        rounding = 0.05 * (1 + len(step["stages_ms"])) + 1e-9
        assert step["ms"] == pytest.approx(sum(step["stages_ms"].values()), rel=0, abs=rounding)
    assert "decode" not in vsd["steps"]["scoredistill"]["stages_ms"]
    assert "critic" not in sds["steps"]["straight line"]["stages_ms"]
    assert capsys.readouterr().out.count("| VSD | 2 |") == 4
