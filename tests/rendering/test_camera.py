"""Cameras: positions and rays."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from scoredistill.rendering.camera import Camera


def orbit(azimuth: list[float], elevation: float = 20.0, radius: float = 2.5, fov: float = 40.0) -> Camera:
    a = torch.tensor(azimuth, dtype=torch.float64)
    return Camera.orbit(a, a * 0 + elevation, a * 0 + radius, a * 0 + fov)


@pytest.mark.parametrize(
    ("azimuth", "elevation", "position"),
    [(0, 0, (0, 0, 2)), (90, 0, (2, 0, 0)), (180, 0, (0, 0, -2)), (270, 0, (-2, 0, 0)), (0, 90, (0, 2, 0)),
     (0, -90, (0, -2, 0)), (90, 30, (3**0.5, 1, 0))],
)  # fmt: skip
def test_positions_on_the_orbit(azimuth: float, elevation: float, position: tuple[float, ...]) -> None:
    camera = orbit([azimuth], elevation, radius=2)
    torch.testing.assert_close(camera.position[0], torch.tensor(position, dtype=torch.float64), atol=1e-12, rtol=0)


@given(azimuth=st.floats(0, 360), elevation=st.floats(-90, 90), radius=st.floats(0.5, 10), fov=st.floats(5, 120))
def test_orbits_look_at_the_center_upright(azimuth: float, elevation: float, radius: float, fov: float) -> None:
    pose = orbit([azimuth], elevation, radius, fov).pose[0]
    rotation = pose[:3, :3]
    eye = torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(rotation.T @ rotation, eye, atol=1e-12, rtol=0)
    assert float(torch.linalg.det(rotation)) == pytest.approx(1)
    torch.testing.assert_close(rotation[:, 2] * radius, pose[:3, 3], atol=1e-11, rtol=0)
    assert float(rotation[1, 0]) == pytest.approx(0, abs=1e-12)  # the horizon is level
    assert float(rotation[1, 1]) >= -1e-12
    assert torch.equal(pose[3], torch.tensor([0, 0, 0, 1], dtype=torch.float64))


@given(azimuth=st.floats(0, 359.9), elevation=st.floats(-89, 89))
def test_azimuth_and_elevation_are_read_back(azimuth: float, elevation: float) -> None:
    camera = orbit([azimuth], elevation)
    turn = (float(camera.azimuth) - azimuth + 180) % 360 - 180
    assert turn == pytest.approx(0, abs=1e-9)
    assert 0 <= float(camera.azimuth) < 360 + 1e-9
    assert float(camera.elevation) == pytest.approx(elevation, abs=1e-9)


@pytest.mark.parametrize("pole", [90.0, -90.0])
def test_a_pole_is_the_limit_of_views_near_it(pole: float) -> None:
    at, near = orbit([30.0], pole), orbit([30.0], pole * (1 - 1e-9))
    torch.testing.assert_close(at.pose, near.pose, atol=1e-7, rtol=0)
    assert float(at.elevation) == pytest.approx(pole)


def test_target_and_offset_move_the_view_and_the_camera() -> None:
    zero = torch.zeros(1)
    target, offset = torch.tensor([[0.2, -0.1, 0.3]]), torch.tensor([[0.05, 0.1, -0.05]])
    camera = Camera.orbit(zero, zero, zero + 2, zero + 40, target, offset)
    torch.testing.assert_close(camera.position, torch.tensor([[0.05, 0.1, 1.95]]))
    away = camera.position - target
    torch.testing.assert_close(camera.pose[:, :3, 2], away / away.norm(dim=-1, keepdim=True))


@pytest.mark.parametrize(("height", "width"), [(5, 5), (3, 7)])
def test_the_middle_ray_goes_through_the_center(height: int, width: int) -> None:
    origins, directions = orbit([0.0, 123.0], radius=2.5).rays(height, width)
    assert origins.shape == directions.shape == (2, height, width, 3)
    torch.testing.assert_close(directions.norm(dim=-1), torch.ones(2, height, width))
    middle = origins[:, height // 2, width // 2] + 2.5 * directions[:, height // 2, width // 2]
    torch.testing.assert_close(middle, torch.zeros(2, 3), atol=1e-12, rtol=0)


def angle(a: Tensor, b: Tensor) -> float:
    return float(torch.rad2deg(torch.acos((a * b).sum())))


def test_pixels_are_square_and_the_field_of_view_is_vertical() -> None:
    height, width = 400, 800
    _, directions = orbit([0.0], elevation=0.0, fov=50.0).rays(height, width)
    rows = directions[0, :, width // 2]
    half = torch.tan(torch.deg2rad(torch.tensor(25.0)))
    # Pixel centers lie half a pixel inside the picture's edges.
    inside = torch.rad2deg(torch.atan(half * (1 - 1 / height)))
    assert angle(rows[0], rows[-1]) == pytest.approx(2 * float(inside), rel=1e-5)
    local = directions[0] / -directions[0, ..., 2:]
    steps = [local[:, :, 0].diff(dim=1), -local[:, :, 1].diff(dim=0)]
    for step in steps:
        torch.testing.assert_close(step, torch.full_like(step, float(2 * half / height)))


def test_the_top_row_is_above_and_the_left_column_to_the_left() -> None:
    _, directions = orbit([0.0], elevation=0.0).rays(4, 4)
    assert bool((directions[0, 0, :, 1] > 0).all())
    assert bool((directions[0, -1, :, 1] < 0).all())
    assert bool((directions[0, :, 0, 0] < 0).all())  # from the front, +x is to the right


def test_rows_are_selected_and_joined() -> None:
    camera = orbit([0.0, 90.0, 180.0])
    assert len(camera) == 3
    picked = camera[torch.tensor([2, 0, 0])]
    torch.testing.assert_close(picked.azimuth, torch.tensor([180.0, 0.0, 0.0]))
    joined = Camera.cat([picked, camera])
    assert len(joined) == 6
    assert torch.equal(joined[torch.arange(3, 6)].pose, camera.pose)
    assert torch.equal(joined.to("cpu").fov, joined.fov)


@pytest.mark.parametrize("fov", [torch.zeros(2), torch.zeros(3, 1)])
def test_shapes_that_disagree_are_errors(fov: Tensor) -> None:
    with pytest.raises(ValueError, match=r"a camera needs pose \(V, 4, 4\) and fov \(V,\)"):
        Camera(torch.eye(4).expand(3, 4, 4), fov)
