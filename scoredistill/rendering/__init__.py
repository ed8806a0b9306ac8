"""Cameras, volume rendering, rasterization and meshes."""

from scoredistill.rendering.antialias import antialias
from scoredistill.rendering.camera import Camera, Render, composite_over
from scoredistill.rendering.mesh import Mesh, NoSurfaceError, chamfer, marching_cubes
from scoredistill.rendering.raster import Backend, Fragments, interpolate, rasterize
from scoredistill.rendering.scene import Scene, project
from scoredistill.rendering.turntable import picture_grid, save_animation, save_picture, to_bytes, turntable_cameras
from scoredistill.rendering.volume import accumulate, optical_depth_before, ray_starts, render_weights

__all__ = [
    "Backend",
    "Camera",
    "Fragments",
    "Mesh",
    "NoSurfaceError",
    "Render",
    "Scene",
    "accumulate",
    "antialias",
    "chamfer",
    "composite_over",
    "interpolate",
    "marching_cubes",
    "optical_depth_before",
    "picture_grid",
    "project",
    "rasterize",
    "ray_starts",
    "render_weights",
    "save_animation",
    "save_picture",
    "to_bytes",
    "turntable_cameras",
]
