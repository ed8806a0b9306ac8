"""Inception-v3 features from a checkpoint of random weights."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from scoredistill.evaluation import InceptionFeatures, embed
from scoredistill.evaluation.inception import Repooled, build_inception


def random_state(classes: int, auxiliary: bool) -> dict[str, Tensor]:
    from torchvision.models import inception_v3

    with torch.device("meta"):
        network = inception_v3(weights=None, init_weights=False, num_classes=classes, aux_logits=auxiliary)
    rng, state = torch.Generator().manual_seed(0), {}
    for name, like in network.state_dict().items():
        if like.ndim > 1:
            scale = (2 / like[0].numel()) ** 0.5
            state[name] = scale * torch.randn(like.shape, generator=rng, dtype=torch.float32)
        elif not name.endswith("num_batches_tracked"):  # converted checkpoints have none
            one = name.endswith(("running_var", "bn.weight"))
            state[name] = torch.full(like.shape, float(one), dtype=torch.float32)
    return state


@pytest.fixture(scope="module")
def torchvision_state() -> dict[str, Tensor]:
    return random_state(1000, auxiliary=True)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_torchvision_layout(tmp_path: Path, torchvision_state: dict[str, Tensor], suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(torchvision_state, path)
    else:
        from safetensors.torch import save_file

        save_file(torchvision_state, path)
    before = torch.get_rng_state()
    extractor = InceptionFeatures(path).train()
    assert torch.equal(before, torch.get_rng_state())
    assert not any(part.training for part in extractor.modules())
    gray = torch.rand(1, 1, 8, 8) * 2 - 1
    features = embed(extractor, gray)
    assert features.shape == (1, 2048)
    assert torch.equal(features, embed(extractor, gray.expand(-1, 3, -1, -1)))
    assert bool(features.isfinite().all())
    with pytest.raises(ValueError, match=r"pictures \(N, 1 or 3, H, W\)"):
        extractor(torch.zeros(2, 2))


def test_fid_layout_pools_as_tensorflow_does() -> None:
    network = build_inception(random_state(1008, auxiliary=False)).eval()
    repooled = [name for name, part in network.named_children() if isinstance(part, Repooled)]
    assert repooled == [f"Mixed_{name}" for name in ("5b", "5c", "5d", "6b", "6c", "6d", "6e", "7b", "7c")]
    x = torch.randn(1, 192, 5, 5, dtype=torch.float32)
    block = network.Mixed_5b
    with torch.no_grad():
        found, plain = block(x), block.block(x)
        # A mean over the padded window is 4/9, 6/9 or 9/9 of the mean over the real pixels.
        ones = torch.ones(1, 1, 5, 5, dtype=torch.float32)
        share = functional.avg_pool2d(ones, 3, stride=1, padding=1)
        pooled = block.block.branch_pool(functional.avg_pool2d(x, 3, stride=1, padding=1) / share)
        assert torch.equal(found[:, :-32], plain[:, :-32])
        assert torch.allclose(found[:, -32:], pooled, atol=1e-5)
        last = torch.randn(1, 2048, 3, 3, dtype=torch.float32)
        largest = network.Mixed_7c.block.branch_pool(functional.max_pool2d(last, 3, stride=1, padding=1))
        assert torch.equal(network.Mixed_7c(last)[:, -192:], largest)


def test_errors(tmp_path: Path, torchvision_state: dict[str, Tensor]) -> None:
    with pytest.raises(FileNotFoundError, match=r"no Inception-v3 checkpoint at nowhere\.pth"):
        InceptionFeatures("nowhere.pth")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"not a state dictionary of Inception-v3; its first keys are \['weight'\]"):
        InceptionFeatures(tmp_path / "other.pth")
    incomplete = {key: value for key, value in torchvision_state.items() if key != "Mixed_5b.branch1x1.conv.weight"}
    with pytest.raises(ValueError, match=r"do not fit Inception-v3: Missing key.*Mixed_5b\.branch1x1\.conv\.weight"):
        build_inception(incomplete)
