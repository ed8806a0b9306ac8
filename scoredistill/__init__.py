"""scoredistill: distil a diffusion model's score into NeRFs, meshes and one-step generators."""

from scoredistill.version import __version__

__all__ = ["__version__"]
