"""Launchers of a study's runs: GPUs, logs, errors. tests/cli/test_ablate.py compares their results."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from scoredistill.studies.launchers import Entry, Job, LocalProcesses, Ray, Slurm, local
from scoredistill.studies.launchers.launcher import LOG


def unused(arguments: Sequence[str]) -> int:
    raise AssertionError("it is not executed here")


def job(folder: Path, *words: str, entry: Entry = unused) -> Job:
    return Job(folder / "run", "key", list(words), folder, entry)


@pytest.mark.parametrize(
    ("visible", "processes", "given"),
    [
        (None, None, ["0", "1", "2", "3"]),
        (None, 2, ["0,2", "1,3"]),
        ("4,GPU-7,6,9", 2, ["4,6", "GPU-7,9"]),
        ("4,GPU-7,6,9", 5, ["4", "GPU-7", "6", "9", "4"]),
    ],
)
def test_gpus_are_shared_out(tmp_path, monkeypatch, visible, processes, given):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    seen = []
    monkeypatch.setattr(Job, "start", lambda job: seen.append(job.environment))
    launcher = LocalProcesses(processes)
    assert launcher.slots == len(given)
    for slot in range(launcher.slots):
        launcher.launch(job(tmp_path), slot)
    assert [environment["CUDA_VISIBLE_DEVICES"] for environment in seen] == given


def ended(launched) -> int:
    for _ in range(6000):
        code = launched.code()
        if code is not None:
            return code
        time.sleep(0.01)
    raise AssertionError("it does not end")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="local runs are forks under Linux only")
def test_a_fork_writes_into_its_own_log(tmp_path, monkeypatch, capfd):
    """The log does not contain the unwritten output of the parent process."""

    def main(argv):
        sys.stdout.write("out\n")
        sys.stderr.write("err\n")
        return 7

    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with (tmp_path / "held.txt").open("w") as held:
        held.write("not yet written")
        monkeypatch.setattr(sys, "stdout", held)
        assert ended(LocalProcesses(1).launch(job(tmp_path, "--a", "b c", entry=main), 0)) == 7
    assert (tmp_path / "run" / LOG).read_text() == "$ scoredistill fit --a 'b c'\nout\nerr\n"
    assert (tmp_path / "held.txt").read_text() == "not yet written"
    assert capfd.readouterr().out == ""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="local runs are forks under Linux only")
def test_a_process_that_does_not_stop_is_killed(tmp_path, monkeypatch):
    def main(argv):
        import signal

        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("deaf", flush=True)
        time.sleep(60)

    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr(local, "GRACE", 0.2)
    launched = LocalProcesses(1).launch(job(tmp_path, entry=main), 0)
    log = tmp_path / "run" / LOG
    while "deaf" not in log.read_text():
        time.sleep(0.01)
    launched.stop()
    assert ended(launched) == -9


def test_rays_share_of_a_machine():
    pytest.importorskip("ray")
    with pytest.raises(ValueError, match="cpus must be above 0"):
        Ray(cpus=0)


def test_errors_of_slurm_are_reported(tmp_path):
    submitit = pytest.importorskip("submitit")

    class Refusing:
        def submit(self, call):
            raise submitit.core.utils.FailedJobError("sbatch: error:\n  Job violates accounting/QOS policy")

    slurm = Slurm(folder=str(tmp_path / "slurm"), cluster="local")
    slurm._executor = Refusing()
    with pytest.raises(RuntimeError, match="sbatch: error: Job violates accounting"):
        slurm.launch(job(tmp_path), 0)


def test_a_canceled_job_has_ended(tmp_path):
    """Slurm may take a minute to report it."""
    pytest.importorskip("submitit")

    class Cancelled:
        def submit(self, call):
            return self

        def done(self):
            return False

        def cancel(self):
            pass

    slurm = Slurm(folder=str(tmp_path / "slurm"), cluster="local")
    slurm._executor = Cancelled()
    launched = slurm.launch(job(tmp_path), 0)
    assert launched.code() is None
    launched.stop()
    assert launched.code() == -15
