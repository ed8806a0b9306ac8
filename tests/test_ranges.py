"""Every number in a public constructor has a documented range, which is enforced."""

from __future__ import annotations

import importlib
import inspect
import math
import re
import sys
import types
import typing
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from exported import exported_classes

from scoredistill.annealing import Knot, Piecewise
from scoredistill.diffusion import Prediction, TimeBins
from scoredistill.generators.dmtet import Surface
from scoredistill.ranges import BOUND, INTERVAL, Range, require, require_rising
from scoredistill.rendering import Camera
from scoredistill.training import MovingAverage

STATED = re.compile(rf"{BOUND.pattern}|in (?P<interval>{INTERVAL.pattern})(?!\^)|\b(?P<finite>finite)\b")
"""The form in which an entry under Args states a range; "in [-1, 1]^3" is the region of points."""


def numeric(annotation: Any) -> set[type]:
    """The types of the numbers in a parameter: single, annealed, or in a sequence or mapping."""
    if annotation in (int, float):
        return {annotation}
    parts = typing.get_args(annotation)
    if typing.get_origin(annotation) is typing.Literal or not parts:
        return {float} if annotation is Piecewise else set()
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        if str in parts:  # words, some of which are numbers
            return set()
        return set().union(*map(numeric, parts))
    kind = typing.get_origin(annotation)
    if not (isinstance(kind, type) and issubclass(kind, typing.Collection)):
        return set()
    return set().union(*map(numeric, parts))


@cache
def own_parameters(kind: type) -> dict[str, Any]:
    """Names and annotations of the parameters of a constructor that this package defines."""
    owner = next((base for base in kind.__mro__ if "__init__" in vars(base)), object)
    if not owner.__module__.startswith("scoredistill"):
        return {}
    # Also by name, because some modules import each other's classes for the type checker only.
    hints = typing.get_type_hints(owner.__init__, localns={"Camera": Camera, **exported_classes()})  # type: ignore[misc]
    return {name: hint for name, hint in hints.items() if name != "return"}


def reached(kind: type) -> Iterator[type]:
    """The classes of this package in a constructor's annotations."""
    pending = list(own_parameters(kind).values())
    while pending:
        annotation = pending.pop()
        pending += typing.get_args(annotation)
        if inspect.isclass(annotation) and annotation.__module__.startswith("scoredistill"):
            yield annotation


def public_classes() -> list[type]:
    """All exported classes, the classes that their constructors take, and the subclasses of these."""
    importlib.import_module("scoredistill.studies.launchers")
    pending = [kind for kind in exported_classes().values() if kind.__module__.startswith("scoredistill")]
    found: set[type] = set()
    while pending:
        kind = pending.pop()
        if kind not in found and not kind.__name__.startswith("_") and kind.__module__.startswith("scoredistill"):
            found.add(kind)
            pending += [*reached(kind), *kind.__subclasses__()]
    return sorted(found, key=lambda kind: (kind.__module__, kind.__name__))


@cache
def stated(kind: type, name: str) -> str | None:
    """The documented range of a parameter."""
    document = inspect.getdoc(kind) or ""
    entry = re.search(rf"^    (?:\w+, )*{name}(?:, \w+)*: (.*(?:\n     .*)*)", document, re.MULTILINE)
    found = STATED.search(entry[1].replace("\n", " ")) if entry else None
    return found and (found["interval"] or found["finite"] or found[0])


RECEIVED = {MovingAverage, Prediction, Range, Surface, TimeBins}
"""Classes that the package constructs, whose numbers users do not set."""

SETTINGS = {
    f"{kind.__name__}-{name}": (kind, name)
    for kind in public_classes()
    for name, annotation in own_parameters(kind).items()
    if numeric(annotation) and kind not in RECEIVED
}


def outside(limits: Range) -> list[float]:
    """The nearest numbers outside a range, and numbers that are in no range."""
    values = [math.nan, math.inf, -math.inf]
    if math.isfinite(limits.low):
        values += [limits.low - 1, math.nextafter(limits.low, -math.inf) if limits.low_closed else limits.low]
    if math.isfinite(limits.high):
        values += [limits.high + 1, math.nextafter(limits.high, math.inf) if limits.high_closed else limits.high]
    return [value for value in values if value not in limits]


def inside(limits: Range) -> float:
    """A number in a range."""
    low = limits.low if math.isfinite(limits.low) else limits.high - 2
    low = low if math.isfinite(low) else 0.0
    if limits.low_closed and math.isfinite(limits.low):
        return low
    return low + 1 if low + 1 in limits else (low + limits.high) / 2


def shaped(annotation: Any, value: float) -> Any:
    """A number in the form of a parameter's type."""
    origin = typing.get_origin(annotation)
    if origin in (types.UnionType, typing.Union):
        parts = [part for part in typing.get_args(annotation) if numeric(part)]
        plain = [part for part in parts if part in (int, float)]
        return value if plain else shaped(parts[0], value)
    if origin is tuple:
        return tuple(shaped(part, value) for part in typing.get_args(annotation) if part is not Ellipsis)
    if isinstance(origin, type) and issubclass(origin, typing.Mapping):
        return {"key": value}
    return [value] if isinstance(origin, type) else value


def complaint(kind: type, name: str, value: Any) -> str:
    """The error of a constructor for one setting, with stand-ins for required arguments; empty if there is none."""
    stand_ins: dict[str, Any] = {}
    for other, annotation in own_parameters(kind).items():
        required = inspect.signature(kind).parameters[other].default is inspect.Parameter.empty
        if required:
            numbers = numeric(annotation)
            stand_ins[other] = shaped(annotation, inside(Range.parse(stated(kind, other) or ""))) if numbers else None
    concrete = type(kind.__name__, (kind,), dict.fromkeys(getattr(kind, "__abstractmethods__", ())))
    try:
        concrete(**(stand_ins | {name: value}))
    except Exception as error:  # what a stand-in breaks later on is no matter here
        return f"{type(error).__name__}: {error}"
    return ""


def refused(kind: type, name: str, value: Any) -> bool:
    return re.match(rf"RangeError: {name}(\.key)? must (be|lie) ", complaint(kind, name, value)) is not None


class Looked(BaseException):
    """Raised when a constructor reaches the check of the tested setting."""


def checked_against(kind: type, name: str, value: Any, monkeypatch: pytest.MonkeyPatch) -> Range | None:
    """The range with which a constructor checks a setting; the constructor is stopped there."""

    def look(allowed: str, **settings: Any) -> None:
        require(allowed, **settings)
        if name in settings:
            raise Looked(allowed)

    for module in [module for key, module in sys.modules.items() if key.startswith("scoredistill.")]:
        if getattr(module, "require", None) is require:
            monkeypatch.setattr(module, "require", look)
    try:
        complaint(kind, name, value)
    except Looked as found:
        return Range.parse(str(found))
    return None


def test_all_parts_of_the_package_are_checked():
    parts = {kind.__module__.split(".")[1] for kind, _ in SETTINGS.values()}
    assert parts >= {"annealing", "critics", "data", "diffusion", "divergences", "evaluation", "generators", "losses"}
    assert parts >= {"networks", "ratios", "studies", "teachers", "training"}
    assert len(SETTINGS) > 250


@pytest.mark.parametrize(("kind", "name"), SETTINGS.values(), ids=list(SETTINGS))
def test_the_documented_range_of_a_number_is_enforced(kind, name, monkeypatch):
    text, annotation = stated(kind, name), own_parameters(kind)[name]
    assert text is not None, f"{kind.__name__}: state the range of {name} under Args: >= 1, > 0, in [0, 1), finite"
    limits = Range.parse(text)
    for value in outside(limits):
        assert refused(kind, name, shaped(annotation, value)), (value, complaint(kind, name, shaped(annotation, value)))
    assert checked_against(kind, name, shaped(annotation, inside(limits)), monkeypatch) == limits
    default = inspect.signature(kind).parameters[name].default
    if default is not inspect.Parameter.empty:
        require(text, **{name: default})


@pytest.mark.parametrize(("kind", "name"), SETTINGS.values(), ids=list(SETTINGS))
def test_schedules_are_checked_at_all_knots(kind, name):
    if not any(part is Piecewise for part in typing.get_args(own_parameters(kind)[name])):
        return
    limits = Range.parse(stated(kind, name) or "")
    late = Piecewise([Knot(0.0, inside(limits)), Knot(1.0, limits.low - 1)])
    assert refused(kind, name, late)


@pytest.mark.parametrize(
    ("text", "words", "inner", "outer"),
    [
        (">= 1", "be at least 1", [1, 2.5], [0, 0.999, math.inf, math.nan]),
        ("> 0", "be above 0", [1e-300], [0, -1, math.inf, math.nan]),
        ("<= 0", "be at most 0", [0, -3], [1e-9, -math.inf, math.nan]),
        ("< 2", "be below 2", [1.9], [2]),
        ("[0, 1)", r"lie in [0, 1)", [0, 0.5], [1, -1e-9, math.nan]),
        ("(0, inf]", "lie in (0, inf]", [1, math.inf], [0, math.nan]),
        ("[0, 1/6)", "lie in [0, 0.1666666667)", [0.16], [1 / 6]),
        ("[0, 2^32)", "lie in [0, 4294967296)", [2**32 - 1], [2**32]),
        ("finite", "be finite", [-1e300, 0], [math.inf, -math.inf, math.nan]),
    ],
)
def test_the_notation_of_ranges(text, words, inner, outer):
    limits = Range.parse(text)
    assert str(limits) == words
    assert all(number in limits for number in inner)
    assert not any(number in limits for number in outer)


@pytest.mark.parametrize("text", ["1", ">= a", "[0; 1]", "= 1", ""])
def test_invalid_ranges_are_refused(text):
    with pytest.raises(ValueError, match="is not a range"):
        Range.parse(text)


def test_numbers_are_found_in_every_form():
    require(">= 0", none=None, one=1, many=[1, 2.0], pairs=[(0, 1)], named={"a": 3}, rate=Piecewise([Knot(0, 1.0)]))
    for value in (-1, [0, -1], [(0, -1)], {"a": -1}, Piecewise([Knot(0, 0.0), Knot(1, -1.0)])):
        with pytest.raises(ValueError, match=r"^second(\.a)? must be at least 0, got -1"):
            require(">= 0", first=0, second=value)


def test_inverted_ends_are_named():
    require_rising(radius=(1.0, 1.0))
    with pytest.raises(ValueError, match=r"fov: the lower end 3 is above the upper end 2; swap them"):
        require_rising(radius=(1.0, 2.0), fov=(3, 2))
