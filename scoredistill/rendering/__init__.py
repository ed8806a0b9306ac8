"""Cameras, volume rendering and meshes."""
