"""Exports meshes and turntables when the page requests them, and keeps them in the run folder."""

from __future__ import annotations

import importlib.util
import queue
import threading
from dataclasses import dataclass
from pathlib import Path

from scoredistill.cli.commands import describe
from scoredistill.cli.export import export
from scoredistill.cli.viewer.run_page import Checkpoint
from scoredistill.files import within

TURNTABLE = ("--size", "192", "--frames", "36")


class MakingError(Exception):
    """An export failed; the message is that of the error."""


@dataclass(frozen=True)
class _Job:
    """Particles of one checkpoint in one format."""

    checkpoint: Checkpoint
    particles: tuple[int, ...]
    kind: str


class Workshop:
    """Runs `scoredistill export`, one job at a time, in a daemon thread.

    Files are view/KEY/particle_I.KIND with the key of the checkpoint; for a newer checkpoint they are exported again.

    Args:
        run: the run folder.
        particles: number of particles of the generator.
    """

    def __init__(self, run: Path, particles: int) -> None:
        self.run = run
        self.particles = particles
        self._jobs: queue.Queue[_Job | None] = queue.Queue()
        self._waiting: set[_Job] = set()
        self._failed: dict[_Job, str] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def request(self, checkpoint: Checkpoint, particle: int, kind: str) -> Path | None:
        """The file, or None while it is being exported.

        Args:
            checkpoint: of the run.
            particle: its index.
            kind: glb, a mesh; or webp, a turntable, which is rendered for all particles at once.

        Raises:
            MakingError: if the export failed.
        """
        kept = self.kept(checkpoint.key, particle, kind)
        if kept is not None:
            return kept
        job = _Job(checkpoint, (particle,) if kind == "glb" else tuple(range(self.particles)), kind)
        with self._lock:
            if job in self._failed:
                raise MakingError(self._failed[job])
            if job not in self._waiting:
                self._waiting.add(job)
                self._jobs.put(job)
        return None

    def kept(self, key: str, particle: int, kind: str) -> Path | None:
        """The file if it exists, also for the key of an earlier checkpoint."""
        path = self.run / "view" / key / f"particle_{particle}.{kind}"
        return path if path.is_file() and within(path, self.run) else None

    @property
    def busy(self) -> bool:
        """Whether an export is running or waiting."""
        with self._lock:
            return bool(self._waiting)

    def close(self) -> None:
        """Start no further export, and wait for the running one."""
        self._closed.set()
        self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None and not self._closed.is_set():
            failure = None
            try:
                self._make(job)
            except Exception as error:  # the page shows any error in place of the result
                failure = describe(error)
            with self._lock:
                self._waiting.discard(job)
                if failure is not None:
                    self._failed[job] = failure

    def _make(self, job: _Job) -> None:
        # Training may write another checkpoint meanwhile; this key is then not requested again.
        missing = [each for each in job.particles if not self.kept(job.checkpoint.key, each, job.kind)]
        if not missing:
            return
        folder = self.run / "view" / job.checkpoint.key
        options = _mesh_options() if job.kind == "glb" else ["--format", "--turntable", job.kind, *TURNTABLE]
        export([str(job.checkpoint.path), "--output", str(folder), "--particles", *map(str, missing), *options])


def _mesh_options() -> list[str]:
    """Options for a mesh in seconds, where export's defaults take a minute; without the extra `mesh`, a plain mesh."""
    words = ["--format", "glb", "--texture", "512" if importlib.util.find_spec("xatlas") else "0"]
    return [*words, "--faces", "20000"] if importlib.util.find_spec("fast_simplification") else words
