"""Assets for other programs: decimated and textured meshes, and their files."""

from scoredistill.rendering.assets.simplify import count_pieces, decimate, keep_largest
from scoredistill.rendering.assets.textured import Colors, TexturedMesh, Unwrapped, bake, unwrap

__all__ = [
    "Colors",
    "TexturedMesh",
    "Unwrapped",
    "bake",
    "count_pieces",
    "decimate",
    "keep_largest",
    "unwrap",
]
