"""Weights are read from all formats, and no code in a file is ever executed."""

import os
import pickle
import sys
import types
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from scoredistill.networks.edm import EDMUNet
from scoredistill.networks.edm2 import EDM2UNet
from scoredistill.networks.published import load_published, read_tensors


class EasyDict(dict):
    """Stands for dnnlib's EasyDict, in which published settings are stored."""


def reconstruct(meta):
    raise AssertionError("reading weights called what the pickle names")


@pytest.fixture
def publish(monkeypatch, tmp_path) -> Callable[..., Path]:
    """Write modules as EDM does: each is a call of a function in torch_utils with source code and state."""
    fakes = {"torch_utils.persistence._reconstruct_persistent_obj": reconstruct, "dnnlib.util.EasyDict": EasyDict}
    for name, value in fakes.items():
        value.__module__, _, value.__qualname__ = name.rpartition(".")
        module = types.ModuleType(value.__module__)
        setattr(module, value.__qualname__, value)
        for known in (module.__name__, name.partition(".")[0]):
            monkeypatch.setitem(sys.modules, known, module)
    source = f"open({str(tmp_path / 'was_run')!r}, 'w').close()"

    def write(content: object, name: str = "network.pkl", protocol: int = 4) -> Path:
        path = tmp_path / name
        with path.open("wb") as file:
            pickler = Published(file, protocol)
            pickler.source = source
            pickler.dump(content)
        return path

    yield write
    assert not (tmp_path / "was_run").exists()


class Published(pickle.Pickler):
    """Pickles modules as the published decorator does, except torch's containers."""

    source: str

    def reducer_override(self, value: object):
        if not isinstance(value, nn.Module) or isinstance(value, nn.ModuleDict):
            return NotImplemented
        state = {key: getattr(value, key) for key in ("training", "_parameters", "_buffers", "_modules")}
        state |= {"_non_persistent_buffers_set": value._non_persistent_buffers_set, "_backward_hooks": OrderedDict()}
        state |= {"init_kwargs": EasyDict(init_weight=np.sqrt(1 / 3)), "scale": np.ones(3, np.float32)}
        state |= {"device": torch.device("cpu"), "dtype": torch.float16}
        meta = {"type": "class", "version": 6, "module_src": self.source, "class_name": "Net", "state": state}
        return reconstruct, (meta,)


class Precond(nn.Module):
    """Stands for EDM's and EDM2's wrapper around the network."""

    def __init__(self, **networks: nn.Module) -> None:
        super().__init__()
        for name, network in networks.items():
            setattr(self, name, network)
        self.register_buffer("passing", torch.zeros(1), persistent=False)


def edm(**settings) -> EDMUNet:
    return scrambled(EDMUNet("ddpm++", 8, 3, 8, (1, 2), blocks=1, attention=(4,), classes=5, **settings))


def edm2() -> EDM2UNet:
    return scrambled(EDM2UNet(8, 3, 8, (1, 2), blocks=1, attention=(4,), classes=5))


def scrambled(network):
    for value in network.parameters():
        nn.init.normal_(value)
    return network.float()


def assert_same(found: dict[str, Tensor], network: nn.Module, prefix: str = "") -> None:
    expected = {f"{prefix}{name}": value for name, value in network.state_dict().items()}
    torch.testing.assert_close(dict(found), expected, rtol=0, atol=0)


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_published_pickle_is_read_without_running_it(publish, protocol):
    network = edm(augmentations=9)
    path = publish({"ema": Precond(model=network)}, protocol=protocol)
    assert_same(read_tensors(path), network, "model.")
    fresh = edm()
    load_published(fresh, path)  # without map_augment
    network.map_augment = None
    assert_same(fresh.state_dict(), network)


def test_pickle_of_a_bare_network_and_of_half_precision(publish):
    network = edm2()
    assert_same(read_tensors(publish(network)), network)
    half = edm2().half()
    content = EasyDict(encoder=Precond(), dataset_kwargs=EasyDict(path="x.zip"), ema=Precond(unet=half, logvar=edm2()))
    path = publish(content)
    load_published(network, path)
    assert_same(half.float().state_dict(), network)


def test_weights_that_share_a_storage_are_separated(publish):
    network = nn.Linear(4, 3, bias=False)
    network.weight = nn.Parameter(torch.arange(24.0).reshape(4, 6).T[1:4])
    torch.testing.assert_close(read_tensors(publish(network))["weight"], network.weight.detach())


def test_weights_load_into_new_networks(publish):
    for made, name in ((edm(), "model"), (edm2(), "unet")):
        path = publish({"ema": Precond(**{name: made})}, f"{name}.pkl")
        again = type(made)(**made.settings, weights=str(path)).float()
        assert_same(again.state_dict(), made)
        assert "weights" not in again.settings


@pytest.mark.parametrize("prefix", ["", "model."])
@pytest.mark.parametrize("holder", [None, "ema", "state_dict"])
def test_torch_files(tmp_path, prefix, holder):
    network, path = edm(), tmp_path / "network.pt"
    tensors = {f"{prefix}{name}": value for name, value in network.state_dict().items()}
    torch.save({holder: tensors, "step": 3} if holder else tensors, path)
    fresh = edm()
    load_published(fresh, path)
    assert_same(fresh.state_dict(), network)


def test_safetensors(tmp_path):
    network, path = edm2(), tmp_path / "network.safetensors"
    tensors = {f"unet.{name}": value for name, value in network.state_dict().items()}
    save_file({**tensors, "logvar_fourier.freqs": torch.zeros(8)}, path)
    fresh = edm2()
    load_published(fresh, path)
    assert_same(fresh.state_dict(), network)


LOGVAR = {"logvar_linear.weight": torch.zeros(1, 8), "logvar_linear.bias": torch.zeros(1)}
LOGVAR |= {"logvar_fourier.freqs": torch.zeros(8), "logvar_fourier.phases": torch.zeros(8)}


@pytest.mark.parametrize("make", [edm, edm2])
@pytest.mark.parametrize("prefix", ["", "model.", "net.", "module.net.", "net.model.", "_orig_mod.unet.", "ema.model."])
def test_training_heads_and_nested_wrappers_are_skipped(tmp_path, make, prefix):
    network, path = make(), tmp_path / "network.pt"
    tensors = {f"{prefix}{name}": value for name, value in {**network.state_dict(), **LOGVAR}.items()}
    torch.save({"model": tensors}, path)
    fresh = make()
    load_published(fresh, path)
    assert_same(fresh.state_dict(), network)


@pytest.mark.parametrize("name", ["logvar", "logvar_linear", "logvar_linear.scale", "x.logvar_linear.weight", "net"])
def test_names_similar_to_skipped_ones_are_refused(tmp_path, name):
    network, path = edm(), tmp_path / "network.pt"
    torch.save({**network.state_dict(), name: torch.zeros(1)}, path)
    with pytest.raises(ValueError, match=f"{name} of the file is unexpected"):
        load_published(edm(), path)


class Call:
    """An object that is pickled as a function call."""

    def __init__(self, function: Callable[..., object], *args: object) -> None:
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("name", ["network.pkl", "network.pt"])
def test_malicious_file_is_refused_and_not_run(tmp_path, name):
    path, target = tmp_path / name, tmp_path / "was_run"
    content = {"ema": Call(os.system, f"touch {target}")}
    if path.suffix == ".pkl":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match=rf"{name} was not read: .*\.system[^\n]*$"):
        read_tensors(path)
    assert not target.exists()


def test_malicious_storage_is_refused_and_not_run(publish, tmp_path):
    target = tmp_path / "target"
    content = pickle.dumps(Call(os.system, f"touch {target}"), protocol=2)
    storage = Call(torch.storage._load_from_bytes, content)
    network = nn.Linear(1, 1)
    network.__dict__["_parameters"] = {"weight": Call(torch._utils._rebuild_tensor_v2, storage, 0, (), ())}
    with pytest.raises(ValueError, match=r"was not read: .*GLOBAL \w+\.system[^\n]*$"):
        read_tensors(publish(network))
    assert not target.exists()


@pytest.mark.parametrize("name", ["builtins.eval", "builtins.getattr", "torch.load", "torch.hub.load", "os.system"])
def test_globals_outside_the_list_are_named(tmp_path, name):
    module, _, function = name.rpartition(".")
    path = tmp_path / "network.pkl"
    path.write_bytes(f"c{module}\n{function}\n.".encode())
    with pytest.raises(ValueError, match=rf"uses {name}, which"):
        read_tensors(path)


def test_a_pickle_cannot_access_its_reader(tmp_path):
    # BUILD on the class of a record, instead of on a record, would change the class globally.
    path = tmp_path / "network.pkl"
    path.write_bytes(b"ccollections\nOrderedDict\n}X\x06\x00\x00\x00originX\x01\x00\x00\x00xsb.")
    with pytest.raises(ValueError, match="malformed"):
        read_tensors(path)


def test_files_without_a_network(publish, tmp_path):
    with pytest.raises(ValueError, match=r"contains no network, neither at its top nor under ema.*it has loss, step"):
        read_tensors(publish({"loss": 1, "step": 2}))
    torch.save({"step": 3}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="contains no tensors by name"):
        read_tensors(tmp_path / "a.pt")


@pytest.mark.parametrize("name", ["a.pkl", "a.pt", "a.safetensors"])
def test_corrupt_files_are_refused(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=f"no weights at .*{name}"):
        read_tensors(tmp_path / name)
    for content in (b"", b"\x80\x02", b"nonsense of some length"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name} was not read"):
            read_tensors(tmp_path / name)


def test_tensor_beyond_its_storage_is_refused(publish):
    network = nn.Linear(1, 1)
    storage = torch.zeros(2)._typed_storage()
    bad = Call(torch._utils._rebuild_tensor_v2, storage, 0, (3,), (1,), False, OrderedDict())
    network.__dict__["_parameters"] = {"weight": bad}
    with pytest.raises(ValueError, match="was not read, its contents are malformed"):
        read_tensors(publish(network))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"map_layer1.bias": None}, "map_layer1.bias is missing from the file"),
        ({"extra": torch.zeros(1)}, "extra of the file is unexpected"),
        ({"out": torch.zeros(1), "map_layer0.bias": torch.zeros(31)}, r"map_layer0.bias has shape \(31,\) in the file"),
    ],
)
def test_weights_that_do_not_fit(tmp_path, change, message):
    network, path = edm(), tmp_path / "network.safetensors"
    tensors = {**network.state_dict(), **change}
    save_file({name: value for name, value in tensors.items() if value is not None}, path)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(ValueError, match=rf"network.safetensors does not fit this EDMUNet: {message}"):
        load_published(network, path)
    assert_same(before, network)
