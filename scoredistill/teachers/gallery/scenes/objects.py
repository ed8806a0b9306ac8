"""Scenes of household objects, a house, and plain shapes."""

from __future__ import annotations

import math

from scoredistill.teachers.gallery.solids import (
    Part,
    box,
    capsule,
    cone,
    cup,
    cylinder,
    dome,
    ellipsoid,
    pyramid,
    sphere,
)
from scoredistill.teachers.gallery.solids import torus as ring
from scoredistill.teachers.gallery.table import Model
from scoredistill.teachers.gallery.vocabulary import COLORS

COFFEE = (0.30, 0.18, 0.10)
DOUGH = (0.86, 0.63, 0.36)
DARK = (0.16, 0.17, 0.20)
GLASS = (0.62, 0.82, 0.92)
WARM = (1.0, 0.93, 0.68)


def mug() -> tuple[Model, ...]:
    """A mug with a handle on the right, a band and coffee."""

    def one(radius: float, half: float, handle: float, turn: float, main: str, band: str) -> Model:
        wall = 0.09
        parts = (
            cup("main", radius, half, wall),
            cylinder("main", radius - 0.01, 0.06).at(0, 0.06 - half, 0),
            cylinder("coffee", radius - wall / 2, 0.5 * half).at(0, 0.25 * half, 0),
            ring("main", handle, 0.075).turned("x", 90).at(radius + 0.3 * handle, 0, 0),
            cylinder("band", radius + 0.012, 0.13 * half, 0.012).at(0, -0.35 * half, 0),
        )
        colors = {"main": COLORS[main], "coffee": COFFEE, "band": COLORS[band]}
        return Model(tuple(part.turned("y", turn) for part in parts), colors)

    return (
        one(0.5, 0.55, 0.3, 0, "white", "blue"),
        one(0.38, 0.7, 0.34, -25, "red", "white"),
        one(0.62, 0.4, 0.24, -55, "teal", "yellow"),
        one(0.48, 0.62, 0.3, -150, "yellow", "purple"),
    )


def donut() -> tuple[Model, ...]:
    """A ring of dough with icing on top and sprinkles."""

    def one(radius: float, tube: float, lean: float, main: str, sprinkle: str) -> Model:
        parts: list[Part] = [ring("dough", radius, tube), ring("main", radius, tube * 0.97).at(0, 0.12 * tube, 0)]
        for i in range(9):
            bead = capsule("sprinkle", 0.035, 0.06).turned("z", 90).turned("y", 67 * i)
            angle = 2 * math.pi * i / 9
            spread = radius + tube * 0.35 * (-1) ** i
            height = 0.12 * tube + 0.97 * tube * math.sqrt(1 - 0.36**2)
            parts.append(bead.at(spread * math.sin(angle), height, spread * math.cos(angle)))
        colors = {"main": COLORS[main], "dough": DOUGH, "sprinkle": COLORS[sprinkle]}
        return Model(tuple(part.turned("x", lean) for part in parts), colors)

    return (
        one(0.5, 0.26, 40, "pink", "blue"),
        one(0.55, 0.2, 75, "brown", "yellow"),
        one(0.45, 0.3, 15, "white", "red"),
        one(0.52, 0.23, 58, "green", "white"),
    )


def house() -> tuple[Model, ...]:
    """Walls, a roof, a door and windows in front, and a chimney."""

    def one(width: float, height: float, depth: float, roof: float, main: str, tiles: str, door: str) -> Model:
        front = depth + 0.005
        parts = [
            box("main", width, height, depth).at(0, height, 0),
            pyramid("roof", width + 0.12, depth + 0.12, roof, 0.5 * roof + 0.06).at(0, 2 * height + 0.5 * roof, 0),
            box("door", 0.13, 0.26, 0.03).at(0, 0.26, front),
            box("main", 0.08, 0.25, 0.08).at(0.5 * width, 2 * height + 0.8 * roof, -0.2 * depth),
        ]
        for side in (-1, 1):
            parts.append(box("glass", 0.13, 0.13, 0.03).at(side * 0.62 * width, 1.2 * height, front))
            parts.append(box("glass", 0.03, 0.13, 0.16).at(side * (width + 0.005), 1.2 * height, 0))
        colors = {"main": COLORS[main], "roof": COLORS[tiles], "door": COLORS[door], "glass": GLASS}
        return Model(tuple(parts), colors)

    return (
        one(0.6, 0.35, 0.5, 0.45, "white", "red", "brown"),
        one(0.42, 0.6, 0.42, 0.4, "yellow", "gray", "blue"),
        one(0.8, 0.3, 0.42, 0.38, "blue", "brown", "white"),
        one(0.5, 0.45, 0.6, 0.48, "red", "black", "yellow"),
    )


def lamp() -> tuple[Model, ...]:
    """A table lamp: foot, stem, shade, and a bulb below the shade."""

    def one(foot: Part, stem: float, shade: Part, main: str, metal: tuple[float, float, float]) -> Model:
        parts = (
            foot,
            cylinder("metal", 0.045, stem).at(0, stem, 0),
            shade.at(0, 2 * stem, 0),
            sphere("bulb", 0.12).at(0, 2 * stem - 0.3, 0),
        )
        return Model(parts, {"main": COLORS[main], "metal": metal, "bulb": WARM})

    brass, steel = (0.80, 0.62, 0.28), (0.60, 0.62, 0.66)
    return (
        one(cylinder("metal", 0.3, 0.05), 0.5, cone("main", 0.45, 0.25, 0.28), "orange", brass),
        one(dome("metal", 0.34, 0.25, 0.34), 0.62, dome("main", 0.5, 0.42, 0.5).at(0, -0.25, 0), "green", brass),
        one(box("metal", 0.24, 0.06, 0.24), 0.42, cylinder("main", 0.42, 0.26), "purple", DARK),
        one(ellipsoid("metal", 0.28, 0.3, 0.28).at(0, 0.22, 0), 0.5, cone("main", 0.55, 0.1, 0.24), "blue", steel),
    )


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
