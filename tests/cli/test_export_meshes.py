"""Options of `scoredistill export` for meshes, on generators that need no training."""

import sys

import pytest
import torch
from rendering.test_assets import rainbow, two_balls
from rendering.test_gltf import content, sphere

from scoredistill.cli.errors import UsageError
from scoredistill.cli.export import _parser
from scoredistill.cli.meshes import MeshFiles
from scoredistill.generators import NeRF
from scoredistill.generators.nerf import DenseGrid, LearnedBackground
from scoredistill.rendering.mesh import Mesh, NoSurfaceError


class Shapes:
    """A generator of one given mesh, which knows the colour of every point."""

    def __init__(self, mesh: Mesh) -> None:
        self.given = mesh

    def mesh(self, particle: int, resolution: int = 8) -> Mesh:
        del particle, resolution
        return self.given

    def colour(self, points: torch.Tensor, particle: int) -> torch.Tensor:
        del particle
        return rainbow(points)


class Uncoloured:
    def mesh(self, particle: int) -> Mesh:
        del particle
        return Mesh(sphere(9).vertices, sphere(9).faces)


class Coloured(Uncoloured):
    """Colours at the vertices alone."""

    def mesh(self, particle: int) -> Mesh:
        del particle
        return sphere(9)


def files(generator: object, *words: str) -> MeshFiles:
    return MeshFiles.of(generator, _parser().parse_args(["run", *words]))


def names(folder) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_glb_and_obj_are_textured_ply_has_vertex_colours(tmp_path):
    plan = files(Shapes(sphere(21)), "--format", "glb", "obj", "ply", "stl", "--texture", "64", "--faces", "500")
    said = plan.write(Shapes(sphere(21)), 3, tmp_path)
    assert (
        names(tmp_path) == set(plan.names(3)) == {f"particle_3.{k}" for k in ("glb", "obj", "ply", "stl", "mtl", "png")}
    )
    assert said == f"500 faces of {len(sphere(21).faces)}, watertight, a texture of 64 x 64"
    document, _ = content(tmp_path / "particle_3.glb")
    assert len(document["textures"]) == 1
    for kind in ("glb", "obj", "ply", "stl"):
        loaded = Mesh.load(tmp_path / f"particle_3.{kind}")
        assert len(loaded.faces) == 500
        assert loaded.watertight
    ply = Mesh.load(tmp_path / "particle_3.ply")
    torch.testing.assert_close(ply.colors, (rainbow(ply.vertices) + 1) / 2, atol=0.5 / 255 + 1e-4, rtol=0)


def test_no_texture_means_vertex_colours(tmp_path):
    plan = files(Shapes(sphere(9)), "--format", "glb", "obj", "--texture", "0")
    assert plan.names(0) == ["particle_0.glb", "particle_0.obj"]
    plan.write(Shapes(sphere(9)), 0, tmp_path)
    assert names(tmp_path) == set(plan.names(0))
    assert "textures" not in content(tmp_path / "particle_0.glb")[0]
    assert Mesh.load(tmp_path / "particle_0.obj").colors is not None


def test_a_texture_is_the_default_where_there_are_colours():
    assert files(Shapes(sphere(9))).texture == 1024
    assert files(Shapes(sphere(9)), "--format", "ply").texture == 0
    latents = NeRF(1, DenseGrid(4, 5), background=LearnedBackground(), latents=4)
    assert files(latents).texture == 0
    with pytest.raises(UsageError, match="--texture: the scenes are made of latents"):
        files(latents, "--texture", "64")
    with pytest.raises(UsageError, match="--texture: only glb and obj"):
        files(Shapes(sphere(9)), "--format", "ply", "--texture", "64")


def test_colours_at_vertices_become_a_texture_none_do_not(tmp_path):
    files(Coloured(), "--texture", "64").write(Coloured(), 0, tmp_path)
    assert len(content(tmp_path / "particle_0.glb")[0]["textures"]) == 1
    with pytest.raises(UsageError, match="the meshes of Uncoloured have no colours; give --texture 0"):
        files(Uncoloured()).write(Uncoloured(), 1, tmp_path)
    assert names(tmp_path) == {"particle_0.glb"}
    files(Uncoloured(), "--texture", "0").write(Uncoloured(), 1, tmp_path)
    assert Mesh.load(tmp_path / "particle_1.glb").colors is None


def test_what_floats_is_left_out_on_demand(tmp_path):
    shapes = Shapes(two_balls())
    said = files(shapes, "--texture", "0").write(shapes, 0, tmp_path)
    assert "2 pieces, of which --keep-largest would keep one" in said
    said = files(shapes, "--texture", "0", "--keep-largest").write(shapes, 1, tmp_path)
    assert "2 pieces, of which the largest" in said
    assert Mesh.load(tmp_path / "particle_1.glb").vertices[:, 0].max() < 0


@pytest.mark.parametrize(("library", "words"), [("xatlas", []), ("fast_simplification", ["--faces", "50"])])
def test_a_missing_library_is_named_before_anything_is_made(library, words, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(UsageError, match=r"install scoredistill\[mesh\]"):
        files(Shapes(sphere(9)), *words)
    assert files(Shapes(sphere(9)), "--texture", "0").texture == 0


def test_an_option_that_a_generator_has_not_is_refused():
    with pytest.raises(UsageError, match="--threshold: the meshes of Shapes have none"):
        files(Shapes(sphere(9)), "--threshold", "1")
    assert files(Shapes(sphere(9)), "--resolution", "9").extraction == {"resolution": 9}


@pytest.mark.parametrize(
    ("spoil", "error", "said"),
    [
        (lambda m: Mesh(m.vertices * torch.nan, m.faces), ValueError, "particle 2: a vertex is not finite"),
        (lambda m: Mesh(m.vertices, m.faces[:0]), NoSurfaceError, "particle 2 has no surface: no faces; try another"),
        (
            lambda m: Mesh(m.vertices * 0, m.faces),
            NoSurfaceError,
            r"\d+ faces, all of no area; try another --threshold",
        ),
    ],
    ids=["nan", "empty", "no area"],
)
def test_degenerate_meshes_are_errors(spoil, error, said, tmp_path):
    shapes = Shapes(spoil(sphere(9)))
    with pytest.raises(error, match=said):
        files(shapes).write(shapes, 2, tmp_path)
    assert names(tmp_path) == set()


def test_a_nerf_gives_the_colour_of_any_point():
    nerf = NeRF(2, DenseGrid(8), chunk=50)
    points = 2 * torch.rand(120, 3) - 1
    inside = nerf.colour(points, 1)
    field = nerf.field(points, torch.ones(120, dtype=torch.long))[1]
    torch.testing.assert_close(inside, field)
    assert torch.equal(
        nerf.colour(torch.tensor([[3.0, 0.0, -2.0]]), 1), nerf.colour(torch.tensor([[1.0, 0.0, -1.0]]), 1)
    )
    mesh = nerf.mesh(1, 16)
    torch.testing.assert_close(mesh.colors, (nerf.colour(mesh.vertices, 1) + 1) / 2)
    latents = NeRF(1, DenseGrid(4, 5), background=LearnedBackground(), latents=4)
    with pytest.raises(ValueError, match="made of latents"):
        latents.colour(points, 0)
