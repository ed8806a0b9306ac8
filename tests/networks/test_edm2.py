"""EDM2's U-Net: published names and shapes, magnitudes, and the inputs on which the output depends."""

import math

import pytest
import torch
from torch import Tensor

from scoredistill.diffusion import CosineSchedule
from scoredistill.networks.denoiser import Denoiser
from scoredistill.networks.edm2 import EDM2UNet, mp_cat, mp_silu, mp_sum, normalized
from scoredistill.types import Condition

# Per block: name, inputs, outputs, inputs of conv_res0, attention.
STAGES = [
    ("enc.8x8_block0", 8, 8, 8, False),
    ("enc.4x4_down", 8, 8, 8, False),
    ("enc.4x4_block0", 8, 16, 16, True),
    ("dec.4x4_in0", 16, 16, 16, True),
    ("dec.4x4_in1", 16, 16, 16, False),
    ("dec.4x4_block0", 32, 16, 32, True),
    ("dec.4x4_block1", 24, 16, 24, True),
    ("dec.8x8_up", 16, 16, 16, False),
    ("dec.8x8_block0", 24, 8, 24, False),
    ("dec.8x8_block1", 16, 8, 16, False),
]


def small(**settings) -> EDM2UNet:
    """A network with STAGES and nonzero gains."""
    return audible(EDM2UNet(8, 3, 8, (1, 2), blocks=1, attention=(4,), classes=5, **settings)).eval()


def audible(network: EDM2UNet) -> EDM2UNet:
    with torch.no_grad():
        for name, value in network.named_parameters():
            if name.endswith("gain"):
                value.fill_(1.0 if name == "out_gain" else 0.5)
    return network


def expected_shapes() -> dict:
    shapes = {"emb_fourier.freqs": (8,), "emb_fourier.phases": (8,), "out_gain": (), "out_conv.weight": (3, 8, 3, 3)}
    shapes |= {"emb_noise.weight": (16, 8), "emb_label.weight": (16, 5), "enc.8x8_conv.weight": (8, 4, 3, 3)}
    for name, inputs, outputs, first, attention in STAGES:
        shapes |= {f"{name}.emb_gain": (), f"{name}.emb_linear.weight": (outputs, 16)}
        shapes |= {f"{name}.conv_res0.weight": (outputs, first, 3, 3)}
        shapes |= {f"{name}.conv_res1.weight": (outputs, outputs, 3, 3)}
        if inputs != outputs:
            shapes |= {f"{name}.conv_skip.weight": (outputs, inputs, 1, 1)}
        if attention:
            shapes |= {f"{name}.attn_qkv.weight": (3 * outputs, outputs, 1, 1)}
            shapes |= {f"{name}.attn_proj.weight": (outputs, outputs, 1, 1)}
    return shapes


def inputs(n: int = 3) -> tuple[Tensor, Tensor, Condition]:
    return torch.randn(n, 3, 8, 8), torch.linspace(-4, 4, n), Condition(label=torch.arange(n))


def rms(x: Tensor) -> float:
    return x.square().mean().sqrt().item()


def test_tensors_have_the_published_names_and_shapes():
    assert {name: tuple(value.shape) for name, value in small().state_dict().items()} == expected_shapes()


@pytest.mark.parametrize(("channels", "millions"), [(128, 125), (192, 280), (256, 498), (320, 778)])
def test_full_networks_have_the_published_size(channels, millions):
    with torch.device("meta"):
        network = EDM2UNet(channels=channels)
    count = sum(value.numel() for value in network.parameters())
    # Published in whole millions, rounded from one decimal: 777.498 becomes 777.5 and then 778.
    assert round(round(count / 1e6, 1)) == millions


def test_rows_depend_on_their_own_noise_and_label_only():
    network, (x, log_snr, condition) = small(), inputs()
    before = network(x, log_snr, condition)
    assert before.shape == x.shape
    louder, relabeled = log_snr.clone(), condition.label.clone()
    louder[1], relabeled[1] = 0.5, 4
    for after in (network(x, louder, condition), network(x, log_snr, Condition(label=relabeled))):
        changed = (after - before).flatten(1).abs().amax(1)
        assert changed[1] > 1e-3
        assert changed[[0, 2]].max() < 1e-12


def test_batch_equals_single_samples():
    network, (x, log_snr, condition) = small(), inputs()
    single = [network(x[[i]], log_snr[[i]], condition[torch.tensor([i])]) for i in range(3)]
    torch.testing.assert_close(network(x, log_snr, condition), torch.cat(single))


def test_without_labels_it_is_the_unconditional_model():
    network, (x, log_snr, condition) = small(), inputs()
    unconditional = network(x, log_snr, None)
    torch.testing.assert_close(network(x, log_snr, Condition()), unconditional)
    assert not torch.allclose(network(x, log_snr, condition), unconditional)
    hiding = small(label_dropout=1.0).train()
    torch.testing.assert_close(hiding(x, log_snr, condition), hiding(x, log_snr, None))


def test_gradient_reaches_every_parameter():
    network, (x, log_snr, condition) = small().train(), inputs()
    network(x, log_snr, condition).pow(3).sum().backward()
    assert [name for name, value in network.named_parameters() if value.grad is None or not value.grad.any()] == []


def test_bottleneck_features_are_available():
    network, (x, log_snr, condition) = small(), inputs()
    assert network.features(x, log_snr, condition).shape == (3, network.width, 4, 4)
    assert network.bottleneck is network.enc["4x4_block0"]
    layers = network.feature_layers
    found = network.features_of([layer.module for layer in layers], x, log_snr, condition)
    assert [features.shape[1:] for features in found] == [
        (layer.width, n, n) for layer, n in zip(layers, (8, 4), strict=True)
    ]


def test_settings_rebuild_the_network():
    network = small(dropout=0.1, label_dropout=0.2)
    again = EDM2UNet(**network.settings)
    again.load_state_dict(network.state_dict())
    assert again.settings == network.settings
    x, log_snr, condition = inputs()
    torch.testing.assert_close(again.eval()(x, log_snr, condition), network(x, log_snr, condition))


def test_activations_keep_their_magnitude():
    # Zero padding loses a little at the border: a factor of sqrt(46 / 48) per convolution at 16 x 16.
    network, seen = audible(EDM2UNet(32, 8, 64, (1, 2), blocks=1, attention=(16,), classes=5)), []
    for stage in [*network.enc.values(), *network.dec.values()]:
        stage.register_forward_hook(lambda module, given, output: seen.append(rms(output)))
    condition = Condition(label=torch.arange(8) % 5)
    seen.append(rms(network(torch.randn(8, 8, 32, 32), torch.randn(8), condition)))
    assert len(seen) == 12
    assert all(0.8 < value < 1.2 for value in seen), [round(value, 3) for value in seen]


def test_building_blocks_keep_magnitude_one():
    # Each mean of squares over n values of a near-normal variable has a standard error of about sqrt(2 / n).
    n = 200_000
    a, b = torch.randn(n // 20, 5, 2, 2), torch.randn(n // 20, 15, 2, 2)
    tolerance = 3 * math.sqrt(2 / a.numel())
    for t in (0.0, 0.3, 0.5, 1.0):
        assert mp_sum(a, torch.randn_like(a), t).square().mean().item() == pytest.approx(1, abs=tolerance)
    assert mp_silu(torch.randn(n)).square().mean().item() == pytest.approx(1, abs=5 * math.sqrt(2 / n))
    joined = mp_cat(a, b, 0.5)
    assert joined.square().mean().item() == pytest.approx(1, abs=tolerance)
    # Both parts have the same weight for any number of channels.
    first, second = joined.split([5, 15], 1)
    assert first.square().sum().item() / second.square().sum().item() == pytest.approx(1, abs=2 * tolerance)
    sized = normalized(5 * torch.randn(4, 7, 3), [1, 2])
    torch.testing.assert_close(sized.square().mean((1, 2)).sqrt(), torch.ones(4), atol=1e-4, rtol=0)


def test_the_norm_of_weights_has_no_effect():
    network, (x, log_snr, condition) = small(), inputs()

    def stretched(factor: float) -> Tensor:
        with torch.no_grad():
            for name, value in network.named_parameters():
                if name.endswith("weight"):
                    value.mul_(factor)
        return network(x, log_snr, condition)

    # The normalization's eps of 1e-4 is 1e-10 of a magnitude of 1e6, in each of about twenty layers.
    torch.testing.assert_close(stretched(1e6), stretched(7), rtol=1e-8, atol=1e-8)


def test_training_normalizes_stored_weights_and_evaluation_leaves_them():
    network, (x, log_snr, condition) = small(), inputs()
    weight = network.enc["8x8_block0"].conv_res0.weight
    with torch.no_grad():
        weight.mul_(7)
    before = weight.clone()
    network(x, log_snr, condition)
    assert torch.equal(weight, before)
    output = network.train()(x, log_snr, condition)
    assert torch.equal(weight, normalized(before, [1, 2, 3]))
    assert torch.equal(output, network.eval()(x, log_snr, condition))
    frozen = small().train().requires_grad_(False)
    before = frozen.emb_noise.weight.clone()
    frozen(x, log_snr, condition)
    assert torch.equal(frozen.emb_noise.weight, before)


def test_two_forwards_share_one_backward_pass_in_training():
    network, (x, log_snr, condition) = small().train(), inputs()
    network(x, log_snr, condition)  # weights are normalized from here on

    def gradient(*losses: Tensor) -> Tensor:
        network.zero_grad()
        sum(losses).backward()
        return network.enc["8x8_conv"].weight.grad.clone()

    first, second = (lambda s=s: network(s * x, log_snr, condition).pow(3).sum() for s in (1.0, 2.0))
    apart = gradient(first()) + gradient(second())
    torch.testing.assert_close(gradient(first(), second()), apart)


def test_block_of_the_encoder_by_hand():
    # One pass in basic operations, with weights normalized to magnitude 1 by hand.
    block = small().enc["4x4_block0"]
    x, embedding = torch.randn(2, 8, 4, 4), torch.randn(2, 16)

    def unit(given: Tensor, *dims: int) -> Tensor:
        return given / (given.square().mean(dims, keepdim=True).sqrt() + 1e-4)

    def conv(layer, given: Tensor, padding: int) -> Tensor:
        weight = unit(layer.weight, 1, 2, 3) / math.sqrt(layer.weight[0].numel())
        return torch.nn.functional.conv2d(given, weight, padding=padding)

    def silu(given: Tensor) -> Tensor:
        return given * given.sigmoid() / 0.596

    hidden = conv(block.conv_skip, x, 0)
    hidden = unit(hidden, 1)
    row = unit(block.emb_linear.weight, 1) / math.sqrt(16)
    scale = 1 + 0.5 * embedding @ row.T
    update = conv(block.conv_res1, silu(conv(block.conv_res0, silu(hidden), 1) * scale[:, :, None, None]), 1)
    hidden = (0.7 * hidden + 0.3 * update) / math.sqrt(0.58)
    qkv = conv(block.attn_qkv, hidden, 0).reshape(2, 1, 16, 3, 16)
    q, k, v = unit(qkv, 2).unbind(3)
    weights = torch.einsum("nhcq,nhck->nhqk", q, k / 4).softmax(3)
    mixed = conv(block.attn_proj, torch.einsum("nhqk,nhck->nhcq", weights, v).reshape(2, 16, 4, 4), 0)
    torch.testing.assert_close(block(x, embedding), (0.7 * hidden + 0.3 * mixed) / math.sqrt(0.58))


def test_noise_enters_as_a_quarter_of_log_sigma():
    network, sigma = small(), torch.tensor([0.3, 20.0])
    seen: list[Tensor] = []
    network.emb_noise.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    network(torch.randn(2, 3, 8, 8), -2 * sigma.log(), None)
    fourier = network.emb_fourier
    phase = sigma.log()[:, None] / 4 * fourier.freqs + fourier.phases
    torch.testing.assert_close(seen[0], math.sqrt(2) * phase.cos())


def test_a_new_networks_output_is_zero_and_its_denoiser_shrinks():
    network = EDM2UNet(8, 3, 8, (1, 2), blocks=1, attention=(4,), classes=None)
    x, log_snr, _ = inputs()
    assert network.emb_label is None
    assert torch.equal(network(x, log_snr, None), torch.zeros_like(x))
    prediction = Denoiser(network, "edm", 0.5)(x, torch.full((3,), 0.5), None, CosineSchedule())
    torch.testing.assert_close(prediction.x0, x * math.sqrt(2) * 0.25 / 1.25)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lower_precision(dtype):
    network, (x, log_snr, condition) = small(), inputs()
    exact = network(x, log_snr, condition)
    output = network.to(dtype)(x.to(dtype), log_snr, condition)
    assert output.dtype == dtype
    error = rms(output.double() - exact) / rms(exact)
    assert error < (1e-4 if dtype == torch.float32 else 0.2)
