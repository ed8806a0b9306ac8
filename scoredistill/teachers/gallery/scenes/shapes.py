"""Scenes of plain shapes."""

from __future__ import annotations

from scoredistill.teachers.gallery.parts import box, cone, cylinder, sphere
from scoredistill.teachers.gallery.parts import torus as ring
from scoredistill.teachers.gallery.table import Model
from scoredistill.teachers.gallery.vocabulary import COLORS


def torus() -> tuple[Model, ...]:
    """A ring on the ground, leaning or upright, thin or thick."""
    return (
        Model((ring("main", 0.55, 0.24).turned("x", 35),), {"main": COLORS["blue"]}),
        Model((ring("main", 0.62, 0.13).turned("x", 90),), {"main": COLORS["red"]}),
        Model((ring("main", 0.5, 0.3),), {"main": COLORS["yellow"]}),
        Model((ring("main", 0.62, 0.17).turned("x", 90).turned("y", 60),), {"main": COLORS["green"]}),
    )


def toy() -> tuple[Model, ...]:
    """Four clearly different shapes in four colors, the modes of the diversity experiments."""
    return (
        Model(
            (sphere("main", 0.6), sphere("dot", 0.16).at(0, 0.2, 0.5)),
            {"main": COLORS["red"], "dot": COLORS["white"]},
        ),
        Model(
            (box("main", 0.5, 0.5, 0.5, 0.06), cylinder("dot", 0.24, 0.06).turned("x", 90).at(0, 0, 0.48)),
            {"main": COLORS["blue"], "dot": COLORS["yellow"]},
        ),
        Model(
            (cone("main", 0.74, 0.0, 0.6, 0.04), sphere("dot", 0.16).at(0, 0.58, 0)),
            {"main": COLORS["yellow"], "dot": COLORS["purple"]},
        ),
        Model(
            (
                ring("main", 0.47, 0.23).turned("x", 90).turned("y", 40),
                sphere("dot", 0.16).at(0, 0.47, 0.18).turned("y", 40),
            ),
            {"main": COLORS["green"], "dot": COLORS["pink"]},
        ),
    )
