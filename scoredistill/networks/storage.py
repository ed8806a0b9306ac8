"""Denoisers on disk, in the folder format of diffusers.

folder/  denoiser.json  network/config.json  network/diffusion_pytorch_model.safetensors      a model of diffusers
folder/  denoiser.json  network.safetensors                                                  any other backbone
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from scoredistill.files import atomic_folder, json_text, load_json
from scoredistill.networks.backbone import Backbone
from scoredistill.networks.denoiser import Denoiser
from scoredistill.networks.diffusers import DiffusersBackbone
from scoredistill.networks.modules import first_not_finite
from scoredistill.networks.weight_files import first_flaw, read_safetensors

DESCRIPTION = "denoiser.json"


def save_denoiser(denoiser: Denoiser, folder: str | Path) -> None:
    """Write a denoiser into a folder, atomically. An existing folder is replaced.

    Args:
        denoiser: the denoiser.
        folder: the destination.

    Raises:
        TypeError: if its backbone has no `settings`, or belongs to a text-to-image pipeline.
        ValueError: if a weight is NaN or infinite.
    """
    require_finite_weights(denoiser, folder)
    with atomic_folder(Path(folder)) as draft:
        _write(denoiser, draft)


def require_finite_weights(network: nn.Module, folder: str | Path) -> None:
    """Check that a network has not diverged.

    Args:
        network: the network.
        folder: its folder, for the error message.

    Raises:
        ValueError: if a weight is NaN or infinite.
    """
    lost = first_not_finite(network.state_dict())
    if lost is not None:
        raise ValueError(f"{folder}: {lost} is not finite (NaN or infinity), training has diverged; train it again")


def find_trained(folder: str | Path, part: str, marker: str) -> Path | None:
    """The folder of a trained network: the given folder, `part` of its newest finished run, or None.

    Args:
        folder: the network's folder, or the parent of the run folders of the recipe that trains it.
        part: name of the network's folder in a finished run, for example "teacher".
        marker: name of a file that identifies a network's folder.
    """
    folder = Path(folder)
    if (folder / marker).is_file():
        return folder
    runs = (path.parent for path in folder.glob(f"*/{part}") if (path / marker).is_file())
    newest = max((run for run in runs if run.name.isdecimal()), key=lambda run: int(run.name), default=None)
    return None if newest is None else newest / part


def _write(denoiser: Denoiser, folder: Path) -> None:
    from safetensors.torch import save_file

    network = denoiser.network
    settings = getattr(network, "settings", None)
    if settings is None:
        raise TypeError(f"{type(network).__name__} cannot be saved: it has no `settings`, its constructor's arguments")
    if isinstance(network, DiffusersBackbone) and type(network) is not DiffusersBackbone:
        raise TypeError(f"{type(network).__name__} is part of a text-to-image pipeline: save the pipeline instead")
    description: dict[str, Any] = {"prediction": denoiser.prediction, "sigma_data": denoiser.sigma_data}
    description["scale_input"] = denoiser.scale_input
    description |= {"backbone": type(network).__name__, "settings": settings}
    if isinstance(network, DiffusersBackbone):
        description["network"] = type(network.network).__name__
        network.network.save_pretrained(folder / "network")  # type: ignore[operator]
        embedding = network.condition.state_dict()
        if embedding:
            save_file(embedding, folder / "condition.safetensors")
    else:
        save_file(
            {key: value.contiguous() for key, value in network.state_dict().items()}, folder / "network.safetensors"
        )
    (folder / DESCRIPTION).write_text(f"{json_text(description)}\n")


def load_denoiser(folder: str | Path) -> Denoiser:
    """Load a denoiser from a folder that `save_denoiser` has written.

    Args:
        folder: the folder.

    Raises:
        ValueError: if the folder contains no denoiser, the backbone's class is unknown, a weight is NaN or infinite, or
            a file cannot be read.
    """
    folder = Path(folder)
    try:
        description = load_json(folder / DESCRIPTION, dict)
        arguments = [description[key] for key in ("prediction", "sigma_data", "scale_input")]
        network = _read_network(description, folder)
    except KeyError as error:
        raise ValueError(f"{folder}: {DESCRIPTION} has no key {error}") from error
    except (FileNotFoundError, TypeError) as error:
        raise ValueError(f"{folder} contains no denoiser ({DESCRIPTION}): {error}") from error
    require_finite_weights(network, folder)
    return Denoiser(network, *arguments)


def _read_network(description: dict[str, Any], folder: Path) -> Backbone:
    name, settings = description["backbone"], description["settings"]
    if name == DiffusersBackbone.__name__:
        backbone = DiffusersBackbone(_read_diffusers(description["network"], folder / "network"), **settings)
        if backbone.condition.active:
            backbone.condition.load_state_dict(read_safetensors(folder / "condition.safetensors"))
        return backbone
    kinds = {kind.__name__: kind for kind in _subclasses(Backbone)}
    if name not in kinds:
        raise ValueError(
            f"{folder} contains a {name}, which is not among {', '.join(sorted(kinds))}: import its module first"
        )
    network = kinds[name](**settings)
    network.load_state_dict(read_safetensors(folder / "network.safetensors"))
    return network


def _read_diffusers(name: str, folder: Path) -> nn.Module:
    """Load a network of diffusers.

    Raises:
        ValueError: if its weights cannot be read.
    """
    from safetensors import SafetensorError

    try:
        network: nn.Module = _diffusers_class(name).from_pretrained(folder)
    except (OSError, SafetensorError) as error:
        raise ValueError(first_flaw(folder) or f"{folder}: its weights cannot be read: {error}") from error
    return network


def _diffusers_class(name: str) -> Any:
    import diffusers

    kind = getattr(diffusers, name, None)
    if not (isinstance(kind, type) and issubclass(kind, diffusers.ModelMixin) and issubclass(kind, nn.Module)):
        raise ValueError(f"diffusers has no model {name!r}")
    return kind


def _subclasses(kind: type) -> list[Any]:
    children: list[Any] = kind.__subclasses__()
    return [*children, *(each for child in children for each in _subclasses(child))]
