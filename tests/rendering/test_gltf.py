"""GLB files: their content, and the Khronos validator."""

import json
import os
import shutil
import struct
import subprocess

import pytest
import torch
from rendering.test_mesh import ball

from scoredistill.rendering.assets import TexturedMesh
from scoredistill.rendering.gltf import to_display, to_linear
from scoredistill.rendering.mesh import Mesh, marching_cubes

VALIDATE = """
const [file] = process.argv.slice(1);
require("gltf-validator").validateBytes(new Uint8Array(require("fs").readFileSync(file)))
  .then(report => console.log(JSON.stringify(report.issues)));
"""


def sphere(resolution: int = 15) -> Mesh:
    mesh = marching_cubes(ball(0.5, resolution), 0.0, inside="below")
    return Mesh(mesh.vertices, mesh.faces, (mesh.vertices + 1) / 2)


def content(path) -> tuple[dict, bytes]:
    """The document and the binary chunk."""
    data = path.read_bytes()
    magic, version, length, size = struct.unpack("<4sIII", data[:16])
    assert (magic, version, length) == (b"glTF", 2, len(data))
    return json.loads(data[20 : 20 + size]), data[28 + size :]


def validator_missing() -> bool:
    """Whether node cannot find the npm package gltf-validator: in node_modules here, or by NODE_PATH."""
    node = shutil.which("node")
    found = node and subprocess.run([node, "-e", 'require("gltf-validator")'], capture_output=True, check=False)
    return not found or found.returncode != 0


def test_the_curve_of_srgb_and_its_inverse():
    values = torch.linspace(0, 1, 1001)
    torch.testing.assert_close(to_display(to_linear(values)), values, atol=1e-7, rtol=0)
    # Middle gray on a display is a fifth of the light.
    assert to_linear(torch.tensor(0.5)).item() == pytest.approx(0.21404, abs=1e-5)


def test_a_file_states_axes_and_units_and_a_rough_material(tmp_path):
    sphere().save(tmp_path / "ball.glb")
    document, _ = content(tmp_path / "ball.glb")
    assert document["asset"]["extras"]["up"] == "+y"
    assert document["asset"]["extras"]["front"] == "+z"
    assert document["asset"]["extras"]["units"].startswith("meters")
    assert document["asset"]["generator"].startswith("scoredistill")
    (material,) = document["materials"]
    assert material == {"pbrMetallicRoughness": {"metallicFactor": 0, "roughnessFactor": 1}}  # closed: one side is seen


def test_vertex_colors_are_linear_and_normals_point_outward(tmp_path):
    mesh = sphere()
    mesh.save(tmp_path / "ball.glb")
    document, binary = content(tmp_path / "ball.glb")
    attributes = document["meshes"][0]["primitives"][0]["attributes"]

    def read(name: str) -> torch.Tensor:
        view = document["bufferViews"][document["accessors"][attributes[name]]["bufferView"]]
        data = bytearray(binary[view["byteOffset"] : view["byteOffset"] + view["byteLength"]])
        return torch.frombuffer(data, dtype=torch.float32).view(-1, 3)

    torch.testing.assert_close(to_display(read("COLOR_0")), mesh.colors, atol=1e-6, rtol=0)
    outward = torch.nn.functional.normalize(read("POSITION"), dim=-1)
    assert (read("NORMAL") * outward).sum(-1).min() > 0.98  # 11 degrees, at the slivers that marching cubes makes


def test_a_mesh_with_a_hole_is_seen_from_both_sides(tmp_path):
    mesh = sphere()
    Mesh(mesh.vertices, mesh.faces[1:]).save(tmp_path / "open.glb")
    assert content(tmp_path / "open.glb")[0]["materials"][0]["doubleSided"] is True


@pytest.mark.skipif(validator_missing(), reason="node or its package gltf-validator is missing: see .ci/run")
@pytest.mark.parametrize("kind", ["textured", "colored", "plain"])
def test_the_khronos_validator_finds_nothing(kind, tmp_path):
    mesh = sphere()
    if kind == "textured":
        TexturedMesh.bake(mesh, lambda points: points, 64).save(tmp_path / "ball.glb")
    else:
        Mesh(mesh.vertices, mesh.faces, mesh.colors if kind == "colored" else None).save(tmp_path / "ball.glb")
    said = subprocess.run(
        ["node", "-e", VALIDATE, tmp_path / "ball.glb"], capture_output=True, text=True, check=True, env=os.environ
    )
    issues = json.loads(said.stdout)
    assert issues["messages"] == []
    assert issues["numErrors"] == issues["numWarnings"] == 0
