"""Reading published weights without executing code from the file."""

from __future__ import annotations

import io
import pickle  # only for the Unpickler below, which maps all globals to passive records
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from scoredistill.networks.weight_files import flaw, read_safetensors

PREFIXES = ("module.", "_orig_mod.", "ema.", "net.", "model.", "unet.")
HOLDERS = ("ema", "net", "model", "state_dict")

# Only used in training: the augmentation of EDM's CIFAR-10 weights, and the uncertainty that weights the loss in EDM2
# and FastGen.
UNCERTAINTY = {"logvar_fourier.freqs", "logvar_fourier.phases", "logvar_linear.weight", "logvar_linear.bias"}
OPTIONAL = {"map_augment.weight"} | UNCERTAINTY

PERSISTENT = "torch_utils.persistence._reconstruct_persistent_obj"
PARAMETER = "torch._utils._rebuild_parameter"
TENSOR = "torch._utils._rebuild_tensor_v2"
STORAGE = "torch.storage._load_from_bytes"
CONTAINERS = {f"torch.nn.modules.container.{name}" for name in ("ModuleDict", "ModuleList", "Sequential")}
ARRAYS = ("multiarray.scalar", "multiarray._reconstruct", "numeric._frombuffer")
NUMPY = {f"numpy.{core}.{name}" for core in ("core", "_core") for name in ARRAYS}
VALUES = {
    "builtins.set",
    "collections.OrderedDict",
    "dnnlib.util.EasyDict",
    "numpy.dtype",
    "numpy.ndarray",
    "torch.device",
    "torch.Size",
    "torch.float16",
    "torch.float32",
    "torch.float64",
}
ALLOWED = {PERSISTENT, PARAMETER, TENSOR, STORAGE} | CONTAINERS | NUMPY | VALUES


class _Record(dict[Any, Any]):
    """A pickle's description of one object: its global, the arguments and the state."""

    origin = ""
    args: tuple[Any, ...]
    state: Any

    def __new__(cls, *args: Any) -> _Record:
        record = super().__new__(cls)
        record.args = args
        record.state = None
        return record

    def __init__(self, *args: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    """Maps allowed globals to records, and raises for all others."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self._classes: dict[str, type[_Record]] = {}

    def find_class(self, module: str, name: str) -> type[_Record]:
        origin = f"{module}.{name}"
        if origin not in ALLOWED:
            raise ValueError(f"it uses {origin}, which published weights do not need; no code was run")
        return self._classes.setdefault(origin, type("_Record", (_Record,), {"origin": origin}))


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a file of weights by name. No code from the file is executed, in any format.

    A .safetensors file is read as such. A .pkl file is read as a pickle of EDM or EDM2, in which each module contains
    its source code: the code is ignored, and only the few globals of such files are allowed. Other files are read with
    `torch.load` and `weights_only=True`; their tensors may be under "ema", "net", "model" or "state_dict".

    "Elucidating the Design Space of Diffusion-Based Generative Models" (2022), arXiv:2206.00364.
    "Analyzing and Improving the Training Dynamics of Diffusion Models" (2023), arXiv:2312.02696.

    Args:
        path: the file.

    Raises:
        FileNotFoundError: if there is no file.
        ValueError: if the file cannot be read, contains no weights, or uses a global that is not allowed.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}")
    try:
        if path.suffix != ".safetensors" and (reason := flaw(path)) is not None:
            raise ValueError(reason)
        if path.suffix == ".safetensors":
            return read_safetensors(path)
        if path.suffix == ".pkl":
            with path.open("rb") as file:
                return _pickle_tensors(_Unpickler(file).load())
        return _checkpoint_tensors(torch.load(path, map_location="cpu", weights_only=True))
    except (SafetensorError, pickle.UnpicklingError, ValueError, EOFError) as error:
        raise ValueError(f"{path} was not read: {_reason(error)}") from error
    except (TypeError, AttributeError, LookupError, RuntimeError, OverflowError, MemoryError) as error:
        # The unpicklers raise these errors on invalid content.
        raise ValueError(f"{path} was not read, its contents are malformed: {error}") from error


def load_published(network: nn.Module, path: str | Path) -> None:
    """Load published weights into a network whose parameters have the published names.

    Names may have the prefixes "model." (EDM) or "unet." (EDM2), and "net.", "ema.", "module." or "_orig_mod." of other
    training code; if there are names with a prefix, only these are used. Values are converted to the network's dtype.
    Tensors that are only used in training, `map_augment`, `logvar_fourier` and `logvar_linear`, are ignored if the
    network does not have them.

    Args:
        network: an EDMUNet or an EDM2UNet with the published architecture.
        path: the file, see `read_tensors`.

    Raises:
        FileNotFoundError: if there is no file.
        ValueError: if it cannot be read, or a tensor is missing, unexpected or has another shape.
    """
    stored = read_tensors(path)
    expected = network.state_dict()
    while under := _without_prefix(stored):
        stored = under
    stored = {name: value for name, value in stored.items() if name in expected or name not in OPTIONAL}
    difference = _first_difference(expected, stored)
    if difference:
        raise ValueError(f"{path} does not fit this {type(network).__name__}: {difference}")
    network.load_state_dict(stored)


def _without_prefix(stored: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with the first prefix that occurs, without it; empty if no prefix occurs."""
    for prefix in PREFIXES:
        under = {name.removeprefix(prefix): value for name, value in stored.items() if name.startswith(prefix)}
        if under:
            return under
    return {}


def _reason(error: Exception) -> str:
    """The error's message, without torch's advice to load the file unsafely."""
    if "weights_only" not in str(error):
        return str(error)
    lines = [line.strip().partition(" Please")[0] for line in str(error).splitlines() if "GLOBAL" in line]
    return lines[0] if lines else "it is not a torch file of plain tensors"


def _first_difference(expected: dict[str, Tensor], stored: dict[str, Tensor]) -> str | None:
    for name, value in expected.items():
        if name not in stored:
            return f"{name} is missing from the file"
        if stored[name].shape != value.shape:
            return f"{name} has shape {tuple(stored[name].shape)} in the file, {tuple(value.shape)} in the network"
    return next((f"{name} of the file is unexpected" for name in stored if name not in expected), None)


def _checkpoint_tensors(content: Any) -> dict[str, Tensor]:
    """The tensors in the result of `torch.load`."""
    for holder in HOLDERS:
        if isinstance(content, dict) and isinstance(content.get(holder), dict):
            content = content[holder]
    if not isinstance(content, dict) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise ValueError(f"it contains no tensors by name, neither at its top nor under {', '.join(HOLDERS)}")
    return content


def _pickle_tensors(content: Any) -> dict[str, Tensor]:
    """The tensors of a pickle's records: of the module at its top, or of the one under a name in HOLDERS."""
    candidates = [content]
    if isinstance(content, dict):
        candidates += [content[holder] for holder in HOLDERS if holder in content]
    modules = [value for value in candidates if _is_module(value)]
    if not modules:
        keys = f"; it has {', '.join(map(str, content)) or 'nothing'}" if isinstance(content, dict) else ""
        raise ValueError(f"it contains no network, neither at its top nor under {', '.join(HOLDERS)}{keys}")
    return _module_tensors(modules[0], "", {})


def _is_module(value: Any) -> bool:
    return isinstance(value, _Record) and (value.origin == PERSISTENT or value.origin in CONTAINERS)


def _module_tensors(module: Any, prefix: str, storages: dict[int, Tensor]) -> dict[str, Tensor]:
    """The parameters and persistent buffers of a module and its submodules, as in a state dict."""
    if not _is_module(module):
        raise ValueError(f"{prefix or 'the network'} is not a module")
    state = module.args[0]["state"] if module.origin == PERSISTENT else module.state
    excluded = state.get("_non_persistent_buffers_set", ())
    excluded = [name for names in excluded.args for name in names] if isinstance(excluded, _Record) else excluded
    buffers = {name: value for name, value in state["_buffers"].items() if name not in excluded}
    tensors = {
        f"{prefix}{name}": _tensor(value, storages)
        for name, value in {**state["_parameters"], **buffers}.items()
        if value is not None
    }
    for name, child in state["_modules"].items():
        if child is not None:
            tensors |= _module_tensors(child, f"{prefix}{name}.", storages)
    return tensors


def _tensor(record: Any, storages: dict[int, Tensor]) -> Tensor:
    """The tensor that a record describes."""
    origin = getattr(record, "origin", type(record).__name__)
    if origin == PARAMETER:
        return _tensor(record.args[0], storages)
    if origin != TENSOR:
        raise ValueError(f"a parameter is created by {origin}, which is not a tensor")
    storage, offset, size, stride = record.args[:4]
    if id(storage) not in storages:
        storages[id(storage)] = _flat(storage)
    return storages[id(storage)].as_strided(size, stride, offset)


def _flat(record: Any) -> Tensor:
    """All elements of a stored storage, (n,). It is an embedded torch file, which is also read with `weights_only`."""
    if getattr(record, "origin", None) != STORAGE:
        raise ValueError("a tensor has no storage")
    storage = torch.load(io.BytesIO(record.args[0]), map_location="cpu", weights_only=True)
    return torch.empty(0, dtype=storage.dtype).set_(storage)
