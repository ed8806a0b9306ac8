"""The gallery's nouns, each a procedural scene with several variants, a front that faces +z and a main color.

A function returns the variants of its noun, which differ clearly in proportions, pose and color. Scenes are defined at
any position and scale; they are centered and scaled afterwards.
"""

from collections.abc import Callable

from scoredistill.teachers.gallery.scenes.creatures import bear, duck, robot, snowman
from scoredistill.teachers.gallery.scenes.objects import donut, house, lamp, mug, torus, toy
from scoredistill.teachers.gallery.scenes.plants import cactus, flower, mushroom, tree
from scoredistill.teachers.gallery.scenes.vehicles import boat, car, rocket
from scoredistill.teachers.gallery.table import Model

SCENES: dict[str, Callable[[], tuple[Model, ...]]] = {
    scene.__name__: scene
    for scene in (
        bear,
        boat,
        cactus,
        car,
        donut,
        duck,
        flower,
        house,
        lamp,
        mug,
        mushroom,
        robot,
        rocket,
        snowman,
        torus,
        toy,
        tree,
    )
}
"""From noun to the function that returns its variants."""
