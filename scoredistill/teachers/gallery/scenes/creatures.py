"""Scenes of creatures, whose faces distinguish front and back."""

from __future__ import annotations

import math

from scoredistill.teachers.gallery.solids import Part, box, capsule, cone, cylinder, ellipsoid, sphere, torus
from scoredistill.teachers.gallery.table import Model
from scoredistill.teachers.gallery.vocabulary import COLORS

DARK = (0.12, 0.12, 0.14)
CARROT = (0.95, 0.50, 0.13)
STEEL = (0.72, 0.75, 0.79)
GLOW = (0.98, 0.88, 0.40)


def _eyes(material: str, radius: float, apart: float, height: float, front: float) -> list[Part]:
    return [sphere(material, radius).at(side * apart, height, front) for side in (-1, 1)]


def snowman() -> tuple[Model, ...]:
    """Balls of snow, a carrot nose, coal eyes and buttons, a scarf and a hat."""

    def one(low: float, middle: float, head: float, hat: Part, scarf: str, tilt: float, main: str = "white") -> Model:
        chest = low + 0.8 * (low + middle) if middle else low
        top = chest + 0.85 * ((middle or low) + head)
        parts = [
            sphere("main", low).at(0, low, 0),
            sphere("main", head).at(0, top, 0),
            cone("nose", 0.075, 0.0, 0.17, 0.01).turned("x", 90).at(0, top, head + 0.12),
            torus("scarf", 0.72 * head, 0.3 * head).at(0, top - 0.8 * head, 0),
            hat.at(0, top + 0.8 * head, 0),
            cylinder("hat", 1.15 * head, 0.03).at(0, top + 0.75 * head, 0),
            *_eyes("coal", 0.045, 0.42 * head, top + 0.3 * head, 0.84 * head),
        ]
        if middle:
            parts.append(sphere("main", middle).at(0, chest, 0))
        belly, center = (middle, chest) if middle else (low, low)
        for angle in (-0.35, 0.1):
            parts.append(sphere("coal", 0.05).at(0, center - belly * math.sin(angle), belly * math.cos(angle)))
        colors = {"main": COLORS[main], "nose": CARROT, "scarf": COLORS[scarf], "hat": DARK, "coal": DARK}
        return Model(tuple(part.turned("z", tilt) for part in parts), colors)

    return (
        one(0.5, 0.36, 0.26, cylinder("hat", 0.19, 0.17).at(0, 0.15, 0), "red", 0),
        one(0.55, 0.0, 0.38, cone("hat", 0.3, 0.0, 0.3).at(0, 0.25, 0), "green", 0),
        one(0.38, 0.33, 0.3, cylinder("hat", 0.24, 0.1).at(0, 0.1, 0), "blue", 6),
        one(0.62, 0.4, 0.24, cylinder("hat", 0.15, 0.26).at(0, 0.25, 0), "yellow", -6),
    )


def duck() -> tuple[Model, ...]:
    """A bath duck: body, raised tail, wings, head, bill and eyes."""

    def one(length: float, height: float, head: float, neck: float, pitch: float, main: str, bill: str) -> Model:
        front = 0.55 * length
        top = height + neck
        parts = [
            ellipsoid("main", 0.42, height, length).at(0, 0, 0),
            cone("main", 0.24, 0.04, 0.2).turned("x", -50).at(0, 0.5 * height, -0.88 * length),
            capsule("main", 0.6 * head, 0.5 * neck).at(0, 0.6 * height + 0.4 * neck, front),
            sphere("main", head).at(0, top, front),
            ellipsoid("bill", 0.13, 0.055, 0.2).turned("x", pitch).at(0, top - 0.1 * head, front + head + 0.06),
            *_eyes("eye", 0.055, 0.55 * head, top + 0.3 * head, front + 0.74 * head),
        ]
        for side in (-1, 1):
            wing = ellipsoid("wing", 0.09, 0.6 * height, 0.55 * length).turned("x", 15)
            parts.append(wing.at(side * 0.38, 0.1 * height, -0.1 * length))
        r, g, b = COLORS[main]
        shade = (0.86 * r, 0.86 * g, 0.80 * b)
        return Model(tuple(parts), {"main": COLORS[main], "wing": shade, "bill": COLORS[bill], "eye": DARK})

    return (
        one(0.6, 0.38, 0.3, 0.22, 0, "yellow", "orange"),
        one(0.66, 0.34, 0.24, 0.5, 15, "white", "orange"),
        one(0.5, 0.45, 0.36, 0.15, -8, "teal", "yellow"),
        one(0.75, 0.3, 0.25, 0.3, 8, "brown", "yellow"),
    )


def bear() -> tuple[Model, ...]:
    """A sitting teddy bear with round ears, a snout and a light belly."""

    def one(belly: float, head: float, ear: float, arms: float, main: str, light: tuple[float, float, float]) -> Model:
        top = 1.7 * belly + 0.75 * head
        parts = [
            ellipsoid("main", belly, 1.1 * belly, 0.9 * belly).at(0, belly, 0),
            ellipsoid("light", 0.68 * belly, 0.75 * belly, 0.3 * belly).at(0, belly, 0.68 * belly),
            sphere("main", head).at(0, top, 0),
            ellipsoid("light", 0.45 * head, 0.36 * head, 0.4 * head).at(0, top - 0.25 * head, 0.82 * head),
            sphere("dark", 0.14 * head).at(0, top - 0.1 * head, 1.2 * head),
            *_eyes("dark", 0.11 * head, 0.38 * head, top + 0.25 * head, 0.88 * head),
        ]
        for side in (-1, 1):
            parts.append(sphere("main", ear).at(side * 0.78 * head, top + 0.78 * head, 0))
            arm = capsule("main", 0.3 * belly, 0.35 * belly).turned("z", -side * arms)
            parts.append(arm.at(side * 1.0 * belly, 1.35 * belly, 0.15 * belly))
            leg = capsule("main", 0.36 * belly, 0.3 * belly).turned("x", 80)
            parts.append(leg.at(side * 0.6 * belly, 0.3 * belly, 0.8 * belly))
        return Model(tuple(parts), {"main": COLORS[main], "light": light, "dark": DARK})

    cream = (0.93, 0.84, 0.68)
    pale = (0.90, 0.90, 0.92)
    sand = (0.80, 0.68, 0.50)
    snow = (0.98, 0.94, 0.90)
    return (
        one(0.45, 0.38, 0.17, 40, "brown", cream),
        one(0.4, 0.42, 0.22, 130, "gray", pale),
        one(0.5, 0.33, 0.12, 20, "black", sand),
        one(0.42, 0.4, 0.15, 85, "pink", snow),
    )


def robot() -> tuple[Model, ...]:
    """A robot of boxes and cylinders with lit eyes and an aerial."""

    def one(width: float, height: float, head: Part, arms: float, legs: float, main: str, second: str) -> Model:
        top = 2 * legs + 2 * height
        parts = [
            box("main", width, height, 0.28, 0.06).at(0, 2 * legs + height, 0),
            box("panel", 0.6 * width, 0.4 * height, 0.03).at(0, 2 * legs + 1.15 * height, 0.28),
            cylinder("steel", 0.1, 0.08).at(0, top + 0.04, 0),
            head.at(0, top + 0.32, 0),
            cylinder("steel", 0.025, 0.13).at(0, top + 0.66, 0),
            sphere("glow", 0.07).at(0, top + 0.8, 0),
            *_eyes("glow", 0.075, 0.13, top + 0.36, 0.24),
            box("steel", 0.14, 0.025, 0.03).at(0, top + 0.16, 0.25),
        ]
        for side in (-1, 1):
            arm = capsule("steel", 0.08, 0.26).at(0, -0.26, 0).turned("z", side * arms)
            parts.append(arm.at(side * (width + 0.08), top - 0.12, 0))
            parts.append(cylinder("steel", 0.11, legs).at(side * 0.55 * width, legs, 0))
            parts.append(box("main", 0.15, 0.07, 0.2, 0.04).at(side * 0.55 * width, 0.07, 0.06))
        colors = {"main": COLORS[main], "panel": COLORS[second], "steel": STEEL, "glow": GLOW}
        return Model(tuple(parts), colors)

    return (
        one(0.36, 0.38, box("main", 0.28, 0.26, 0.25, 0.06), 12, 0.2, "blue", "white"),
        one(0.3, 0.3, cylinder("main", 0.27, 0.26, 0.05), 150, 0.3, "orange", "black"),
        one(0.46, 0.3, box("main", 0.36, 0.24, 0.25, 0.1), 75, 0.14, "green", "yellow"),
        one(0.28, 0.46, sphere("main", 0.29), 35, 0.12, "purple", "pink"),
    )
