"""Particles without a surface: the error, and the threshold that it suggests."""

import pytest
import torch
from generators.nerf.test_nerf import small

from scoredistill.generators.fields import DenseGrid
from scoredistill.generators.nerf import DensityBlob
from scoredistill.rendering.mesh import NoSurfaceError


@pytest.mark.parametrize(
    ("threshold", "said"),
    [(None, "empty everywhere"), (1.0, "try a threshold of"), (1e-12, "try a threshold of")],
)
def test_the_error_of_an_empty_field_states_its_densities(threshold, said):
    nerf = small(1)
    with torch.no_grad():
        nerf.field.encoding.grid[..., 0] -= 16
    with pytest.raises(NoSurfaceError, match=said) as error:
        nerf.mesh(0, 24, threshold)
    if threshold is not None:
        proposed = float(str(error.value).rpartition(" ")[2])
        assert nerf.mesh(0, 24, proposed).watertight


def test_a_constant_field_has_no_surface():
    nerf = small(1, encoding=DenseGrid(4), initial=DensityBlob(0.0, shape_variation=0.0))
    for offset, said in ((0.0, "its density is 1 everywhere"), (-100.0, "empty everywhere")):
        with torch.no_grad():
            nerf.field.encoding.grid[..., 0] = offset
        for threshold in (None, 0.5):
            with pytest.raises(NoSurfaceError, match=said):
                nerf.mesh(0, 8, threshold)
    with torch.no_grad():
        nerf.field.encoding.grid[0, 1, 1, 1, 0] = torch.nan
    with pytest.raises(ValueError, match="a density is not finite"):
        nerf.mesh(0, 8)


def test_a_field_that_is_dense_everywhere_has_a_surface_by_default():
    nerf = small(1, encoding=DenseGrid(4, std=0.0), initial=DensityBlob(8.0, 4.0))
    assert nerf.density(torch.tensor([[1.0, 1.0, 1.0]]), 0) > 16
    assert nerf.mesh(0, 16).watertight
