"""Argument types and the parser of the commands without recipes."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import NoReturn

from scoredistill.cli.errors import UsageError


def integer(lowest: int, highest: int) -> Callable[[str], int]:
    """Parse integers in a range, both ends included."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = lowest - 1
        if not lowest <= value <= highest:
            raise argparse.ArgumentTypeError(f"expected a whole number from {lowest} to {highest}, got {text}")
        return value

    return read


def degrees(lowest: float, highest: float) -> Callable[[str], float]:
    """Parse angles in a range, both ends included."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not lowest <= value <= highest:
            raise argparse.ArgumentTypeError(f"expected degrees from {lowest:g} to {highest:g}, got {text}")
        return value

    return read


def between(low: float, high: float) -> Callable[[str], float]:
    """Parse numbers in an open interval."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = low
        if not low < value < high:
            limits = f"above {low:g}" if math.isinf(high) else f"between {low:g} and {high:g}"
            raise argparse.ArgumentTypeError(f"expected a number {limits}, got {text}")
        return value

    return read


def finite(text: str) -> float:
    """Parse a finite number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"expected a finite number, got {text}")
    return value


class OptionParser(argparse.ArgumentParser):
    """An `ArgumentParser` that raises errors, with a reference to the help.

    Raises:
        UsageError: in `parse_args`, if an option is wrong.
    """

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see `{self.prog} --help`")
