"""Files of weights that cannot be read: every reader names the file and the cause."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from data.test_base import Ramp
from networks.test_denoiser import labeled_unet
from networks.test_storage import mlp
from safetensors.torch import save_file
from teachers.tiny_pipelines import saved
from torch import nn

import scoredistill
from scoredistill.data import LatentCache
from scoredistill.evaluation.inception import read_state
from scoredistill.networks import Denoiser
from scoredistill.networks.lora import copy_tensors
from scoredistill.networks.published import read_tensors
from scoredistill.networks.storage import load_denoiser, save_denoiser
from scoredistill.networks.weight_files import first_flaw, flaw, read_safetensors
from scoredistill.teachers.diffusers.loading import Source
from scoredistill.training.checkpoints import read_checkpoint

POINTER = b"version https://git-lfs.example/spec/v1\noid sha256:4d7a\nsize 12345\n"


def pointer(path: Path) -> None:
    path.write_bytes(POINTER)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def headless(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text("<!doctype html><title>Sign in</title>")


DAMAGES: dict[Callable[[Path], None], str] = {
    pointer: "is a git-LFS pointer in place of the weights; fetch them: git lfs pull",
    truncated: r"is truncated, it has [\d,]+ of [\d,]+ bytes; copy or download it again",
    headless: r"is truncated, it has 20 bytes; copy or download it again",
    empty: "is not a safetensors file, its 0 bytes do not start with a header",
    text: "is not a safetensors file, its 37 bytes do not start with a header",
}


def tensors(folder: Path) -> Path:
    save_file({"a": torch.ones(3), "b": torch.zeros(2, 2)}, folder / "weights.safetensors")
    return folder / "weights.safetensors"


def of_mlp(folder: Path) -> Path:
    save_denoiser(Denoiser(mlp()), folder)
    return folder / "network.safetensors"


def of_unet(folder: Path) -> Path:
    save_denoiser(Denoiser(labeled_unet(4).float()), folder)
    return folder / "network/diffusion_pytorch_model.safetensors"


def lora(path: Path) -> None:
    copy_tensors({"a": nn.Parameter(torch.ones(3)), "b": nn.Parameter(torch.ones(2, 2))}, path)


def latents(folder: Path) -> Path:
    LatentCache(Ramp(), torch.nn.Flatten(), folder).prepare()
    return next(folder.iterdir())


READERS: dict[str, tuple[Callable[[Path], Path], Callable[[Path], object]]] = {
    "safetensors": (tensors, read_safetensors),
    "published": (tensors, read_tensors),
    "inception": (tensors, read_state),
    "lora": (tensors, lora),
    "backbone": (of_mlp, lambda path: load_denoiser(path.parent)),
    "unet": (of_unet, lambda path: load_denoiser(path.parent.parent)),
    "latents": (latents, lambda path: LatentCache(Ramp(), torch.nn.Flatten(), path.parent).all()),
    "pipeline": (
        lambda folder: Path(saved("sd", folder)) / "unet/diffusion_pytorch_model.safetensors",
        lambda path: Source(str(path.parent.parent)).read("unet", torch.float32),
    ),
    "text encoder": (
        lambda folder: Path(saved("sd", folder)) / "text_encoder/model.safetensors",
        lambda path: Source(str(path.parent.parent)).read("text_encoder", torch.float32),
    ),
}


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize(("damage", "said"), DAMAGES.items(), ids=[damage.__name__ for damage in DAMAGES])
@pytest.mark.parametrize("reader", READERS)
def test_a_damaged_file_is_named_with_its_cause(tmp_path, reader, damage, said):
    make, read = READERS[reader]
    path = make(tmp_path)
    read(path)
    damage(path)
    with pytest.raises(ValueError, match=said) as caught:
        read(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("read", [read_tensors, read_state, read_checkpoint])
@pytest.mark.parametrize("name", ["weights.pt", "weights.pkl"])
def test_git_lfs_pointers_are_recognized_in_all_formats(tmp_path, read, name):
    pointer(tmp_path / name)
    with pytest.raises(ValueError, match=rf"{name}.*is a git-LFS pointer"):
        read(tmp_path / name)


def test_a_whole_file_has_no_flaw(tmp_path):
    assert flaw(tensors(tmp_path)) is None
    assert first_flaw(tmp_path) is None
    assert first_flaw(tmp_path / "nowhere") is None
    assert read_safetensors(tmp_path / "weights.safetensors").keys() == {"a", "b"}
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        read_safetensors(tmp_path / "none.safetensors")


def test_a_missing_key_of_the_description_is_named(tmp_path):
    of_mlp(tmp_path)
    (tmp_path / "denoiser.json").write_text('{"backbone": "MLPBackbone"}')
    with pytest.raises(ValueError, match=r"denoiser\.json has no key 'prediction'"):
        load_denoiser(tmp_path)


def test_safetensors_are_read_in_one_place():
    package = Path(scoredistill.__file__).parent
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("load_file", "safetensors.torch.load_file")
    }
    assert found == {"networks/weight_files.py"}
