"""Deep marching tetrahedra: differentiable meshes with textures."""

from scoredistill.generators.dmtet.dmtet import DMTet
from scoredistill.generators.dmtet.initial_surface import Ellipsoid, InitialShape, MeshShape
from scoredistill.generators.dmtet.surface import Surface
from scoredistill.generators.dmtet.surface_regularizers import (
    Laplacian,
    NormalConsistency,
    SignChange,
    SurfaceRegularizer,
)

__all__ = [
    "DMTet",
    "Ellipsoid",
    "InitialShape",
    "Laplacian",
    "MeshShape",
    "NormalConsistency",
    "SignChange",
    "Surface",
    "SurfaceRegularizer",
]
