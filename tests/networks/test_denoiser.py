"""Parameterizations: the meaning of the raw output, and its training target."""

from collections.abc import Callable

import pytest
import torch
from diffusers import DiTTransformer2DModel
from laws.zoo import SCHEDULES, name
from torch import Tensor, nn

from scoredistill.diffusion import EDMSchedule, FlowSchedule, Schedule
from scoredistill.networks import Backbone, Denoiser, DiffusersBackbone, MLPBackbone, Parameterization
from scoredistill.networks.modules import eval_mode
from scoredistill.types import Condition, Diffused, Sample

KINDS: list[Parameterization] = ["edm", "epsilon", "x0", "v", "flow", "score"]


class Keeps(Backbone):
    """A backbone that returns and records its input."""

    def forward(self, x: Tensor, log_snr: Tensor, condition: Condition | None) -> Tensor:
        self.seen = x
        return x


def diffused(schedule: Schedule, n: int = 4000, std: float = 0.5) -> Diffused:
    t = schedule.t_at_log_snr(torch.linspace(-8, 8, n))
    return Diffused.diffuse(Sample(std * torch.randn(n, 3)), t, torch.randn(n, 3), schedule)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
def test_edm_preconditioning_is_its_equation(schedule: Schedule) -> None:
    at, denoiser = diffused(schedule, 7), Denoiser(Keeps(), "edm", sigma_data=0.7)
    s = schedule.sigma(at.t) / schedule.alpha(at.t)
    y, d = at.x_t / schedule.alpha(at.t)[:, None], 0.7
    c_skip, c_out, c_in = d**2 / (s**2 + d**2), s * d / (s**2 + d**2).sqrt(), 1 / (s**2 + d**2).sqrt()
    expected = (c_skip + c_out * c_in)[:, None] * y
    torch.testing.assert_close(denoiser(at.x_t, at.t, None, schedule).x0, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kind", ["edm", "v"])
def test_input_and_target_have_about_unit_variance_at_every_noise_level(kind: Parameterization) -> None:
    std = 0.5 if kind == "edm" else 1.0
    schedule = EDMSchedule() if kind == "edm" else SCHEDULES[0]
    at, network = diffused(schedule, 40_000, std), Keeps()
    denoiser = Denoiser(network, kind, sigma_data=0.5)
    # The target makes the error zero: error = |F - F*|^2, and F is the input here.
    denoiser(at.x_t, at.t, None, schedule)
    silent = Denoiser(Zero(), kind, sigma_data=0.5)
    for part in range(4):
        rows = slice(10_000 * part, 10_000 * (part + 1))
        # 3 standard errors of 30,000 independent normal numbers' standard deviation, and of the mean of their squares.
        assert float(network.seen[rows].std()) == pytest.approx(1, abs=3 / (2 * 30_000) ** 0.5)
        assert float(silent.training_error(at)[rows].mean()) == pytest.approx(1, abs=3 * (2 / 30_000) ** 0.5)


def test_a_network_without_input_scaling_gets_x_t() -> None:
    schedule, at = FlowSchedule(), diffused(FlowSchedule(), 7)
    network = Keeps()
    Denoiser(network, "flow", scale_input=False)(at.x_t, at.t, None, schedule)
    assert torch.equal(network.seen, at.x_t)


class Zero(Backbone):
    def forward(self, x: Tensor, log_snr: Tensor, condition: Condition | None) -> Tensor:
        return torch.zeros_like(x)


def test_edm_error_is_the_error_of_x0_under_dmd2s_weight() -> None:
    schedule = EDMSchedule()
    at, denoiser = diffused(schedule, 50), Denoiser(Keeps(), "edm", sigma_data=0.5)
    s = schedule.sigma(at.t)
    x0 = denoiser(at.x_t, at.t, None, schedule).x0
    expected = (1 / s**2 + 1 / 0.5**2) * (x0 - at.sample.x).square().mean(1)
    torch.testing.assert_close(denoiser.training_error(at), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_the_truth_has_no_error(kind: Parameterization) -> None:
    """A backbone that always outputs its target."""
    schedule = SCHEDULES[0]
    at = diffused(schedule, 9)

    class Oracle(Backbone):
        def forward(self, x: Tensor, log_snr: Tensor, condition: Condition | None) -> Tensor:
            return self.target

    oracle = Oracle()
    denoiser = Denoiser(oracle, kind)
    oracle.target = torch.zeros_like(at.x_t)
    raw = denoiser(at.x_t, at.t, None, schedule)
    if kind == "edm":
        s, d = (schedule.sigma(at.t) / schedule.alpha(at.t))[:, None], 0.5
        oracle.target = (at.sample.x - raw.x0) * (s**2 + d**2).sqrt() / (s * d)
    else:
        from scoredistill.diffusion import Prediction

        oracle.target = Prediction.truth(kind, at.sample.x, at.epsilon, at.t, schedule).value
    torch.testing.assert_close(denoiser(at.x_t, at.t, None, schedule).x0, at.sample.x, rtol=1e-6, atol=1e-6)
    assert float(denoiser.training_error(at).max()) < 1e-18


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown parameterization 'noise'"):
        Denoiser(Keeps(), "noise")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="sigma_data must be above 0"):
        Denoiser(Keeps(), sigma_data=0)


def labeled_unet(rows: int, **settings: object) -> DiffusersBackbone:
    from diffusers import UNet2DModel

    network = UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(8, 8), norm_num_groups=4,
        down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"),
        add_attention=False, num_class_embeds=rows,
    )  # fmt: skip
    return DiffusersBackbone(network, classes=4, **settings)  # type: ignore[arg-type]


def test_labels_go_to_the_networks_own_embedding() -> None:
    network = labeled_unet(4)
    assert not list(network.condition.parameters())
    x, t = torch.randn(3, 1, 8, 8), torch.zeros(3)
    first, second = (network(x, t, Condition(label=torch.tensor(label))) for label in ([0, 1, 2], [0, 3, 2]))
    assert (first - second).abs().amax((1, 2, 3)).gt(1e-6).tolist() == [False, True, False]
    with pytest.raises(ValueError, match="the batch has no labels"):
        network(x, t, None)


def test_a_network_with_a_row_for_no_label_works_without_labels() -> None:
    network = labeled_unet(5, label_dropout=0.5)
    x, t = torch.randn(1, 1, 8, 8).repeat(400, 1, 1, 1), torch.zeros(400)
    label = Condition(label=torch.zeros(400, dtype=torch.long))
    with torch.no_grad():
        trained = network(x, t, label)
        with eval_mode(network):
            kept, none = network(x, t, label), network(x, t, None)
    assert network.training
    hidden = (trained - none).abs().amax((1, 2, 3)) < 1e-9
    assert float(hidden.double().mean()) == pytest.approx(0.5, abs=3 * (0.25 / 400) ** 0.5)
    torch.testing.assert_close(trained[~hidden], kept[~hidden])
    with pytest.raises(ValueError, match="num_class_embeds 5, with an embedding for no label"):
        labeled_unet(4, label_dropout=0.1)


@pytest.mark.parametrize(("time", "expected"), [("edm", 0.0), ("flow", 500.0)])
def test_conventions_of_time(time: str, expected: float) -> None:
    seen: list[Tensor] = []
    network = labeled_unet(4, time=time)
    network.network.time_proj.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    network(torch.zeros(2, 1, 8, 8), torch.zeros(2), Condition(label=torch.zeros(2, dtype=torch.long)))
    torch.testing.assert_close(seen[0], torch.full((2,), expected))


def test_discrete_time_is_the_index_of_the_schedule() -> None:
    from scoredistill.diffusion import LinearSchedule

    schedule, seen = LinearSchedule(), []
    network = labeled_unet(4, time="discrete")
    network.network.time_proj.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    index = torch.tensor([0.0, 499.0, 999.0])
    network(torch.zeros(3, 1, 8, 8), schedule.log_snr((index + 1) / 1000), Condition(label=torch.arange(3)))
    torch.testing.assert_close(seen[0], index, rtol=0, atol=1e-6)


def transformer(gradient_checkpointing: bool = False) -> DiffusersBackbone:
    network = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=1,
        num_layers=3,
        sample_size=8,
        patch_size=2,
        num_embeds_ada_norm=5,
        norm_num_groups=1,
    )
    return DiffusersBackbone(network, classes=4, gradient_checkpointing=gradient_checkpointing)


def seeded(function: Callable[..., Tensor], *arguments: object) -> Tensor:
    """Evaluate with the same label dropout every time."""
    torch.manual_seed(0)
    return function(*arguments)


BOTTLENECKS = {
    "unet": lambda: labeled_unet(4),
    "mlp": lambda: MLPBackbone((1, 8, 8), 16, classes=4),
    "transformer": transformer,
    "checkpointing": lambda: transformer(gradient_checkpointing=True).train(),
}


@pytest.mark.parametrize("make", BOTTLENECKS.values(), ids=BOTTLENECKS)
def test_features_are_the_bottlenecks_output_and_the_decoder_is_skipped(make: Callable[[], Backbone]) -> None:
    network, x = make(), torch.randn(3, 1, 8, 8, requires_grad=True)
    asked = (x, torch.zeros(3), Condition(label=torch.arange(3)))
    outputs: list[Tensor] = []
    handle = network.bottleneck.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    whole = seeded(network, *asked)
    handle.remove()
    ran: list[nn.Module] = []
    for module in network.modules():
        module.register_forward_pre_hook(lambda module, inputs: ran.append(module))
    features = seeded(network.features, *asked)
    halfway = len(ran)
    assert network.width in (features.shape[1], features.shape[-1])
    torch.testing.assert_close(features, outputs[0])
    weights = torch.randn_like(features)
    slopes = [torch.autograd.grad((weights * given).sum(), x)[0] for given in (outputs[0], features)]
    assert slopes[0].abs().sum() > 0
    torch.testing.assert_close(*slopes)
    ran.clear()
    torch.testing.assert_close(seeded(network, *asked), whole)
    assert halfway < len(ran)


@pytest.mark.parametrize("make", BOTTLENECKS.values(), ids=BOTTLENECKS)
def test_features_at_several_depths_come_from_one_pass(make: Callable[[], Backbone]) -> None:
    network, x = make(), torch.randn(3, 1, 8, 8, requires_grad=True)
    asked = (x, torch.zeros(3), Condition(label=torch.arange(3)))
    layers = network.feature_layers
    assert len(layers) > 1
    torch.manual_seed(0)
    found = network.features_of([layer.module for layer in layers], *asked)
    for layer, features in zip(layers, found, strict=True):
        assert layer.width == features.shape[1 if layer.spatial else -1]
        assert (features.ndim == 4) == layer.spatial
        (slope,) = torch.autograd.grad(features.square().sum(), x, retain_graph=True)
        assert slope.abs().sum() > 0
    torch.testing.assert_close(found[-1], seeded(network.features, *asked))
    with pytest.raises(RuntimeError, match="does not go through the layers of its features"):
        network.features_of([nn.Linear(1, 1)], *asked)


def test_evaluating_restores_each_module() -> None:
    outer = nn.Sequential(nn.Dropout(), nn.Dropout())
    outer[1].eval()
    with eval_mode(outer):
        assert not any(module.training for module in outer.modules())
    assert [outer.training, outer[0].training, outer[1].training] == [True, True, False]
