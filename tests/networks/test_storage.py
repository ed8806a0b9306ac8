"""Denoisers on disk."""

import json
from pathlib import Path

import pytest
import torch
from networks.test_denoiser import Keeps, labeled_unet

from scoredistill.networks import Denoiser, DiffusersBackbone, MLPBackbone
from scoredistill.networks.storage import load_denoiser, save_denoiser
from scoredistill.types import Condition


def mlp() -> MLPBackbone:
    network = MLPBackbone((1, 8, 8), hidden=16, layers=2, classes=4, label_dropout=0.1)
    torch.nn.init.normal_(network.out.weight)
    return network


@pytest.mark.parametrize("make", [mlp, lambda: labeled_unet(5, label_dropout=0.1)], ids=["MLP", "UNet2DModel"])
def test_a_denoiser_is_restored(make, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    from scoredistill.diffusion import EDMSchedule

    first = Denoiser(make().float(), "edm", 0.7).eval()
    save_denoiser(first, tmp_path / "teacher")
    second = load_denoiser(tmp_path / "teacher").eval()
    x, t = torch.randn(4, 1, 8, 8, dtype=torch.float32), torch.linspace(0.1, 0.9, 4, dtype=torch.float32)
    label = Condition(label=torch.arange(4))
    with torch.no_grad():
        ours, theirs = (each(x, t, label, EDMSchedule()).x0 for each in (first, second.float()))
    assert torch.equal(ours, theirs)
    assert (second.prediction, second.sigma_data) == ("edm", 0.7)
    assert [path.name for path in tmp_path.iterdir()] == ["teacher"]


def test_a_network_of_diffusers_is_saved_in_its_format(tmp_path: Path) -> None:
    from diffusers import UNet2DModel

    denoiser = Denoiser(labeled_unet(4).float())
    save_denoiser(denoiser, tmp_path / "teacher")
    network = UNet2DModel.from_pretrained(tmp_path / "teacher" / "network")
    stored = network.state_dict()
    assert all(torch.equal(stored[key], value) for key, value in denoiser.network.network.state_dict().items())


def test_saving_again_replaces_the_whole_folder(tmp_path: Path) -> None:
    save_denoiser(Denoiser(mlp()), tmp_path / "teacher")
    save_denoiser(Denoiser(labeled_unet(4)), tmp_path / "teacher")
    assert not (tmp_path / "teacher" / "network.safetensors").exists()


def test_errors_of_saving_and_loading_are_clear(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="Keeps cannot be saved"):
        save_denoiser(Denoiser(Keeps()), tmp_path / "teacher")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="contains no denoiser"):
        load_denoiser(tmp_path)
    save_denoiser(Denoiser(mlp()), tmp_path / "teacher")
    description = tmp_path / "teacher" / "denoiser.json"
    for change, message in (
        ({"backbone": "os.system"}, "contains a os.system"),
        ({"backbone": "DiffusersBackbone", "network": "utils"}, "diffusers has no model 'utils'"),
    ):
        save_denoiser(Denoiser(mlp()), tmp_path / "teacher")
        description.write_text(json.dumps(json.loads(description.read_text()) | change))
        with pytest.raises(ValueError, match=message):
            load_denoiser(tmp_path / "teacher")


def test_the_network_of_a_pipeline_is_refused(tmp_path: Path) -> None:
    class OfAPipeline(DiffusersBackbone):
        """A backbone with an additional input."""

    denoiser = Denoiser(OfAPipeline(labeled_unet(4).network, classes=4))
    with pytest.raises(TypeError, match="OfAPipeline is part of a text-to-image pipeline"):
        save_denoiser(denoiser, tmp_path / "teacher")
    assert not list(tmp_path.iterdir())
