"""The commands that need torch: fit, validate, test, predict, stages, ablate, report, export, view."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Run a command.

    Args:
        argv: the command and its options.

    Returns:
        The exit code: 0; 1 if the run failed; 2 if the options or the recipe are wrong; 130 after Ctrl-C.
    """
    from scoredistill.cli.lightning_patches import defer_torchmetrics

    defer_torchmetrics()  # before the first import of Lightning
    from scoredistill.cli.commands import run

    return run(argv[0], list(argv[1:]))
