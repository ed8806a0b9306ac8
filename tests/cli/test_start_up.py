"""What starting a command loads."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import scoredistill

CODE = """
import sys
from scoredistill.cli import quick_start
quick_start.install()
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
