"""Scenes of vehicles, whose fronts face +z."""

from __future__ import annotations

from scoredistill.teachers.gallery.solids import (
    Part,
    box,
    capsule,
    cone,
    cylinder,
    ellipsoid,
    pyramid,
    sphere,
    stretched,
    torus,
)
from scoredistill.teachers.gallery.table import Model
from scoredistill.teachers.gallery.vocabulary import COLORS

GLASS = (0.55, 0.78, 0.92)
RUBBER = (0.13, 0.13, 0.15)
STEEL = (0.72, 0.74, 0.78)
FLAME = (0.98, 0.60, 0.12)
LIGHT = (1.0, 0.93, 0.65)
WOOD = (0.58, 0.38, 0.22)


def car() -> tuple[Model, ...]:
    """A body, a cabin with windows, wheels, headlights and red tail lights."""

    def one(width: float, length: float, cabin: Part, glass: Part, wheel: float, main: str, roof: str) -> Model:
        parts = [box("main", width, 0.17, length, 0.07).at(0, wheel + 0.12, 0), glass, cabin]
        for side in (-1, 1):
            for end in (-0.62, 0.62):
                tyre = cylinder("rubber", wheel, 0.09, 0.04).turned("z", 90)
                parts.append(tyre.at(side * width, wheel, end * length))
                parts.append(cylinder("steel", 0.5 * wheel, 0.1).turned("z", 90).at(side * width, wheel, end * length))
            parts.append(sphere("light", 0.075).at(side * 0.65 * width, wheel + 0.14, length - 0.02))
            parts.append(box("brake", 0.08, 0.05, 0.03).at(side * 0.65 * width, wheel + 0.16, -length))
        colors = {
            "main": COLORS[main], "roof": COLORS[roof], "glass": GLASS, "rubber": RUBBER, "steel": STEEL,
            "light": LIGHT, "brake": COLORS["red"],
        }  # fmt: skip
        return Model(tuple(parts), colors)

    def saloon(width: float, length: float, back: float, wheel: float) -> tuple[Part, Part]:
        glass = pyramid("glass", 0.92 * width, length, 0.16, 0.17).at(0, wheel + 0.42, back)
        return box("roof", 0.92 * width - 0.14, 0.035, length - 0.14).at(0, wheel + 0.59, back), glass

    van = box("roof", 0.4, 0.06, 0.66, 0.05).at(0, 0.9, -0.06), box("glass", 0.39, 0.24, 0.64, 0.05).at(0, 0.66, -0.06)
    dome = ellipsoid("roof", 0.3, 0.3, 0.4).at(0, 0.52, -0.06), ellipsoid("glass", 0.34, 0.28, 0.44).at(0, 0.5, -0.06)
    return (
        one(0.4, 0.8, *saloon(0.4, 0.45, -0.08, 0.18), 0.18, "red", "red"),
        one(0.42, 0.75, *van, 0.2, "teal", "white"),
        one(0.44, 0.92, *saloon(0.42, 0.34, -0.22, 0.2), 0.2, "yellow", "black"),
        one(0.4, 0.62, *dome, 0.22, "purple", "purple"),
    )


def rocket() -> tuple[Model, ...]:
    """A rocket on its fins, with a port-hole in front and a flame below."""

    def one(radius: float, half: float, nose: Part, fins: int, fin: float, main: str, second: str) -> Model:
        parts = [
            cylinder("main", radius, half, 0.05).at(0, half, 0),
            nose.at(0, 2 * half, 0),
            torus("second", 0.17, 0.05).turned("x", 90).at(0, 1.4 * half, radius - 0.02),
            ellipsoid("glass", 0.16, 0.16, 0.06).at(0, 1.4 * half, radius - 0.01),
            cone("steel", 0.8 * radius, 0.5 * radius, 0.08).at(0, -0.06, 0),
            cone("flame", 0.55 * radius, 0.0, 0.2).turned("z", 180).at(0, -0.3, 0),
        ]
        for i in range(fins):
            blade = pyramid("second", fin, 0.045, 0.02, 0.22, 0.015).at(0, 0.05, 0)
            parts.append(blade.at(radius + 0.4 * fin, 0, 0).turned("y", 45 + 360 * i / fins))
        colors = {"main": COLORS[main], "second": COLORS[second], "glass": GLASS, "steel": STEEL, "flame": FLAME}
        return Model(tuple(parts), colors)

    return (
        one(0.28, 0.5, cone("second", 0.28, 0.02, 0.26).at(0, 0.22, 0), 4, 0.2, "white", "red"),
        one(0.22, 0.66, cone("second", 0.22, 0.0, 0.36).at(0, 0.32, 0), 3, 0.24, "blue", "yellow"),
        one(0.4, 0.36, ellipsoid("second", 0.39, 0.42, 0.39), 4, 0.16, "orange", "gray"),
        one(0.32, 0.45, ellipsoid("main", 0.31, 0.6, 0.31), 6, 0.14, "green", "white"),
    )


def boat() -> tuple[Model, ...]:
    """A hull with a mast and a sail, a tug, a rowing boat and a two-master."""

    def hull(width: float, length: float, deep: float) -> list[Part]:
        upturned = pyramid("main", width, length, 0.16, deep).turned("z", 180).at(0, deep, 0)
        bow = cone("main", width, width - 0.16, deep).turned("z", 180).at(0, deep, length)
        return [upturned, bow, box("wood", 0.82 * width, 0.03, 0.92 * length).at(0, 2 * deep, 0)]

    def sail(tall: float, deep: float, place: float, base: float) -> list[Part]:
        mast = cylinder("wood", 0.035, tall + 0.12).at(0, base + tall + 0.1, 0)
        cloth = stretched(cone("sail", deep, 0.02, tall, 0.012), 0.13, 1, 1).turned("y", 55)
        return [part.at(0, 0, place) for part in (mast, cloth.at(0, base + tall + 0.16, 0))]

    tug = [
        *hull(0.36, 0.5, 0.18),
        box("sail", 0.24, 0.2, 0.26).at(0, 0.54, -0.05),
        box("glass", 0.2, 0.08, 0.28).at(0, 0.6, -0.05),
        cylinder("band", 0.1, 0.2).at(0, 0.88, -0.12),
        cylinder("wood", 0.11, 0.05).at(0, 1.06, -0.12),
    ]
    rowing = [
        *hull(0.34, 0.55, 0.16),
        box("sail", 0.3, 0.03, 0.08).at(0, 0.36, 0.15),
        box("sail", 0.3, 0.03, 0.08).at(0, 0.36, -0.25),
        capsule("band", 0.035, 0.36).turned("z", 72).at(0.48, 0.36, 0),
        capsule("band", 0.035, 0.36).turned("z", -72).at(-0.48, 0.36, 0),
    ]
    sloop = [*hull(0.3, 0.5, 0.15), *sail(0.55, 0.45, 0.05, 0.3), sphere("band", 0.06).at(0, 1.65, 0.05)]
    ketch = [*hull(0.32, 0.7, 0.17), *sail(0.5, 0.36, 0.38, 0.32), *sail(0.4, 0.32, -0.42, 0.32)]

    def painted(parts: list[Part], main: str, cloth: str, band: str) -> Model:
        colors = {"main": COLORS[main], "sail": COLORS[cloth], "band": COLORS[band], "wood": WOOD, "glass": GLASS}
        return Model(tuple(parts), colors)

    return (
        painted(sloop, "red", "white", "yellow"),
        painted(tug, "blue", "white", "orange"),
        painted(rowing, "green", "yellow", "brown"),
        painted(ketch, "purple", "orange", "white"),
    )
