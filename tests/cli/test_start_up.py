"""The imports and the signals of a starting command."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import scoredistill

CODE = """
import sys
import time
from scoredistill.cli.lightning_patches import defer_torchmetrics
defer_torchmetrics()
import pytorch_lightning, torchmetrics
heavy = ("torchmetrics.functional", "torchvision", "transformers", "scipy.signal")
assert not [name for name in heavy if name in sys.modules]
from pytorch_lightning.core.module import Metric
assert torchmetrics.Metric is Metric
assert torchmetrics.MeanMetric and torchmetrics.__version__
assert "torchmetrics.functional" in sys.modules
assert torchmetrics.Metric is Metric and issubclass(torchmetrics.MeanMetric, Metric)
"""


@pytest.mark.slow
def test_lightning_without_all_of_torchmetrics():
    environment = os.environ | {"PYTHONPATH": str(Path(scoredistill.__file__).parent.parent)}
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def _signals_heeded():
    """Restore signal handlers: a shell ignores Ctrl-C in background jobs, and earlier tests may have changed more."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler), signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGINT, before[0])
    signal.signal(signal.SIGTERM, before[1])


RECIPE = """\
model:
  generator: {class_path: ImageParticles, init_args: {init: [[0.0, 0.25], [0.5, 0.0]]}}
  teacher: {class_path: GaussianMixture, init_args: {means: [[0.0, 1.0], [1.0, 0.0]], stds: 0.1}}
  loss: SDS
trainer: {max_steps: 100000000, accelerator: cpu, logger: false}
"""
READY = b"Python is there"
PROGRAM = f"""
import os, sys
os.write(1, {READY!r})
from scoredistill.__main__ import main
sys.exit(main())
"""
SLOWLY = [pytest.param(delay, marks=pytest.mark.slow) for delay in (0.2, 0.4, 0.6, 0.8, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0)]


@pytest.mark.skipif(sys.platform == "win32", reason="has other signals")
@pytest.mark.usefixtures("_signals_heeded")
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("delay", [0.3, 1.0, *SLOWLY])
def test_a_signal_while_libraries_are_imported_ends_the_program_and_nothing_is_written(tmp_path, stop, delay):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    line = [sys.executable, "-c", PROGRAM, "fit", "--config", "recipe.yaml"]
    environment = os.environ | {"PYTHONPATH": str(Path(scoredistill.__file__).parent.parent)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(line, cwd=tmp_path, env=environment, **pipes)
    assert process.stdout.read(len(READY)) == READY
    time.sleep(delay)
    process.send_signal(stop)
    said = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 128 + stop, said
    assert len(said.splitlines()) == 1
    assert "interrupted" in said
    if "interrupted at step" not in said:  # on a quick machine the training has begun by then
        assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]


SWALLOWING = """\
import os
import time


class Swallowing:
    \"\"\"Raises something else when it is told to stop, as numpy and torch do while they are imported.\"\"\"

    def __init__(self, number):
        try:
            os.kill(os.getpid(), number)
            time.sleep(5)
        except KeyboardInterrupt:
            HOW


from scoredistill.losses import SDS


class Mine(SDS):
    def __init__(self):
        super().__init__()
        Swallowing(NUMBER)
"""


@pytest.mark.usefixtures("_signals_heeded")
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("how", ["raise ImportError('numpy.core failed to import')", "pass"])
def test_a_signal_swallowed_during_construction_is_recorded(cli, folder, stop, how):
    name = f"swallowing_{stop}_{len(how)}"
    (folder / f"{name}.py").write_text(SWALLOWING.replace("HOW", how).replace("NUMBER", str(int(stop))))
    before, handlers = set(folder.rglob("*")), [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    result = cli("fit", "--config", "points.yaml", "--model.loss", f"{name}.Mine")
    assert result.code == 128 + stop
    assert len(result.err.splitlines()) == 1
    assert "interrupted" in result.err
    assert {path for path in set(folder.rglob("*")) - before if "__pycache__" not in path.parts} == set()
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers
