"""The command line beyond help, version and recipes: fit, validate, test, predict, export."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Run a command.

    Args:
        argv: the command and its options.

    Returns:
        The exit code: 0; 1 after a failure in the run; 2 after one in what was asked for; 130 after Ctrl-C.
    """
    from scoredistill.cli.lightning_patches import defer_torchmetrics

    defer_torchmetrics()  # before anything imports Lightning
    from scoredistill.cli.commands import run

    return run(argv[0], list(argv[1:]))
