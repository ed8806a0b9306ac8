"""EDM's U-Nets: published names and shapes, and the inputs on which the output depends."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from scoredistill.diffusion import CosineSchedule
from scoredistill.networks.denoiser import Denoiser
from scoredistill.networks.edm import EDMUNet
from scoredistill.types import Condition

# Per block: name, inputs, outputs, resampled, attention.
STAGES = [
    ("enc.8x8_block0", 8, 8, False, False),
    ("enc.4x4_down", 8, 8, True, False),
    ("enc.4x4_block0", 8, 16, False, True),
    ("dec.4x4_in0", 16, 16, False, True),
    ("dec.4x4_in1", 16, 16, False, False),
    ("dec.4x4_block0", 32, 16, False, False),
    ("dec.4x4_block1", 24, 16, False, True),
    ("dec.8x8_up", 16, 16, True, False),
    ("dec.8x8_block0", 24, 8, False, False),
    ("dec.8x8_block1", 16, 8, False, False),
]


def small(architecture: str, **settings) -> EDMUNet:
    """A network with STAGES and nonzero weights."""
    network = EDMUNet(architecture, 8, 3, 8, (1, 2), blocks=1, attention=(4,), classes=5, **settings)
    for value in network.parameters():
        nn.init.normal_(value, std=0.3)
    return network


def block_shapes(name: str, inputs: int, outputs: int, resampled: bool, attention: bool, adm: bool) -> dict:
    shapes = {
        "norm0.weight": (inputs,),
        "norm0.bias": (inputs,),
        "conv0.weight": (outputs, inputs, 3, 3),
        "conv0.bias": (outputs,),
        "affine.weight": (2 * outputs if adm else outputs, 32),
        "affine.bias": (2 * outputs if adm else outputs,),
        "norm1.weight": (outputs,),
        "norm1.bias": (outputs,),
        "conv1.weight": (outputs, outputs, 3, 3),
        "conv1.bias": (outputs,),
    }
    if resampled:
        shapes |= {"conv0.resample_filter": (1, 1, 2, 2), "skip.resample_filter": (1, 1, 2, 2)}
    if inputs != outputs or (resampled and not adm):
        shapes |= {"skip.weight": (outputs, inputs, 1, 1), "skip.bias": (outputs,)}
    if attention:
        shapes |= {"norm2.weight": (outputs,), "norm2.bias": (outputs,)}
        shapes |= {"qkv.weight": (3 * outputs, outputs, 1, 1), "qkv.bias": (3 * outputs,)}
        shapes |= {"proj.weight": (outputs, outputs, 1, 1), "proj.bias": (outputs,)}
    return {f"{name}.{key}": shape for key, shape in shapes.items()}


def expected_shapes(architecture: str) -> dict:
    adm = architecture == "adm"
    shapes = {"map_layer0.weight": (32, 8), "map_layer0.bias": (32,)}
    shapes |= {"map_layer1.weight": (32, 32), "map_layer1.bias": (32,), "map_augment.weight": (8, 9)}
    shapes |= {"enc.8x8_conv.weight": (8, 3, 3, 3), "enc.8x8_conv.bias": (8,)}
    for name, inputs, outputs, resampled, attention in STAGES:
        # ADM's decoder has attention in every block of a resolution, DDPM++'s in the last.
        everywhere = attention or (adm and name == "dec.4x4_block0")
        shapes |= block_shapes(name, inputs, outputs, resampled, everywhere, adm)
    if adm:
        shapes |= {"map_label.weight": (32, 5), "out_norm.weight": (8,), "out_norm.bias": (8,)}
        return shapes | {"out_conv.weight": (3, 8, 3, 3), "out_conv.bias": (3,)}
    shapes |= {"map_label.weight": (8, 5), "map_label.bias": (8,)}
    shapes |= {"dec.8x8_aux_norm.weight": (8,), "dec.8x8_aux_norm.bias": (8,)}
    return shapes | {"dec.8x8_aux_conv.weight": (3, 8, 3, 3), "dec.8x8_aux_conv.bias": (3,)}


def inputs(n: int = 3) -> tuple[Tensor, Tensor, Condition]:
    return torch.randn(n, 3, 8, 8), torch.linspace(-4, 4, n), Condition(label=torch.arange(n))


both = pytest.mark.parametrize("architecture", ["ddpm++", "adm"])


@both
def test_tensors_have_the_published_names_and_shapes(architecture):
    found = {name: tuple(value.shape) for name, value in small(architecture, augmentations=9).state_dict().items()}
    assert found == expected_shapes(architecture)


@pytest.mark.parametrize(
    ("build", "millions"),
    [(EDMUNet.cifar10, 55.7), (lambda: EDMUNet.cifar10(classes=None), 55.7), (EDMUNet.imagenet64, 295.9)],
)
def test_full_networks_have_the_published_size(build, millions):
    with torch.device("meta"):
        network = build()
    count = sum(value.numel() for value in network.parameters())
    assert round(count / 1e6, 1) == millions


def test_first_convolution_of_ddpmpp_ignores_the_multiplier():
    network = EDMUNet("ddpm++", 8, 3, 8, (2, 2), blocks=1, attention=())
    assert network.enc["8x8_conv"].out_channels == 8
    assert network.enc["8x8_block0"].skip.weight.shape == (16, 8, 1, 1)


@both
def test_rows_depend_on_their_own_noise_and_label_only(architecture):
    network, (x, log_snr, condition) = small(architecture), inputs()
    before = network(x, log_snr, condition)
    assert before.shape == x.shape
    louder, relabeled = log_snr.clone(), condition.label.clone()
    louder[1], relabeled[1] = 0.5, 4
    for after in (network(x, louder, condition), network(x, log_snr, Condition(label=relabeled))):
        changed = (after - before).flatten(1).abs().amax(1)
        assert changed[1] > 1e-3
        assert changed[[0, 2]].max() < 1e-12


@both
def test_batch_equals_single_samples(architecture):
    network, (x, log_snr, condition) = small(architecture), inputs()
    single = [network(x[[i]], log_snr[[i]], condition[torch.tensor([i])]) for i in range(3)]
    torch.testing.assert_close(network(x, log_snr, condition), torch.cat(single))


@both
def test_without_labels_it_is_the_unconditional_model(architecture):
    network, (x, log_snr, condition) = small(architecture), inputs()
    unconditional = network(x, log_snr, None)
    torch.testing.assert_close(network(x, log_snr, Condition()), unconditional)
    assert not torch.allclose(network(x, log_snr, condition), unconditional)
    hiding = small(architecture, label_dropout=1.0)
    torch.testing.assert_close(hiding(x, log_snr, condition), hiding(x, log_snr, None))
    assert not torch.allclose(hiding.eval()(x, log_snr, condition), hiding(x, log_snr, None))


@both
def test_gradient_reaches_every_parameter_but_the_augmentation(architecture):
    network, (x, log_snr, condition) = small(architecture, augmentations=9), inputs()
    network(x, log_snr, condition).square().sum().backward()
    without = {name for name, value in network.named_parameters() if value.grad is None or not value.grad.any()}
    assert without == {"map_augment.weight"}
    assert not network.map_augment.weight.requires_grad


@both
def test_bottleneck_features_are_available(architecture):
    network, (x, log_snr, condition) = small(architecture), inputs()
    assert network.features(x, log_snr, condition).shape == (3, network.width, 4, 4)
    assert network.bottleneck is network.enc["4x4_block0"]
    layers = network.feature_layers
    found = network.features_of([layer.module for layer in layers], x, log_snr, condition)
    assert [features.shape[1:] for features in found] == [
        (layer.width, n, n) for layer, n in zip(layers, (8, 4), strict=True)
    ]


@both
def test_settings_rebuild_the_network(architecture):
    network = small(architecture, augmentations=9, dropout=0.1, label_dropout=0.2)
    again = EDMUNet(**network.settings)
    again.load_state_dict(network.state_dict())
    assert again.settings == network.settings
    x, log_snr, condition = inputs()
    torch.testing.assert_close(again.eval()(x, log_snr, condition), network.eval()(x, log_snr, condition))


def test_noise_enters_as_a_quarter_of_log_sigma():
    # By hand: DDPM++ has sines first and its last frequency is exactly 1e-4, ADM has cosines first.
    sigma = torch.tensor([0.3, 20.0])
    c_noise = sigma.log() / 4
    for architecture, last in (("ddpm++", 3), ("adm", 4)):
        network = small(architecture)
        frequencies = torch.tensor([10000 ** -(i / last) for i in range(4)])
        phase = c_noise[:, None] * frequencies
        order = [phase.sin(), phase.cos()] if architecture == "ddpm++" else [phase.cos(), phase.sin()]
        seen: list[Tensor] = []
        network.map_layer0.register_forward_pre_hook(lambda module, given, seen=seen: seen.append(given[0]))
        network(torch.randn(2, 3, 8, 8), -2 * sigma.log(), None)
        label = network.map_label.bias if architecture == "ddpm++" else 0
        torch.testing.assert_close(seen[0], torch.cat(order, 1) + label)


def test_block_with_attention_by_hand():
    # One pass of DDPM++'s block in basic operations, with interleaved channels of q, k and v.
    block = small("ddpm++").enc["4x4_block0"]
    x, embedding = torch.randn(2, 8, 4, 4), torch.randn(2, 32)
    hidden = block.conv0(functional.silu(block.norm0(x))) + block.affine(embedding)[:, :, None, None]
    hidden = (block.skip(x) + block.conv1(functional.silu(block.norm1(hidden)))) / math.sqrt(2)
    q, k, v = block.qkv(block.norm2(hidden)).reshape(2, 16, 3, 16).unbind(2)
    weights = torch.einsum("ncq,nck->nqk", q, k / 4).softmax(2)
    mixed = torch.einsum("nqk,nck->ncq", weights, v).reshape(2, 16, 4, 4)
    torch.testing.assert_close(block(x, embedding), (hidden + block.proj(mixed)) / math.sqrt(2))


def test_adm_attends_in_heads_of_64_channels():
    network = EDMUNet("adm", 4, 3, 128, (1,), blocks=1, attention=(4,))
    assert network.enc["4x4_block0"].heads == 2


@both
def test_a_new_networks_output_is_almost_zero_and_its_denoiser_shrinks(architecture):
    network = EDMUNet(architecture, 8, 3, 8, (1, 2), blocks=1, attention=(4,))
    x, log_snr, _ = inputs()
    assert network(x, log_snr, None).abs().max() < 1e-3
    schedule, t = CosineSchedule(), torch.full((3,), 0.5)
    # x0 = c_skip x_t / alpha + c_out F, with c_out = .5 / sqrt(1.25) here.
    output = (Denoiser(network, "edm", 0.5)(x, t, None, schedule).x0 - x * math.sqrt(2) * 0.25 / 1.25) * math.sqrt(5)
    scaled = x / math.sqrt(0.5 + 0.5 * 0.25)
    torch.testing.assert_close(output, network(scaled, schedule.log_snr(t), None), rtol=0, atol=1e-12)


@both
def test_float32(architecture):
    network = small(architecture).float()
    x, log_snr, condition = inputs()
    assert network(x.float(), log_snr, condition).dtype == torch.float32


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match=r"unknown architecture 'vit'; choose ddpm\+\+, adm"):
        EDMUNet("vit", 8)
    with pytest.raises(ValueError, match="resolution 6 cannot be halved 2 times"):
        EDMUNet("adm", 6)
