"""Cameras, volume rendering, rasterization and meshes."""
