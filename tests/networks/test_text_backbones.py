"""Text-conditional networks: their inputs, and their features."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from teachers.tiny_pipelines import flux, in_float32, multi_view, pixart, pixart_sigma, sd3, sdxl, unet

from scoredistill.networks import (
    DiffusersBackbone,
    FluxBackbone,
    MultiViewBackbone,
    PixArtBackbone,
    SD3Backbone,
    SDXLBackbone,
)
from scoredistill.rendering.camera import Camera
from scoredistill.types import Condition, TextEmbeddings

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")

# backbone, channels, width of the tokens, width of the pooled embedding
NETWORKS: dict[str, tuple[Callable[[Path], DiffusersBackbone], int, int, int]] = {
    "multi-view": (lambda folder: MultiViewBackbone(multi_view(folder).unet), 4, 8, 0),
    "sdxl": (lambda folder: SDXLBackbone(sdxl(folder).unet), 4, 16, 8),
    "sd3": (lambda folder: SD3Backbone(sd3(folder).transformer), 16, 16, 16),
    "flux": (lambda folder: FluxBackbone(flux(folder).transformer), 16, 16, 8),
    "pixart": (lambda folder: PixArtBackbone(pixart(folder).transformer), 4, 8, 0),
}


def asked(tokens: int, pooled: int) -> Condition:
    embeddings = TextEmbeddings(torch.randn(2, 5, tokens), torch.randn(2, pooled) if pooled else None)
    at = torch.tensor([0.0, 120.0])
    return Condition(embeddings=embeddings, camera=Camera.orbit(at, at * 0, at * 0 + 2, at * 0 + 40))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_bottleneck_sees_the_picture(name: str, tmp_path: Path) -> None:
    make, channels, tokens, pooled = NETWORKS[name]
    with in_float32():
        network = make(tmp_path / "words")
    x, condition = torch.randn(2, channels, 8, 8, requires_grad=True), asked(tokens, pooled)
    output = network(x, torch.zeros(2), condition)
    assert output.shape == x.shape
    features = network.features(x, torch.zeros(2), condition)
    if network.spatial:
        assert features.shape[1] == network.width
    else:
        assert features.shape == (2, 16, network.width)  # patches of 2 x 2, not the texts' five tokens
    features.square().sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    layers = network.feature_layers
    for layer, at in zip(
        layers, network.features_of([e.module for e in layers], x, torch.zeros(2), condition), strict=True
    ):
        assert at.shape == (2, 16, layer.width) if not layer.spatial else at.shape[1] == layer.width


@pytest.mark.parametrize("name", NETWORKS)
def test_missing_conditions_are_reported(name: str, tmp_path: Path) -> None:
    make, channels, tokens, pooled = NETWORKS[name]
    network, x = make(tmp_path / "words"), torch.randn(2, channels, 8, 8)
    whole = asked(tokens, pooled)
    with pytest.raises(ValueError, match=r"no embeddings|no camera"):
        network(x, torch.zeros(2), Condition(camera=whole.camera))
    if pooled:
        with pytest.raises(ValueError, match="pooled text embeddings"):
            network(x, torch.zeros(2), Condition(embeddings=torch.zeros(2, 5, tokens)))


def told(network: DiffusersBackbone, x: torch.Tensor, condition: Condition) -> dict[str, Any]:
    return network.inputs(x, torch.zeros(2), condition)["added_cond_kwargs"]


def test_sizes_are_given_in_pixels(tmp_path: Path) -> None:
    x, condition = torch.randn(2, 4, 6, 8), asked(8, 8)
    size = told(SDXLBackbone(sdxl(tmp_path / "one").unet, scale=8), x, condition)["time_ids"]
    assert size.tolist() == [[48, 64, 0, 0, 48, 64]] * 2
    added = told(PixArtBackbone(pixart(tmp_path / "two").transformer, scale=4), x, condition)
    assert added["resolution"].tolist() == [[24, 32]] * 2
    assert added["aspect_ratio"].tolist() == [[0.75]] * 2
    unsized = told(PixArtBackbone(pixart_sigma(tmp_path / "three").transformer), x, condition)
    assert unsized == {"resolution": None, "aspect_ratio": None}


def test_a_camera_has_sixteen_numbers() -> None:
    network = unet(class_embed_type="simple_projection", projection_class_embeddings_input_dim=12)
    with pytest.raises(ValueError, match="has 12 inputs"):
        MultiViewBackbone(network)
