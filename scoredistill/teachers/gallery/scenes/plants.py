"""Scenes of plants and mushrooms."""

from __future__ import annotations

import math

from scoredistill.teachers.gallery.solids import Part, capsule, cone, cylinder, dome, ellipsoid, sphere, torus
from scoredistill.teachers.gallery.table import Model
from scoredistill.teachers.gallery.vocabulary import COLORS

CREAM = (0.95, 0.90, 0.78)
BARK = (0.45, 0.30, 0.19)
LEAF = (0.30, 0.62, 0.26)
CLAY = (0.76, 0.42, 0.28)
SOIL = (0.28, 0.19, 0.13)


def mushroom() -> tuple[Model, ...]:
    """A stem, and a cap in the main color with light spots."""

    def one(stem: float, half: float, cap: tuple[float, float], lean: float, main: str, spots: str) -> Model:
        width, rise = cap
        parts = [
            cone("stem", 1.35 * stem, stem, half, 0.06).at(0, half, 0),
            torus("stem", stem, 0.06).at(0, 1.5 * half, 0),
            dome("main", width, rise, width, -0.15).at(0, 2 * half, 0),
        ]
        for i, (turn, tip) in enumerate([(0, 12), (20, 58), (88, 50), (160, 60), (230, 48), (300, 56), (-35, 30)]):
            size = (0.11, 0.085)[i % 2] * (0.6 + width / 2)
            a = math.radians(turn)
            e = math.radians(90 - tip)
            place = width * math.cos(e) * math.sin(a), rise * math.sin(e), width * math.cos(e) * math.cos(a)
            parts.append(sphere("spot", size).at(place[0], 2 * half + place[1], place[2]))
        colors = {"main": COLORS[main], "stem": CREAM, "spot": COLORS[spots]}
        return Model(tuple(part.turned("z", lean) for part in parts), colors)

    return (
        one(0.17, 0.4, (0.62, 0.48), 0, "red", "white"),
        one(0.12, 0.55, (0.42, 0.55), 8, "brown", "yellow"),
        one(0.26, 0.3, (0.75, 0.32), 0, "orange", "white"),
        one(0.2, 0.36, (0.48, 0.36), -10, "purple", "pink"),
    )


def tree() -> tuple[Model, ...]:
    """A trunk and a crown: a fir, a round tree, a poplar and a cloud of leaves with fruit."""
    fir = (
        cylinder("bark", 0.11, 0.2).at(0, 0.2, 0),
        cone("main", 0.55, 0.2, 0.28).at(0, 0.6, 0),
        cone("main", 0.43, 0.12, 0.26).at(0, 0.95, 0),
        cone("main", 0.3, 0.0, 0.28).at(0, 1.32, 0),
        sphere("fruit", 0.08).at(0, 1.64, 0),
    )
    fruit = [
        (0.1, 1.0, 0.5),
        (-0.3, 1.25, 0.36),
        (0.36, 1.3, 0.3),
        (-0.42, 0.9, 0.25),
        (0.2, 1.2, -0.44),
        (-0.2, 0.9, -0.45),
    ]
    round_tree: tuple[Part, ...] = (
        cone("bark", 0.15, 0.1, 0.35).at(0, 0.35, 0),
        sphere("main", 0.52).at(0, 1.1, 0),
        *(sphere("fruit", 0.075).at(*place) for place in fruit),
    )
    poplar = (cylinder("bark", 0.09, 0.25).at(0, 0.25, 0), ellipsoid("main", 0.3, 0.75, 0.3).at(0, 1.05, 0))
    cloud = (
        cone("bark", 0.14, 0.08, 0.4).at(0, 0.4, 0),
        capsule("bark", 0.06, 0.2).turned("z", 45).at(-0.18, 0.7, 0),
        sphere("main", 0.36).at(-0.4, 1.0, 0.05),
        sphere("main", 0.4).at(0.36, 1.02, -0.08),
        sphere("main", 0.36).at(0, 1.32, 0.06),
        sphere("main", 0.26).at(0.05, 0.98, 0.36),
        *(sphere("fruit", 0.07).at(x, y, z) for x, y, z in [(-0.45, 1.1, 0.39), (0.5, 1.1, 0.29), (0.05, 1.3, 0.42)]),
    )
    deep, yellow_green = (0.13, 0.42, 0.30), (0.60, 0.68, 0.22)
    return (
        Model(fir, {"main": deep, "bark": BARK, "fruit": COLORS["yellow"]}),
        Model(round_tree, {"main": LEAF, "bark": BARK, "fruit": COLORS["red"]}),
        Model(poplar, {"main": yellow_green, "bark": BARK}),
        Model(cloud, {"main": COLORS["orange"], "bark": BARK, "fruit": COLORS["red"]}),
    )


def flower() -> tuple[Model, ...]:
    """A blossom that faces the front, on a stem with leaves."""

    def one(petals: int, reach: float, width: float, core: float, stem: float, main: str, middle: str) -> Model:
        head = 2 * stem + 0.1
        parts = [
            cylinder("stem", 0.045, stem).at(0, stem, 0),
            ellipsoid("middle", core, core, 0.6 * core).at(0, head, 0.08),
        ]
        for i in range(petals):
            petal = ellipsoid("main", width, reach / 2, 0.07).at(0, reach / 2 + 0.6 * core, 0)
            parts.append(petal.turned("z", 360 * i / petals).at(0, head, 0.02))
        for side, height in ((-1, 0.5), (1, 0.75)):
            leaf = ellipsoid("stem", 0.28, 0.05, 0.13).turned("z", side * 30)
            parts.append(leaf.at(side * 0.26, height * stem + 0.1, 0))
        return Model(tuple(parts), {"main": COLORS[main], "middle": COLORS[middle], "stem": LEAF})

    return (
        one(8, 0.36, 0.13, 0.2, 0.5, "white", "yellow"),
        one(5, 0.4, 0.23, 0.14, 0.45, "pink", "orange"),
        one(12, 0.3, 0.1, 0.3, 0.62, "yellow", "brown"),
        one(6, 0.42, 0.17, 0.16, 0.4, "blue", "white"),
    )


def cactus() -> tuple[Model, ...]:
    """A cactus with arms and a blossom in a pot."""

    def arm(side: int, height: float, out: float, up: float) -> list[Part]:
        lying = capsule("main", 0.11, out / 2).turned("z", 90).at(side * out / 2, height, 0)
        return [lying, capsule("main", 0.11, up / 2).at(side * out, height + up / 2, 0)]

    def one(
        radius: float, half: float, arms: list[Part], pot: str, blossom: str, main: tuple[float, float, float]
    ) -> Model:
        top = 2 * half + radius
        parts = (
            cone("pot", 0.26, 0.36, 0.2).at(0, -0.2, 0),
            torus("pot", 0.34, 0.06).at(0, 0, 0),
            cylinder("soil", 0.33, 0.04).at(0, 0, 0),
            capsule("main", radius, half).at(0, half, 0),
            *arms,
            sphere("blossom", 0.1).at(0, top, 0),
        )
        pots = {"clay": CLAY} | COLORS
        return Model(parts, {"main": main, "pot": pots[pot], "soil": SOIL, "blossom": COLORS[blossom]})

    light, bluish = (0.48, 0.68, 0.34), (0.24, 0.52, 0.46)
    return (
        one(0.19, 0.5, arm(-1, 0.5, 0.38, 0.35) + arm(1, 0.7, 0.36, 0.3), "clay", "pink", COLORS["green"]),
        one(0.34, 0.16, [], "blue", "yellow", light),
        one(0.16, 0.6, arm(1, 0.45, 0.36, 0.5), "white", "red", bluish),
        one(0.2, 0.35, arm(-1, 0.4, 0.42, 0.6) + arm(1, 0.35, 0.42, 0.2), "yellow", "purple", LEAF),
    )
