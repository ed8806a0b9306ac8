"""scoredistill export: meshes and turntables from a run folder."""

import pytest
import torch
from PIL import Image

from scoredistill.cli.export import _parser
from scoredistill.rendering.mesh import Mesh

NERF = """\
model:
  generator:
    class_path: NeRF
    init_args:
      particles: 2
      resolution: 8
      samples: 16
      encoding: {class_path: DenseGrid, init_args: {resolution: 8}}
  teacher: {class_path: GaussianMixture, init_args: {means: nested.yaml}}
  loss: SDS
  ema: 0.5
data: {class_path: PromptAndCameras, init_args: {prompt: a red mug, views: 1}}
trainer: {max_steps: 1, accelerator: cpu, logger: false}
"""


@pytest.fixture
def run(cli, folder):
    """A finished run of two tiny NeRFs."""
    teacher = "  teacher: {class_path: Gallery, init_args: {supersample: 1}}\n"
    lines = NERF.splitlines(keepends=True)
    (folder / "nerf.yaml").write_text("".join(teacher if "GaussianMixture" in line else line for line in lines))
    result = cli("fit", "--config", "nerf.yaml")
    assert result.code == 0, result.err
    return folder / "runs/nerf/0"


@pytest.mark.slow
def test_meshes_and_turntables(cli, folder, run):
    small = ["--resolution", "16", "--size", "24", "--frames", "4", "--particles", "1"]
    result = cli("export", run, "--format", "glb", "obj", "ply", "--turntable", "webp", "gif", "mp4", *small)
    assert result.code == 0, result.err
    written = run / "export/0"
    assert {path.name for path in written.iterdir()} == {
        f"particle_1.{kind}" for kind in ("glb", "obj", "mtl", "png", "ply", "webp", "gif", "mp4")
    }
    assert Mesh.load(written / "particle_1.glb").watertight
    with Image.open(written / "particle_1.webp") as picture:
        assert (picture.n_frames, picture.size) == (4, (24, 24))
    assert cli("export", run / "checkpoints/last.ckpt", "--resolution", "16").code == 0
    assert {path.name for path in (run / "export/1").iterdir()} == {"particle_0.glb", "particle_1.glb"}

    for words, said in [
        ([run, "--particles", "2"], "there is no particle 2, only 0 to 1"),
        ([run, "--output", written, "--particles", "1"], "particle_1.glb exists already"),
        ([run, "--format"], "nothing to write"),
        ([run, "--format", "fbx"], "fbx"),
        ([folder], "not a run folder with a checkpoint"),
        ([folder / "nowhere"], "there is no checkpoint and no run folder"),
    ]:
        result = cli("export", *words)
        assert result.code == 2
        assert said in result.err
        assert len(result.err.splitlines()) == 1
    assert cli("export", run, "--threshold", "1e9").code == 1
    assert {path.name for path in (run / "export").iterdir()} == {"0", "1"}


def test_the_evaluated_generator_is_exported(cli, folder, run):
    from scoredistill.cli.load_run import load_generator

    stored = torch.load(run / "checkpoints/last.ckpt")["state_dict"]
    generator = load_generator(run / "config.yaml", run / "checkpoints/last.ckpt")
    for name, value in generator.state_dict().items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, stored[f"averages.ema.module.{name}"])


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--resolution", "-3", "from 8 to 2048, got -3"),
        ("--resolution", "2", "from 8 to 2048, got 2"),
        ("--resolution", "7", "from 8 to 2048, got 7"),
        ("--resolution", "100000", "from 8 to 2048, got 100000"),
        ("--texture", "1000000", "from 0 to 16384, got 1000000"),
        ("--faces", "3", "from 4 to 2147483647, got 3"),
        ("--size", "1000000", "from 1 to 8192, got 1000000"),
        ("--fps", "0", "from 1 to 1000, got 0"),
        ("--frames", "many", "from 1 to 10000, got many"),
        ("--elevation", "nan", "degrees from -90 to 90, got nan"),
        ("--elevation", "91", "degrees from -90 to 90, got 91"),
        ("--particles", "-1", "from 0 to 2147483647, got -1"),
        ("--radius", "nan", "above 0, got nan"),
        ("--threshold", "inf", "a finite number, got inf"),
        ("--fov", "180", "between 0 and 180, got 180"),
    ],
)
def test_numbers_out_of_range_are_named(cli, folder, option, value, said):
    result = cli("export", "nowhere", option, value)
    assert result.code == 2
    assert option in result.err
    assert said in result.err
    assert len(result.err.splitlines()) == 1


def test_the_ends_of_ranges_are_accepted():
    options = _parser().parse_args(["RUN", "--resolution", "8", "--elevation", "-90", "--fps", "1000"])
    assert (options.resolution, options.elevation, options.fps) == (8, -90.0, 1000)


def test_turntables_of_latents_are_refused():
    from argparse import Namespace

    from scoredistill.cli.errors import UsageError
    from scoredistill.cli.export import _checked
    from scoredistill.generators import NeRF
    from scoredistill.generators.fields import DenseGrid, LearnedBackground

    scenes = NeRF(1, DenseGrid(4, 5), background=LearnedBackground(), latents=4)
    with pytest.raises(UsageError, match="--turntable: the scenes are made of latents"):
        _checked(scenes, Namespace(format=[], turntable=["gif"]))
