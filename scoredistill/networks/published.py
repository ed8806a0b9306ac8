"""Published weights, read without ever running what a file brings along."""

from __future__ import annotations

import io
import pickle  # only for the Unpickler below, which knows no global but passive records
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from scoredistill.networks.weights import flaw, read_safetensors

PREFIXES = ("module.", "_orig_mod.", "ema.", "net.", "model.", "unet.")
HOLDERS = ("ema", "net", "model", "state_dict")

# What only training looks at: the augmentation that EDM's CIFAR-10 weights were trained under, and the uncertainty by
# which EDM2 and FastGen weight the loss.
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
    """What a pickle says about one object: which global made it, of what arguments, and the state it was given."""

    origin = ""
    args: tuple[Any, ...]
    state: Any

    def __new__(cls, *args: Any) -> _Record:
        record = super().__new__(cls)
        record.args, record.state = args, None
        return record

    def __init__(self, *args: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    """Turns every global of the list into a record, and refuses all others."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self._classes: dict[str, type[_Record]] = {}

    def find_class(self, module: str, name: str) -> type[_Record]:
        origin = f"{module}.{name}"
        if origin not in ALLOWED:
            raise ValueError(f"it asks for {origin}, which published weights have no need of; nothing was run")
        return self._classes.setdefault(origin, type("_Record", (_Record,), {"origin": origin}))


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a file of weights by name. No code out of the file is run, whatever its format.

    A .safetensors file is read as such. A .pkl file is taken for a pickle as EDM and EDM2 publish theirs, in which each
    module carries the source code that it was made by: the code is left alone, and the pickle may name nothing but the
    few globals that such files consist of. Any other file is read by `torch.load` with `weights_only=True`; its tensors
    may lie under "ema", "net", "model" or "state_dict".

    Elucidating the Design Space of Diffusion-Based Generative Models, 2022, arXiv:2206.00364.
    Analyzing and Improving the Training Dynamics of Diffusion Models, 2023, arXiv:2312.02696.

    Args:
        path: the file.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if the file cannot be read, holds no weights, or asks for more than plain weights need.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}")
    try:
        if path.suffix != ".safetensors" and (found := flaw(path)) is not None:
            raise ValueError(found)
        if path.suffix == ".safetensors":
            return read_safetensors(path)
        if path.suffix == ".pkl":
            with path.open("rb") as file:
                return _of_pickle(_Unpickler(file).load())
        return _of_checkpoint(torch.load(path, map_location="cpu", weights_only=True))
    except (SafetensorError, pickle.UnpicklingError, ValueError, EOFError) as error:
        raise ValueError(f"{path} was not read: {_reason(error)}") from error
    except (TypeError, AttributeError, LookupError, RuntimeError, OverflowError, MemoryError) as error:
        # What the unpicklers raise on bytes that make no sense.
        raise ValueError(f"{path} was not read, its contents are malformed: {error}") from error


def load_published(network: nn.Module, path: str | Path) -> None:
    """Load published weights into a network whose parameters have the published names.

    Names may stand under "model." (EDM) or "unet." (EDM2), and under "net.", "ema.", "module." or "_orig_mod." of those
    who train on, and only those are then taken; values are converted to the network's dtype. What only training uses,
    `map_augment`, `logvar_fourier` and `logvar_linear`, is passed over if the network has none.

    Args:
        network: an EDMUNet or an EDM2UNet of the architecture that was published.
        path: the file, as of `read_tensors`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be read, or at the first tensor that is missing, unexpected or of another shape.
    """
    stored, own = read_tensors(path), network.state_dict()
    while under := _under_a_prefix(stored):
        stored = under
    stored = {name: value for name, value in stored.items() if name in own or name not in OPTIONAL}
    wrong = _first_difference(own, stored)
    if wrong:
        raise ValueError(f"{path} does not fit this {type(network).__name__}: {wrong}")
    network.load_state_dict(stored)


def _under_a_prefix(stored: dict[str, Tensor]) -> dict[str, Tensor]:
    """What stands under the first prefix that there is, without it; nothing if there is none."""
    for prefix in PREFIXES:
        under = {name.removeprefix(prefix): value for name, value in stored.items() if name.startswith(prefix)}
        if under:
            return under
    return {}


def _reason(error: Exception) -> str:
    """The message, less torch's advice to trust the file after all."""
    if "weights_only" not in str(error):
        return str(error)
    named = [line.strip().partition(" Please")[0] for line in str(error).splitlines() if "GLOBAL" in line]
    return named[0] if named else "it is no torch file of plain tensors"


def _first_difference(own: dict[str, Tensor], stored: dict[str, Tensor]) -> str | None:
    for name, value in own.items():
        if name not in stored:
            return f"{name} is missing from the file"
        if stored[name].shape != value.shape:
            return f"{name} has shape {tuple(stored[name].shape)} in the file, {tuple(value.shape)} in the network"
    return next((f"{name} of the file is unexpected" for name in stored if name not in own), None)


def _of_checkpoint(content: Any) -> dict[str, Tensor]:
    """The tensors of what `torch.load` returned."""
    for holder in HOLDERS:
        if isinstance(content, dict) and isinstance(content.get(holder), dict):
            content = content[holder]
    if not isinstance(content, dict) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise ValueError(f"it holds no tensors by name, neither at its top nor under {', '.join(HOLDERS)}")
    return content


def _of_pickle(content: Any) -> dict[str, Tensor]:
    """The tensors of a pickle's records: of the module at its top, or of the one under `ema` or `net`."""
    candidates = [content]
    if isinstance(content, dict):
        candidates += [content[holder] for holder in HOLDERS if holder in content]
    modules = [value for value in candidates if _is_module(value)]
    if not modules:
        keys = f"; it has {', '.join(map(str, content)) or 'nothing'}" if isinstance(content, dict) else ""
        raise ValueError(f"it holds no network, neither at its top nor under {', '.join(HOLDERS)}{keys}")
    return _module_tensors(modules[0], "", {})


def _is_module(value: Any) -> bool:
    return isinstance(value, _Record) and (value.origin == PERSISTENT or value.origin in CONTAINERS)


def _module_tensors(module: Any, prefix: str, storages: dict[int, Tensor]) -> dict[str, Tensor]:
    """The module's parameters and lasting buffers, then those of its submodules, as in a state dict."""
    if not _is_module(module):
        raise ValueError(f"{prefix or 'the network'} is no module")
    state = module.args[0]["state"] if module.origin == PERSISTENT else module.state
    passing = state.get("_non_persistent_buffers_set", ())
    passing = [name for names in passing.args for name in names] if isinstance(passing, _Record) else passing
    kept = {name: value for name, value in state["_buffers"].items() if name not in passing}
    found = {
        f"{prefix}{name}": _tensor(value, storages)
        for name, value in {**state["_parameters"], **kept}.items()
        if value is not None
    }
    for name, child in state["_modules"].items():
        if child is not None:
            found |= _module_tensors(child, f"{prefix}{name}.", storages)
    return found


def _tensor(record: Any, storages: dict[int, Tensor]) -> Tensor:
    """The tensor that a record describes."""
    origin = getattr(record, "origin", type(record).__name__)
    if origin == PARAMETER:
        return _tensor(record.args[0], storages)
    if origin != TENSOR:
        raise ValueError(f"a parameter is made by {origin}, which makes no tensor")
    storage, offset, size, stride = record.args[:4]
    if id(storage) not in storages:
        storages[id(storage)] = _flat(storage)
    return storages[id(storage)].as_strided(size, stride, offset)


def _flat(record: Any) -> Tensor:
    """All elements of a stored storage, (n,). It is a torch file of its own, read as data only like any other."""
    if getattr(record, "origin", None) != STORAGE:
        raise ValueError("a tensor has no storage")
    storage = torch.load(io.BytesIO(record.args[0]), map_location="cpu", weights_only=True)
    return torch.empty(0, dtype=storage.dtype).set_(storage)
