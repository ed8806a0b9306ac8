"""A full disk: the message names the file and how to resume, and existing files are kept."""

import json
import resource
import sys

import pytest
import torch

from scoredistill.cli.viewer.run_page import report
from scoredistill.training.run_folder import RunFolder

LIMIT = 20_000
"""Maximum number of bytes of a file, beyond which writing fails as on a full disk."""
MANY = """\
class_path: GaussianInit
init_args: {particles: 3000, shape: [2]}
"""
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="has no limits of files")


@pytest.fixture
def small_files():
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def many(folder):
    (folder / "many.yaml").write_text(MANY)
    return ["--config", "points.yaml", "--model.generator.init", "many.yaml"]


def test_an_unwritable_checkpoint_is_named_and_the_previous_one_kept(cli, folder, many, small_files):
    assert cli("fit", *many).code == 0
    path = folder / "runs/points/0/checkpoints/last.ckpt"
    small_files()
    result = cli("fit", "--ckpt_path", "runs/points/0", "--trainer.max_steps", "5")
    assert result.code == 1
    assert result.err.splitlines() == [
        "scoredistill fit: runs/points/0/checkpoints/last.ckpt: File too large; to resume from the last checkpoint: "
        "scoredistill fit --ckpt_path runs/points/0"
    ]
    assert torch.load(path)["global_step"] == 3
    assert [each.name for each in path.parent.iterdir()] == ["last.ckpt"]


def test_an_unwritable_first_checkpoint_is_named(cli, folder, many, small_files):
    small_files()
    result = cli("fit", *many)
    assert result.code == 1
    assert result.err == "scoredistill fit: runs/points/0/checkpoints/last.ckpt: File too large\n"


def test_an_unwritable_log_names_the_run(cli, folder, small_files):
    words = ["--trainer.logger", "true", "--trainer.log_every_n_steps", "1", "--trainer.max_steps", "2000"]
    small_files()
    result = cli("fit", "--config", "points.yaml", *words)
    assert result.code == 1
    assert len(result.err.splitlines()) == 1
    assert "runs/points/0" in result.err
    assert "File too large; to resume from the last checkpoint" in result.err


def test_unwritable_predictions_are_named_and_nothing_is_left(cli, folder, many, small_files):
    assert cli("fit", *many).code == 0
    small_files()
    result = cli("predict", "--ckpt_path", "runs/points/0")
    assert result.code == 1
    assert result.err == "scoredistill predict: runs/points/0/predictions/0/samples.safetensors: File too large\n"
    assert not (folder / "runs/points/0/predictions").exists()


LARGE = """\
import torch

from scoredistill.rendering.turntable import save_picture
from scoredistill.training.callbacks import Evaluation


class Large(Evaluation):
    def evaluate(self, module, data, final):
        save_picture(torch.randint(0, 256, (200, 200, 3), dtype=torch.uint8), "large.png")
        return {}
"""


def test_an_unwritable_picture_does_not_affect_other_results(cli, folder, small_files):
    (folder / "large_picture.py").write_text(LARGE)
    words = ["--trainer.callbacks", "[large_picture.Large, ModeStatistics]"]
    small_files()
    result = cli("fit", "--config", "points.yaml", *words)
    assert result.code == 1
    assert "warning: Large failed: large.png: File too large" in result.err
    assert "modes_covered" in json.loads((folder / "runs/points/0/metrics.json").read_text())
    assert not list(folder.glob("*.png"))
    assert report(RunFolder(folder / "runs/points/0"))["damaged"] == []
