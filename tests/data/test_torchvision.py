"""Local data sets of torchvision."""

import pickle
import struct

import pytest
import torch
from data.pictures_on_disk import levels

from scoredistill.data import TorchvisionImages


def write_mnist(folder, part: str, images: torch.Tensor, labels: list[int]) -> None:  # type: ignore[no-untyped-def]
    """MNIST's raw files: a magic number, the sizes, bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    header = struct.pack(">iiii", 0x803, *images.shape)
    (folder / f"{part}-images-idx3-ubyte").write_bytes(header + images.numpy().tobytes())
    (folder / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">ii", 0x801, len(labels)) + bytes(labels))


@pytest.fixture
def mnist(tmp_path):  # type: ignore[no-untyped-def]
    levels = torch.tensor([0, 51, 255], dtype=torch.uint8)[:, None, None].expand(3, 28, 28).contiguous()
    for part, count in (("train", 3), ("t10k", 1)):
        write_mnist(tmp_path / "FashionMNIST" / "raw", part, levels[-count:], [7, 0, 2][-count:])
    return tmp_path


def test_torchvision_reads_existing_data(mnist) -> None:
    source = TorchvisionImages("FashionMNIST", mnist)
    samples, labels = source.all()
    assert (source.classes, source.shape, labels.tolist()) == (10, (1, 28, 28), [7, 0, 2])
    torch.testing.assert_close(samples[:, 0, 5, 5], torch.tensor([-1.0, -0.6, 1.0]))
    test = TorchvisionImages("FashionMNIST", mnist, "test", resolution=8, gray=False)
    assert (len(test), test.shape, test[0][1]) == (1, (3, 8, 8), 2)


def test_torchvision_reads_color(tmp_path, monkeypatch) -> None:
    from torchvision.datasets import CIFAR10

    monkeypatch.setattr(CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *args: True)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    red = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    red[0, 0], red[1, 0] = 40, 80
    entry = {"data": red.flatten(1).numpy(), "labels": [3, 9]}
    (folder / "test_batch").write_bytes(pickle.dumps(entry))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [str(i) for i in range(10)]}))
    source = TorchvisionImages("CIFAR10", tmp_path, "test")
    samples, labels = source.all()
    assert (levels(samples), labels.tolist(), source.shape) == ([40, 80], [3, 9], (3, 32, 32))


def test_torchvision_reports_missing_data(tmp_path, mnist) -> None:
    command = r"the files of MNIST are missing .* torchvision\.datasets\.MNIST\(.*, download=True\)"
    with pytest.raises(FileNotFoundError, match=command):
        TorchvisionImages("MNIST", tmp_path)
    for name in ("MINST", "ImageFolder", "wrap_dataset_for_transforms_v2"):
        with pytest.raises(ValueError, match=f"torchvision has no data set '{name}' with training and test parts"):
            TorchvisionImages(name, tmp_path)
    with pytest.raises(ValueError, match="FashionMNIST has the splits 'train' and 'test', not 'validation'"):
        TorchvisionImages("FashionMNIST", mnist, "validation")
