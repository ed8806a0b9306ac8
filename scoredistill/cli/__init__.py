"""The commands that need torch: fit, validate, test, predict, stages, ablate, report, export, view.

From `scoredistill fit --config RECIPE` to the first step of training:

    __main__                  signals and streams (start_up), children that end with their parent (processes)
    cli/commands              imports the public classes, so that a recipe may name them (parsing)
    cli/argv, recipe_library  joins words, finds recipes by name
    cli/command_line          the LightningCLI: checks keys and types (checking, kinds), parses (recipe_parser), trains
                              a missing teacher (prerequisites), opens the run folder (workspace), builds the classes
    cli/commands              writes config.yaml and versions.json (provenance), calls trainer.fit
    training/distillation     training_step: one tick of the update plan
"""

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
