"""What is trained: particles, NeRFs, meshes, one-step networks."""
