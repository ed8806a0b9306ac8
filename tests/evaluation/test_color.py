"""Chroma and distances of pictures."""

import pytest
import torch

from scoredistill.evaluation import chroma, mean_chroma, mean_pair_distance


@pytest.mark.parametrize(
    ("color", "expected"),
    [((1, -1, -1), 104.55), ((-1, 1, -1), 119.78), ((-1, -1, 1), 133.81), ((1, 1, 1), 0), ((0.1, 0.1, 0.1), 0)],
)
def test_chroma_of_srgb_primaries_and_grays(color: tuple[float, ...], expected: float) -> None:
    pixels = torch.tensor(color)[:, None, None].expand(2, 3, 4, 5)
    assert chroma(pixels).shape == (2, 4, 5)
    assert float(chroma(pixels).mean()) == pytest.approx(expected, abs=0.005)  # published with two decimals


def test_chroma_clamps_and_falls_with_saturation() -> None:
    red = torch.tensor([1.0, -1.0, -1.0])[:, None, None]
    torch.testing.assert_close(chroma(2 * red), chroma(red))
    assert float(chroma(0.5 * red)) < float(chroma(red))


def test_mean_chroma_is_of_the_foreground() -> None:
    pictures = torch.stack([torch.tensor([1.0, -1.0, -1.0]), torch.zeros(3)], dim=1)[:, None, :]  # red, gray
    opacity = torch.tensor([[0.9, 0.1]])
    assert float(mean_chroma(pictures, opacity)) == pytest.approx(104.55, abs=0.005)
    assert mean_chroma(pictures, 0 * opacity) is None


def test_mean_pair_distance() -> None:
    x = torch.tensor([0.0, 3.0, 3.0])[:, None, None].expand(3, 2, 5)
    assert float(mean_pair_distance(x)) == pytest.approx(2.0)  # 3, 3 and 0
    assert mean_pair_distance(x[:1]) is None
    # Camera by camera: a difference at one camera counts for that camera only.
    y = torch.zeros(2, 2, 4)
    y[1, 0] = 2.0
    assert float(mean_pair_distance(y)) == pytest.approx(1.0)
