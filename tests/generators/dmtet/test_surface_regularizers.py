"""Penalties of surfaces, against their definitions."""

import pytest
import torch
from generators.dmtet.shapes import shifted, sphere, torus
from torch.nn.functional import normalize

from scoredistill.annealing import Knot, Piecewise
from scoredistill.generators.dmtet import Laplacian, NormalConsistency, SignChange
from scoredistill.generators.dmtet.grid import Grid
from scoredistill.generators.dmtet.surface import marching_tetrahedra
from scoredistill.generators.dmtet.surface_regularizers import total

KINDS = {"sign change": SignChange, "laplacian": Laplacian, "normal consistency": NormalConsistency}
kinds = pytest.mark.parametrize("kind", KINDS)


def by_definition(kind: str, grid: Grid) -> torch.Tensor:
    """One particle's penalty, edge by edge and vertex by vertex."""
    surface = marching_tetrahedra(grid)
    vertices, faces = surface.vertices.detach() / grid.cell, surface.faces
    if kind == "sign change":
        inside, outside = surface.ends.detach().sort(dim=1).values.unbind(1)
        return -(inside.sigmoid().log() + (1 - outside.sigmoid()).log()).mean()
    edges: dict[tuple[int, int], list[int]] = {}
    for f, face in enumerate(faces.tolist()):
        for a, b in zip(face, face[1:] + face[:1], strict=True):
            edges.setdefault((min(a, b), max(a, b)), []).append(f)
    if kind == "laplacian":
        neighbors: list[list[int]] = [[] for _ in vertices]
        for a, b in edges:
            neighbors[a].append(b)
            neighbors[b].append(a)
        offset = torch.stack([vertices[near].mean(0) - vertices[i] for i, near in enumerate(neighbors)])
        return offset.square().sum(1).mean()
    a, b, c = vertices[faces].unbind(1)
    normals = normalize(torch.linalg.cross(b - a, c - a), dim=1)
    return torch.stack([1 - normals[f] @ normals[g] for f, g in edges.values()]).mean()


@kinds
def test_penalties_are_as_defined_and_averaged_over_particles(kind):
    distances = torch.stack([sphere(6) + 0.02 * torch.randn(7, 7, 7), torus(6)])
    each = [by_definition(kind, Grid(d[None], 0.0)) for d in distances]
    with_an_empty_one = Grid(torch.cat([distances, torch.ones(1, 7, 7, 7)]), 0.0)
    found = KINDS[kind]()(marching_tetrahedra(with_an_empty_one))
    # Faces that hardly have a direction are left out of the penalty, but not of its definition here.
    tolerance = 1e-2 if kind == "normal consistency" else 1e-9
    torch.testing.assert_close(found, sum(each) / 3, atol=0, rtol=tolerance)


@kinds
def test_gradients_against_finite_differences(kind):
    # A level set far from the lattice's points, so that the step does not cross one.
    grid = shifted(sphere(4, 0.53)[None] + 0.01 * torch.randn(1, 5, 5, 5), 0.5)
    penalty = KINDS[kind]()

    def value(distance: torch.Tensor, raw: torch.Tensor) -> torch.Tensor:
        other = Grid(distance.detach(), 0.16)
        del other.distance, other.raw
        other.distance, other.raw = distance, raw
        return penalty(marching_tetrahedra(other))

    assert torch.autograd.gradcheck(value, (grid.distance, grid.raw), eps=1e-7, atol=1e-5)


@kinds
def test_smooth_surfaces_cost_less_than_rough_ones(kind):
    penalty = KINDS[kind]()
    rough = sphere(16) + 0.06 * torch.randn(17, 17, 17)
    smooth, other = (penalty(marching_tetrahedra(Grid(d[None], 0.0))) for d in (sphere(16), rough))
    assert smooth < other
    assert penalty(marching_tetrahedra(Grid(torch.ones(1, 5, 5, 5), 0.0))) == 0


@kinds
def test_descending_smooths(kind):
    rough = torch.Generator().manual_seed(0)
    grid = Grid((sphere(12) + 0.05 * torch.randn(13, 13, 13, generator=rough))[None], 0.15)
    optimizer = torch.optim.Adam(grid.parameters(), lr=2e-3)
    values = []
    for _ in range(30):
        optimizer.zero_grad()
        penalty = KINDS[kind]()(marching_tetrahedra(grid))
        penalty.backward()
        optimizer.step()
        values.append(penalty.item())
    assert values[-1] < 0.9 * values[0]


def test_the_total_is_weighted_by_progress():
    surface = marching_tetrahedra(Grid(sphere(8)[None], 0.0))
    annealed = Piecewise([Knot(0, 0.0), Knot(1, 2.0)])
    regularizers = [Laplacian(annealed), SignChange(0.0)]
    assert total(regularizers, surface, 0.0) is None
    torch.testing.assert_close(total(regularizers, surface, 0.5), Laplacian()(surface))
    assert total([], surface, 0.0) is None
