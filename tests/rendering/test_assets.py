"""Assets: textures that show the colors they were baked from, fewer faces, fewer pieces, and the files."""

import math

import numpy as np
import pytest
import torch
import trimesh
from rendering.test_gltf import sphere
from rendering.test_mesh import ball, volume
from torch.nn.functional import avg_pool2d, grid_sample

from scoredistill.rendering.assets import (
    TexturedMesh,
    bake,
    count_pieces,
    decimate,
    keep_largest,
    unwrap,
)
from scoredistill.rendering.assets.textured import _texels
from scoredistill.rendering.mesh import Mesh, marching_cubes


def rainbow(points: torch.Tensor) -> torch.Tensor:
    """Smooth colors that differ from place to place."""
    return 0.9 * torch.stack([(5 * points[:, 0]).sin(), (5 * points[:, 1]).cos(), (4 * points[:, 2]).sin()], dim=-1)


def torus(resolution: int = 33) -> Mesh:
    axis = torch.linspace(-1, 1, resolution)
    x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
    return marching_cubes(((x**2 + z**2).sqrt() - 0.6) ** 2 + y**2, 0.25**2, inside="below")


def two_balls() -> Mesh:
    return marching_cubes(torch.minimum(ball(0.4, 31, -0.5), ball(0.2, 31, 0.6)), 0.0, inside="below")


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return 10 * math.log10(4 / (a.double() - b.double()).square().mean().item())


def surface_weights(n: int, on_edges: bool) -> torch.Tensor:
    """(n, 3) barycentric coordinates, inside a triangle or on one of its sides."""
    weights = torch.distributions.Dirichlet(torch.ones(3)).sample((n,))
    if on_edges:
        weights[torch.arange(n), torch.arange(n) % 3] = 0
    return weights / weights.sum(1, keepdim=True)


def looked_up(texture: torch.Tensor, uv: torch.Tensor) -> torch.Tensor:
    """Bilinear colors in [-1, 1] of a (T, T, 3) uint8 texture at (P, 2) from the upper left corner."""
    image = texture.to(uv).movedim(-1, 0)[None] / 127.5 - 1
    return grid_sample(image, (2 * uv - 1)[None, None], align_corners=False, padding_mode="border")[0, :, 0].T


@pytest.mark.parametrize("on_edges", [False, True], ids=["inside faces", "on edges and seams"])
def test_a_texture_shows_the_colors_that_it_was_baked_from(on_edges):
    torch.manual_seed(0)
    mesh = torus()
    textured = TexturedMesh.bake(mesh, rainbow, 256)
    face = torch.arange(len(mesh.faces)).repeat(3)
    weights = surface_weights(len(face), on_edges)
    points = torch.einsum("pc,pcd->pd", weights, mesh.vertices.double()[mesh.faces][face])
    uv = torch.einsum("pc,pcd->pd", weights, textured.layout.uv[textured.layout.faces][face])
    # Rounding to 8 bits leaves 59 dB at a texel, a little more between them; one foreign color in a thousand, some 35.
    assert psnr(looked_up(textured.texture, uv), rainbow(points)) > 55


def test_mipmaps_bring_in_no_foreign_color():
    """The texture of a one-colored surface has that color everywhere, also between and outside the charts."""
    textured = TexturedMesh.bake(sphere(), lambda points: torch.tensor([0.2, -0.6, 1.0]).expand_as(points), 64)
    assert (textured.texture == torch.tensor([153, 51, 255], dtype=torch.uint8)).all()
    mesh = torus()
    textured = TexturedMesh.bake(mesh, rainbow, 512)
    image = textured.texture.double().movedim(-1, 0) / 127.5 - 1
    small = ((avg_pool2d(image, 4) + 1) * 127.5).round().byte().movedim(0, -1)
    uv, points = textured.layout.uv, mesh.vertices.double()[textured.layout.source]  # at the vertices: on seams too
    assert psnr(looked_up(small, uv), rainbow(points)) > 27


def test_charts_are_in_the_square_and_keep_the_faces_in_order():
    mesh = torus()
    layout = unwrap(mesh, 128)
    assert torch.equal(layout.source[layout.faces], mesh.faces)
    assert layout.uv.min() >= 0
    assert layout.uv.max() <= 1
    # All at one scale: a face's area in the texture is proportional to its own, but for the flattening.
    a, b, c = layout.uv[layout.faces].unbind(1)
    flat = 0.5 * ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]).abs()
    large = mesh.areas > mesh.areas.median()
    ratio = flat[large] / mesh.areas[large]
    assert ratio.quantile(0.95) < 1.5 * ratio.quantile(0.05)
    assert 0.3 < flat.sum() < 1


def test_each_texel_belongs_to_the_face_that_its_center_lies_in():
    triangles = torch.tensor([[[2.0, 2.0], [10.0, 2.0], [2.0, 10.0]], [[10.0, 2.0], [10.0, 10.0], [2.0, 10.0]]])
    texel, face, weights = _texels(triangles, 12)
    x, y = texel % 12 + 0.5, texel // 12 + 0.5
    inside = (x > 2) & (x < 10) & (y > 2) & (y < 10)
    assert inside.sum() == 64
    off_diagonal = inside & ((x + y) != 12)
    assert torch.equal(face[off_diagonal], (x + y > 12).long()[off_diagonal])
    assert len(texel) == 10 * 10  # one texel further on every side; the corners' are nearer than one to both sides
    torch.testing.assert_close(torch.einsum("pc,pcd->pd", weights, triangles[face]), torch.stack([x, y], dim=-1))
    collapsed = torch.tensor([[[3.0, 3.0], [3.0, 3.0], [5.0, 5.0]]])
    assert len(_texels(collapsed, 12)[0]) == 0


def test_blocks_of_faces_give_the_same_texture(monkeypatch):
    mesh = sphere()
    layout = unwrap(mesh, 128)
    whole = bake(mesh, layout, rainbow, 128)
    monkeypatch.setattr("scoredistill.rendering.assets.textured._PAIRS", 500)
    monkeypatch.setattr("scoredistill.rendering.assets.textured._POINTS", 300)
    assert torch.equal(bake(mesh, layout, rainbow, 128), whole)


@pytest.mark.parametrize("name", ["ring.glb", "ring.obj", "a ring, #1.obj"])
def test_files_open_in_another_program_with_the_texture(name, tmp_path):
    mesh = torus(21)
    textured = TexturedMesh.bake(mesh, rainbow, 128)
    textured.save(tmp_path / name)
    assert len(list(tmp_path.iterdir())) == (1 if name.endswith("glb") else 3)
    assert not any(" " in path.name or "#" in path.name for path in tmp_path.iterdir() if path.suffix != ".obj")
    read = trimesh.load_mesh(tmp_path / name)
    material = read.visual.material
    image = material.image if name.endswith("obj") else material.baseColorTexture
    picture = torch.tensor(np.asarray(image.convert("RGB")))
    assert torch.equal(picture, textured.texture)
    uv = torch.tensor(read.visual.uv)  # trimesh counts from the lower left corner
    colors = looked_up(picture, torch.stack([uv[:, 0], 1 - uv[:, 1]], dim=-1))
    assert psnr(colors, rainbow(torch.tensor(read.vertices))) > 45
    loaded = Mesh.load(tmp_path / name)
    assert loaded.watertight
    assert volume(loaded) == pytest.approx(volume(mesh), rel=1e-4)


def test_a_textured_mesh_has_two_formats(tmp_path):
    textured = TexturedMesh.bake(sphere(9), rainbow, 32)
    with pytest.raises(ValueError, match=r"\.glb, \.obj; got 'ball\.ply'"):
        textured.save(tmp_path / "ball.ply")
    assert list(tmp_path.iterdir()) == []


def test_an_error_between_the_files_of_an_obj_leaves_none(tmp_path, monkeypatch):
    from pathlib import Path

    textured, replace = TexturedMesh.bake(sphere(9), rainbow, 32), Path.replace

    def refuse(self, target):
        if Path(target) == tmp_path / "ball.obj":
            raise OSError("disk full")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError, match="disk full"):
        textured.save(tmp_path / "ball.obj")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("faces", [1000, 300])
def test_fewer_faces_of_a_closed_surface_are_closed_and_near_it(faces):
    mesh = torus()
    less = decimate(mesh, faces)
    assert 0.9 * faces <= len(less.faces) <= faces
    assert less.watertight
    assert less.faces.unique().numel() == len(less.vertices)
    assert volume(less) == pytest.approx(volume(mesh), rel=10 / faces)
    x, y, z = less.sample_points(4000, torch.Generator().manual_seed(0)).unbind(1)
    distance = ((x.square() + z.square()).sqrt() - 0.6).square().add(y.square()).sqrt() - 0.25
    assert distance.abs().mean() < 4 / faces
    assert decimate(mesh, 10**6) is mesh


def test_surfaces_full_of_holes_stay_without_borders():
    """Where a collapse pinches the surface, four faces may share an edge, but no face loses its neighbor."""
    noise = torch.randn(1, 1, 7, 7, 7, generator=torch.Generator().manual_seed(0))
    mesh = marching_cubes(torch.nn.functional.interpolate(noise, (25,) * 3, mode="trilinear")[0, 0], 0.3)
    less = decimate(mesh, 2000)
    start, end = less.faces.reshape(-1), less.faces.roll(-1, dims=1).reshape(-1)
    forward, backward = start * len(less.vertices) + end, end * len(less.vertices) + start
    assert torch.equal(forward.sort().values, backward.sort().values)
    assert (forward.unique(return_counts=True)[1] > 1).double().mean() < 0.01


def test_the_largest_piece_is_kept_with_its_colors():
    mesh = two_balls()
    mesh = Mesh(mesh.vertices, mesh.faces, (mesh.vertices + 1) / 2)
    assert count_pieces(mesh) == 2
    kept = keep_largest(mesh)
    assert count_pieces(kept) == 1
    assert kept.watertight
    assert kept.vertices[:, 0].max() < 0
    torch.testing.assert_close(kept.colors, (kept.vertices + 1) / 2)
    assert count_pieces(Mesh(mesh.vertices, mesh.faces[:0])) == 0


def test_missing_libraries_are_named_with_their_extra(monkeypatch):
    mesh = sphere(9)
    for name in ("xatlas", "fast_simplification"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(ImportError, match=r"install scoredistill\[mesh\]"):
        unwrap(mesh, 32)
    with pytest.raises(ImportError, match=r"install scoredistill\[mesh\]"):
        decimate(mesh, 20)
