"""Files that belong together are written all or none."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rendering.shapes import surface
from safetensors.torch import save_file

from scoredistill.files import atomic_folder, remove_partial, write_json_atomically, write_together
from scoredistill.rendering.mesh import Mesh
from scoredistill.rendering.turntable import save_animation, save_picture
from scoredistill.training.checkpoints import AtomicCheckpointIO

KILLED = """
import os, signal, sys
from pathlib import Path
from scoredistill.files import write_together

replace, calls = Path.replace, []

def kill(self, target):
    calls.append(target)
    if len(calls) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(self, target)

Path.replace = kill
folder = Path(sys.argv[1])
write_together({folder / name: name.encode() * 1000 for name in ("a.png", "b.mtl", "c.obj")})
"""


def contents(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_only_the_files_are_written(tmp_path):
    write_together({tmp_path / "new" / "a.png": b"a", str(tmp_path / "new" / "b.obj"): b"b"})
    assert contents(tmp_path / "new") == {"a.png": b"a", "b.obj": b"b"}


@pytest.mark.parametrize("there", [{}, {"a.png": b"old a", "c.obj": b"old c"}], ids=["fresh", "over others"])
@pytest.mark.parametrize("after", range(1, 8))
def test_an_error_at_any_rename_keeps_the_old_files(there, after, tmp_path, monkeypatch):
    from pathlib import Path

    for name, content in there.items():
        (tmp_path / name).write_bytes(content)
    replace, calls = Path.replace, []

    def refuse_once(self, target):
        calls.append(target)
        if len(calls) == after:
            raise OSError("disk full")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", refuse_once)
    files = {tmp_path / "a.png": b"a", tmp_path / "b.mtl": b"b", tmp_path / "c.obj": b"c"}
    if after > 6 + len(there):  # three into the staging folder, three out of it, and the old ones out of the way
        write_together(files)
        assert contents(tmp_path) == {"a.png": b"a", "b.mtl": b"b", "c.obj": b"c"}
        return
    with pytest.raises(OSError, match="disk full"):
        write_together(files)
    assert contents(tmp_path) == there


@pytest.mark.parametrize("at", range(1, 7))
def test_a_process_that_is_killed_leaves_whole_files_and_the_last_one_only_with_the_others(at, tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path, str(at)], check=False)
    assert done.returncode == -signal.SIGKILL
    seen = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert sorted(seen) == ["a.png", "b.mtl", "c.obj"][: max(0, at - 4)]
    assert all(content == name.encode() * 1000 for name, content in seen.items())


@pytest.fixture
def small_files():
    """Limit files to 20,000 bytes, beyond which writing fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def noise(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def ball() -> Mesh:
    vertices, faces = surface("sphere4")
    return Mesh(vertices, faces)


def folder_of_weights(path: Path) -> None:
    with atomic_folder(path) as draft:
        save_file({"weights": torch.randn(30_000)}, draft / "network.safetensors")


WRITERS = {
    "last.ckpt": lambda path: AtomicCheckpointIO().save_checkpoint({"weights": torch.randn(30_000)}, path),
    "metrics.json": lambda path: write_json_atomically(path, {"metrics": list(range(9_000))}),
    "grid.png": lambda path: save_picture(noise(300, 300, 3), path),
    "grid.jpg": lambda path: save_picture(noise(300, 300, 3), path),
    "turn.webp": lambda path: save_animation(noise(4, 300, 300, 3), path),
    "turn.gif": lambda path: save_animation(noise(4, 300, 300, 3), path),
    "mesh.glb": lambda path: ball().save(path),
    "mesh.ply": lambda path: ball().save(path),
    "mesh.obj": lambda path: write_together({path: bytes(30_000)}),
    "teacher": folder_of_weights,
}


@pytest.mark.skipif(sys.platform == "win32", reason="has no limits of files")
@pytest.mark.parametrize("there", [False, True], ids=["fresh", "over another"])
@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.usefixtures("small_files")
def test_an_unwritable_file_is_named_and_the_previous_one_kept(name, there, tmp_path):
    path = tmp_path / name
    if there and name == "teacher":
        path.mkdir()
        (path / "old").write_bytes(b"old")
    elif there:
        path.write_bytes(b"old")
    with pytest.raises(OSError, match="File too large") as caught:
        WRITERS[name](path)
    assert caught.value.filename == str(path)
    left = {each.relative_to(tmp_path).as_posix(): each.read_bytes() for each in tmp_path.rglob("*") if each.is_file()}
    assert left == ({} if not there else {"teacher/old" if name == "teacher" else name: b"old"})


def test_only_leftovers_of_killed_processes_are_removed(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path, "2"], check=False)
    assert done.returncode == -signal.SIGKILL
    kept = [tmp_path / name for name in (".hidden", "a.partial", "0/.deep.partial")]
    for path in kept:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert len(list(tmp_path.glob(".*.partial"))) == 1
    remove_partial(tmp_path)
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(kept)


def test_temporary_names_are_unique(tmp_path, monkeypatch):
    """A process id is not unique: containers reuse it, and a killed process may have left a file."""
    monkeypatch.setattr(os, "getpid", lambda: 7)
    with atomic_folder(tmp_path / "teacher"), atomic_folder(tmp_path / "teacher") as draft:
        (draft / "it").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["teacher"]
