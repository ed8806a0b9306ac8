"""Encodings: shapes, gradients with respect to table and position, particles."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from scoredistill.generators.fields import DenseGrid, Encoding, Frequency, HashGrid
from scoredistill.generators.fields.encodings import hashed
from scoredistill.generators.fields.interpolation import CORNERS, weighted_gather

ENCODINGS = [
    DenseGrid(resolution=3, channels=4, std=1.0),
    DenseGrid(resolution=3, channels=3, std=1.0),
    HashGrid(levels=3, channels=2, log2_size=4, base=2, finest=9),
    HashGrid(levels=2, channels=1, log2_size=4, base=2, finest=9),
    Frequency(octaves=2),
]
laws = pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda e: type(e).__name__ + str(e.features))


def allocated(encoding: Encoding, particles: int = 2) -> Encoding:
    from copy import deepcopy

    encoding = deepcopy(encoding)
    encoding.allocate(particles, torch.Generator().manual_seed(3))
    for parameter in encoding.parameters():
        parameter.data = torch.randn(parameter.shape)
    return encoding


def some_points() -> tuple[torch.Tensor, torch.Tensor]:
    return 1.8 * torch.rand(9, 3) - 0.9, torch.tensor([0, 0, 0, 0, 0, 1, 1, 1, 1])


@laws
def test_shape_and_gradients(encoding):
    encoding = allocated(encoding)
    points, particle = some_points()
    assert encoding(points, particle).shape == (9, encoding.features)
    parameters = dict(encoding.named_parameters())

    def encode(points, *values):
        return torch.func.functional_call(encoding, dict(zip(parameters, values, strict=True)), (points, particle))

    inputs = (points.requires_grad_(), *(p.detach().requires_grad_() for p in parameters.values()))
    assert gradcheck(encode, inputs, eps=1e-7, atol=1e-5, fast_mode=True)
    assert gradgradcheck(encode, inputs, eps=1e-7, atol=1e-4, fast_mode=True)


@laws
def test_particles_are_separate(encoding):
    encoding = allocated(encoding)
    points, particle = some_points()
    both = encoding(points, particle)
    with torch.no_grad():
        for parameter in encoding.parameters():
            parameter[0] += 1
    changed = encoding(points, particle)
    assert torch.equal(both[5:], changed[5:])
    assert torch.equal(both[:5], changed[:5]) == (not list(encoding.parameters()))


@laws
def test_no_points(encoding):
    nothing = allocated(encoding)(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long))
    assert nothing.shape == (0, encoding.features)


@laws
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_follows_the_parameters(encoding, dtype):
    points, particle = some_points()
    assert allocated(encoding).to(dtype)(points.to(dtype), particle).dtype == dtype


def test_dense_grid_interpolates_linear_functions_exactly():
    grid = DenseGrid(resolution=6)
    grid.allocate(1, torch.Generator())
    axis = torch.linspace(-1, 1, 6)
    vertices = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    matrix = torch.randn(3, 4)
    grid.grid.data = (vertices @ matrix)[None]
    points = 2 * torch.rand(50, 3) - 1
    torch.testing.assert_close(grid(points, torch.zeros(50, dtype=torch.long)), points @ matrix)


def naive(grid: HashGrid, points: torch.Tensor) -> torch.Tensor:
    features = []
    for resolution, entries, table in zip(grid.resolutions, grid.entries, grid.tables, strict=True):
        lattice = (points + 1) / 2 * (resolution - 1)
        cell = lattice.detach().floor().clamp(max=resolution - 2)
        x, y, z = (cell.long()[:, None] + torch.tensor(CORNERS)).unbind(-1)
        dense = (x * resolution + y) * resolution + z
        index = dense if entries == resolution**3 else (x ^ y * 2654435761 ^ z * 805459861) % entries
        fraction = (lattice - cell)[:, None]
        weight = torch.where(torch.tensor(CORNERS) == 1, fraction, 1 - fraction).prod(-1)
        features.append((weight[..., None] * table[0][index]).sum(1))
    return torch.cat(features, 1)


def test_hash_grid_equals_the_naive_form():
    grid = allocated(HashGrid(levels=5, log2_size=10, base=4, finest=500), particles=1)
    assert grid.entries[0] == 4**3
    assert grid.entries[-1] == 2**10
    points = (2 * torch.rand(300, 3) - 1).requires_grad_()
    cotangent = torch.randn(300, grid.features)
    ours, theirs = grid(points, torch.zeros(300, dtype=torch.long)), naive(grid, points)
    torch.testing.assert_close(ours, theirs)
    variables = (points, *grid.tables)
    for a, b in zip(
        torch.autograd.grad(ours, variables, cotangent), torch.autograd.grad(theirs, variables, cotangent), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_hash_of_large_lattices_is_that_of_unbounded_integers():
    cell = torch.tensor([[2046], [1999], [2040]], dtype=torch.int32)
    expected = [(2046 + i) ^ ((1999 + j) * 2654435761) ^ ((2040 + k) * 805459861) for i, j, k in CORNERS]
    assert hashed(cell, 2048, 2**19)[:, 0].tolist() == [e % 2**19 for e in expected]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_gather_of_any_precision(dtype):
    table, index = torch.randn(7, 2, dtype=dtype, requires_grad=True), torch.randint(7, (8, 5))
    weight = torch.rand(8, 5, dtype=dtype)
    result = weighted_gather(table, index, weight)
    expected = (weight.double()[:, :, None] * table.double()[index]).sum(0)
    # A product and at most seven sums are rounded for each of the eight corners.
    size = (weight.double().abs()[:, :, None] * table.double().abs()[index]).sum(0)
    assert bool(((result.double() - expected).abs() <= 8 * torch.finfo(dtype).eps / 2 * size).all())
    result.sum().backward()
    assert table.grad is not None
    assert table.grad.dtype == dtype


def test_bad_hash_grid_is_refused():
    with pytest.raises(ValueError, match="finest must be at least base, got 16 and 64"):
        HashGrid(base=64, finest=16)
