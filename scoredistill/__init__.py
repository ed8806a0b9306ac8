"""scoredistill: distill a diffusion model's score into NeRFs, meshes and one-step generators.

Distiller(generator, teacher, loss)        SDS is VSD is f-distill: g = w(t) h(r) (A - B)
"""

from typing import TYPE_CHECKING, Any

from scoredistill.version import __version__

if TYPE_CHECKING:
    from scoredistill.cli.load_run import LoadedRun, load
    from scoredistill.distiller import Distiller
    from scoredistill.types import Batch, Condition, Sample

__all__ = ["Batch", "Condition", "Distiller", "LoadedRun", "Sample", "__version__", "load"]

_HOMES = {"Distiller": "distiller", "Batch": "types", "Condition": "types", "Sample": "types"}
_HOMES |= {"LoadedRun": "cli.load_run", "load": "cli.load_run"}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that the command line's help needs no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'scoredistill' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"scoredistill.{_HOMES[name]}"), name)
