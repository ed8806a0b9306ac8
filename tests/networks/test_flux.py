"""FLUX's patches."""

import pytest
import torch
from diffusers import FluxPipeline, FluxTransformer2DModel

from scoredistill.networks import FluxBackbone
from scoredistill.networks.text_backbones import pack, positions, unpack


def test_packing_equals_the_pipelines_and_is_inverted() -> None:
    x = torch.randn(2, 3, 6, 4)
    patches = pack(x)
    assert torch.equal(patches, FluxPipeline._pack_latents(x, 2, 3, 6, 4))
    assert torch.equal(unpack(patches, 3), x)
    with pytest.raises(ValueError, match=r"H and W must be even, got \(5, 4\)"):
        pack(x[:, :, :5])


def test_positions_are_the_pipelines() -> None:
    theirs = FluxPipeline._prepare_latent_image_ids(1, 3, 2, "cpu", torch.float64)
    assert torch.equal(positions(3, 2).double(), theirs)


@pytest.mark.parametrize("distilled", [True, False])
def test_only_a_distilled_network_gets_a_guidance_scale(distilled: bool) -> None:
    network = FluxTransformer2DModel(
        in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=8, num_attention_heads=1,
        joint_attention_dim=8, pooled_projection_dim=8, guidance_embeds=distilled, axes_dims_rope=(2, 2, 4),
    )  # fmt: skip
    assert FluxBackbone(network).guidance == 1.0
    if distilled:
        assert FluxBackbone(network, 3.5).guidance == 3.5
    else:
        with pytest.raises(ValueError, match="not guidance-distilled"):
            FluxBackbone(network, 3.5)
