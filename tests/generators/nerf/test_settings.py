"""Impossible numbers are errors that name the argument, its range and the value."""

import pytest

from scoredistill.annealing import Knot, Piecewise
from scoredistill.generators.fields import DenseGrid, Frequency, HashGrid, LearnedBackground, MLPHead
from scoredistill.generators.nerf import DensityBlob, HollowSphere, NeRF, Occupancy

REFUSED = {
    "particles must be at least 1, got 0": lambda: NeRF(0),
    "resolution must be at least 1, got 0": lambda: NeRF(resolution=0),
    "samples must be at least 1, got 0": lambda: NeRF(samples=Piecewise([Knot(0, 64), Knot(1, 0)])),
    "chunk must be at least 1, got 0": lambda: NeRF(chunk=0),
    "resolution must be at least 2, got 1": lambda: DenseGrid(1),
    "channels must be at least 1, got 0": lambda: DenseGrid(channels=0),
    "std must be at least 0, got -1": lambda: DenseGrid(std=-1),
    "octaves must be at least 0, got -1": lambda: Frequency(-1),
    "levels must be at least 1, got 0": lambda: HashGrid(0),
    "channels must be at least 1, got -2": lambda: HashGrid(channels=-2),
    r"log2_size must lie in \[0, 40\], got -1": lambda: HashGrid(log2_size=-1),
    "base must be at least 2, got 1": lambda: HashGrid(base=1),
    "finest must be at least base, got 8 and 16": lambda: HashGrid(finest=8),
    "width must be at least 1, got 0": lambda: MLPHead(0),
    "depth must be at least 0, got -1": lambda: MLPHead(depth=-1),
    "width must be at least 1, got -1": lambda: LearnedBackground(width=-1),
    "radius must be above 0, got 0": lambda: DensityBlob(radius=0),
    "radius must be above 0, got -1": lambda: HollowSphere(radius=-1),
    "size_variation must be at least 0, got -1": lambda: DensityBlob(size_variation=-1),
    "shape_variation must be at least 0, got -1": lambda: HollowSphere(shape_variation=-1),
    "every must be at least 1, got 0": lambda: Occupancy(every=0),
    "resolution must be at least 1, got -3": lambda: Occupancy(-3),
    "threshold must be at least 0, got nan": lambda: Occupancy(threshold=float("nan")),
    r"transmittance must lie in \(0, 1\), got 0": lambda: Occupancy(transmittance=0),
    r"decay must lie in \[0, 1\), got 1": lambda: Occupancy(decay=1),
}


@pytest.mark.parametrize(("said", "made"), REFUSED.items(), ids=list(REFUSED))
def test_bad_settings_are_refused(said, made):
    with pytest.raises(ValueError, match=said):
        made()
