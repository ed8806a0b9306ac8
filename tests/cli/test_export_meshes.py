"""Mesh options of `scoredistill export`, on generators that need no training."""

import sys

import pytest
import torch
from rendering.test_assets import rainbow, two_balls
from rendering.test_gltf import content, sphere

from scoredistill.cli.errors import UsageError
from scoredistill.cli.export import _parser
from scoredistill.cli.meshes import MeshFiles
from scoredistill.generators import NeRF
from scoredistill.generators.fields import DenseGrid, LearnedBackground
from scoredistill.generators.scenes import SceneGenerator
from scoredistill.rendering.camera import Camera, Render
from scoredistill.rendering.mesh import Mesh, NoSurfaceError
from scoredistill.types import Batch, Sample


class Shapes(SceneGenerator):
    """Scenes of one given mesh with a color at every point."""

    def __init__(self, mesh: Mesh) -> None:
        super().__init__(particles=4, resolution=8)
        self.given = mesh

    def forward(self, batch: Batch, rng: torch.Generator | None = None) -> Sample:
        raise NotImplementedError

    def render(self, camera: Camera, height: int, width: int, background: torch.Tensor | None = None) -> Render:
        raise NotImplementedError

    def mesh(self, particle: int, resolution: int | None = None, threshold: float | None = None) -> Mesh:
        del particle
        self.asked = resolution, threshold
        return self.given

    def color(self, points: torch.Tensor, particle: int) -> torch.Tensor:
        del particle
        return rainbow(points)


def files(generator: SceneGenerator, *words: str) -> MeshFiles:
    return MeshFiles.of(generator, _parser().parse_args(["run", *words]))


def names(folder) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_glb_and_obj_are_textured_ply_has_vertex_colors(tmp_path):
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


def test_no_texture_means_vertex_colors(tmp_path):
    plan = files(Shapes(sphere(9)), "--format", "glb", "obj", "--texture", "0")
    assert plan.names(0) == ["particle_0.glb", "particle_0.obj"]
    plan.write(Shapes(sphere(9)), 0, tmp_path)
    assert names(tmp_path) == set(plan.names(0))
    assert "textures" not in content(tmp_path / "particle_0.glb")[0]
    assert Mesh.load(tmp_path / "particle_0.obj").colors is not None


def test_a_texture_is_the_default_where_there_are_colors():
    assert files(Shapes(sphere(9))).texture == 1024
    assert files(Shapes(sphere(9)), "--format", "ply").texture == 0
    latents = NeRF(1, DenseGrid(4, 5), background=LearnedBackground(), latents=4)
    assert files(latents).texture == 0
    with pytest.raises(UsageError, match="--texture: the scenes are made of latents"):
        files(latents, "--texture", "64")
    with pytest.raises(UsageError, match="--texture: only glb and obj have a texture"):
        files(Shapes(sphere(9)), "--format", "ply", "--texture", "64")


def test_floating_pieces_can_be_left_out(tmp_path):
    shapes = Shapes(two_balls())
    said = files(shapes, "--texture", "0").write(shapes, 0, tmp_path)
    assert "2 pieces (--keep-largest writes only the largest)" in said
    said = files(shapes, "--texture", "0", "--keep-largest").write(shapes, 1, tmp_path)
    assert "2 pieces (only the largest is written)" in said
    assert Mesh.load(tmp_path / "particle_1.glb").vertices[:, 0].max() < 0


@pytest.mark.parametrize(("library", "words"), [("xatlas", []), ("fast_simplification", ["--faces", "50"])])
def test_a_missing_library_is_named_before_any_output(library, words, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(UsageError, match=r"install scoredistill\[mesh\]"):
        files(Shapes(sphere(9)), *words)
    assert files(Shapes(sphere(9)), "--texture", "0").texture == 0


def test_resolution_and_threshold_reach_the_generator(tmp_path):
    shapes = Shapes(sphere(9))
    files(shapes, "--resolution", "9", "--threshold", "0", "--texture", "0").write(shapes, 0, tmp_path)
    assert shapes.asked == (9, 0.0)
    files(shapes, "--texture", "0").write(shapes, 1, tmp_path)
    assert shapes.asked == (None, None)


def test_generators_without_scenes_cannot_be_exported(cli, folder):
    assert cli("fit", "--config", "points.yaml").code == 0
    result = cli("export", "runs/points/0")
    assert result.code == 2
    assert "ImageParticles has nothing to export; generators of 3D scenes and one-step students have" in result.err
    assert not (folder / "runs/points/0/export").exists()


@pytest.mark.parametrize(
    ("spoil", "error", "said"),
    [
        (lambda m: Mesh(m.vertices * torch.nan, m.faces), ValueError, "particle 2: a vertex is not finite"),
        (lambda m: Mesh(m.vertices, m.faces[:0]), NoSurfaceError, "particle 2 has no surface: no faces; try another"),
        (
            lambda m: Mesh(m.vertices * 0, m.faces),
            NoSurfaceError,
            r"\d+ faces, all without area; try another --threshold",
        ),
    ],
    ids=["nan", "empty", "no area"],
)
def test_degenerate_meshes_are_errors(spoil, error, said, tmp_path):
    shapes = Shapes(spoil(sphere(9)))
    with pytest.raises(error, match=said):
        files(shapes).write(shapes, 2, tmp_path)
    assert names(tmp_path) == set()


def test_a_nerf_gives_the_color_of_any_point():
    nerf = NeRF(2, DenseGrid(8), chunk=50)
    points = 2 * torch.rand(120, 3) - 1
    inside = nerf.color(points, 1)
    field = nerf.field(points, torch.ones(120, dtype=torch.long))[1]
    torch.testing.assert_close(inside, field)
    assert torch.equal(nerf.color(torch.tensor([[3.0, 0.0, -2.0]]), 1), nerf.color(torch.tensor([[1.0, 0.0, -1.0]]), 1))
    mesh = nerf.mesh(1, 16)
    torch.testing.assert_close(mesh.colors, (nerf.color(mesh.vertices, 1) + 1) / 2)
    latents = NeRF(1, DenseGrid(4, 5), background=LearnedBackground(), latents=4)
    with pytest.raises(ValueError, match="scenes of latents have no colors"):
        latents.color(points, 0)
