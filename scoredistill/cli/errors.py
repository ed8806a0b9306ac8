"""Errors of what was asked for, in one sentence."""

from __future__ import annotations

import traceback

LONGEST = 300
"""Characters of a parser's message that are shown."""
PARSERS = ("argparse", "jsonargparse")


class UsageError(Exception):
    """Something is wrong with what was asked for; the message says what, and what to do."""


def essence(error: BaseException) -> str:
    """What a parser's error is about, on one line.

    What recipes usually get wrong was found before, see `checking`. What is left is mostly a constructor's own message,
    which the parser wraps into a list of all that it has tried.

    Args:
        error: the parser's.
    """
    own = cause(error)
    text = " ".join(str(getattr(own, "message", None) or own).split())
    owner = constructor(own)
    text = f"{owner}: {text}" if owner is not None and owner not in text else text
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def cause(error: BaseException) -> BaseException:
    """The first error of a chain that was not raised by a parser about another; the last one if all were."""
    each: BaseException | None = error
    seen: list[BaseException] = []
    while each is not None and all(each is not other for other in seen):  # a chain may lead back to where it began
        if not _raised_by_parser(each):
            return each
        seen.append(each)
        each = each.__cause__ or each.__context__
    return error


def constructor(error: BaseException) -> str | None:
    """The class whose constructor refused its arguments, where it was one."""
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        if frame.f_code.co_name in ("__init__", "__post_init__") and "self" in frame.f_locals:
            kind = type(frame.f_locals["self"])
            return None if kind.__module__.startswith("scoredistill.cli.") else kind.__name__
    return None


def _raised_by_parser(error: BaseException) -> bool:
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return not frames or str(frames[-1].f_globals.get("__name__")).split(".")[0] in PARSERS
