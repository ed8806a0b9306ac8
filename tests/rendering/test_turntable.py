"""Files of pictures and animations."""

import sys
from fractions import Fraction

import pytest
import torch
from PIL import Image

from scoredistill.files import write_atomically
from scoredistill.rendering.turntable import (
    picture_grid,
    save_animation,
    save_picture,
    to_bytes,
    turntable_cameras,
)


def frames(count: int = 5) -> torch.Tensor:
    return (255 * torch.rand(count, 15, 18, 3)).byte()


def test_cameras_go_once_around():
    cameras = turntable_cameras(8, elevation=20, radius=3, fov=40, azimuth=100)
    assert cameras.azimuth.tolist() == pytest.approx([100, 145, 190, 235, 280, 325, 10, 55], abs=1e-4)
    assert cameras.elevation.tolist() == pytest.approx([20] * 8, abs=1e-4)
    assert cameras.position.norm(dim=1).tolist() == pytest.approx([3] * 8)
    with pytest.raises(ValueError, match="at least one"):
        turntable_cameras(0)


def test_bytes_are_clamped_and_rounded():
    values = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0])
    assert to_bytes(values.expand(3, 1, 5))[0, :, 0].tolist() == [0, 0, 128, 255, 255]


def test_grid_has_a_cell_for_each_picture():
    grid = picture_grid(torch.full((5, 3, 8, 10), -1.0), columns=3)
    assert grid.shape == (2 * 8 + 3 * 2, 3 * 10 + 4 * 2, 3)
    assert int((grid == 0).all(-1).sum()) == 5 * 8 * 10
    assert picture_grid(torch.zeros(2, 1, 4, 4), columns=2).shape[-1] == 3


def test_pictures_are_restored_from_files(tmp_path):
    picture = frames()[0]
    save_picture(picture, tmp_path / "a" / "x.png")
    with Image.open(tmp_path / "a" / "x.png") as image:
        assert image.size == (18, 15)
        assert image.tobytes() == bytes(picture.flatten().tolist())
    with pytest.raises(ValueError, match="not a supported picture format"):
        save_picture(picture, tmp_path / "x.nothing")
    with pytest.raises(ValueError, match="uint8"):
        save_picture(picture.float(), tmp_path / "x.png")


@pytest.mark.parametrize("kind", ["webp", "gif"])
def test_animations_loop(tmp_path, kind):
    save_animation(frames(), tmp_path / f"x.{kind}", fps=10)
    with Image.open(tmp_path / f"x.{kind}") as image:
        assert (image.n_frames, image.size, image.info["loop"]) == (5, (18, 15), 0)
        image.seek(1)
        image.load()
        assert image.info["duration"] == 100


def test_mp4_has_every_frame(tmp_path):
    av = pytest.importorskip("av")
    save_animation(frames(), tmp_path / "x.mp4", fps=10)
    with av.open(tmp_path / "x.mp4") as video:
        stream = video.streams.video[0]
        assert (stream.width, stream.height, stream.average_rate) == (18, 14, Fraction(10))
        assert sum(1 for _ in video.decode(stream)) == 5


def test_mp4_without_pyav_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError, match=r"scoredistill\[video\]"):
        save_animation(frames(), tmp_path / "x.mp4")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("wrong", "name"), [(frames().float(), "x.webp"), (frames()[0], "x.webp"), (frames(), "x.avi")]
)
def test_invalid_animations_are_refused(tmp_path, wrong, name):
    with pytest.raises(ValueError, match="animation"):
        save_animation(wrong, tmp_path / name)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "x"
    write_atomically(path, lambda file: file.write(b"old"))

    def fail(file):
        file.write(b"half")
        raise RuntimeError("full")

    with pytest.raises(RuntimeError, match="full"):
        write_atomically(path, fail)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
