"""Deep marching tetrahedra: differentiable meshes with textures."""

from scoredistill.generators.dmtet.dmtet import DMTet
from scoredistill.generators.dmtet.initial import Ellipsoid, InitialShape, MeshShape
from scoredistill.generators.dmtet.regularizers import Laplacian, NormalConsistency, SignChange, SurfaceRegularizer
from scoredistill.generators.dmtet.surface import Surface

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
