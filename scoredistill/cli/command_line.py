"""LightningCLI with recipes and run folders."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from jsonargparse import ActionConfigFile, Namespace  # type: ignore[attr-defined]
from jsonargparse.typing import NonNegativeInt, PositiveInt
from lightning_fabric.plugins import CheckpointIO
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import ProgressBar
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import CSVLogger, Logger

from scoredistill.cli.argv import NOT_IN_RECIPES, Words
from scoredistill.cli.checking import check
from scoredistill.cli.errors import SIGNALS, UsageError, essence, raise_with_key
from scoredistill.cli.help import EPILOG, HelpFormatter, class_help, tidy
from scoredistill.cli.key_types import parameters
from scoredistill.cli.prerequisites import train_what_is_missing
from scoredistill.cli.ranks import shared_run_folder
from scoredistill.cli.recipe_parser import RecipeParser
from scoredistill.cli.run_config import difference
from scoredistill.cli.tasks import TASKS, check_trainer, find_task
from scoredistill.cli.workspace import Workspace, find_start, open_workspace
from scoredistill.training.callbacks import Cost, RunProgress, Summary
from scoredistill.training.checkpoints import AtomicCheckpointIO, LastCheckpoint
from scoredistill.training.conditions import ConditionDataModule
from scoredistill.training.distillation import Distillation
from scoredistill.training.training_module import TrainingModule

DESCRIPTIONS = {
    "fit": "Train a generator with a recipe. All files go into a new numbered folder under --output.",
    "validate": "Validate a checkpoint.",
    "test": "Test a checkpoint.",
    "predict": "Write samples of a checkpoint's generator.",
}
TRAINER_DEFAULTS = {
    "max_steps": 1000,
    "log_every_n_steps": 10,
    "num_sanity_val_steps": 0,
    "enable_model_summary": False,
}

LINKED = {"model.seed": "seed_everything", "data.init_args.seed": "seed_everything"}
"""Keys that take the value of another key."""


class CommandLine(LightningCLI):
    """Parses a training command, opens its folder, and builds model, data and trainer.

    Args:
        command: fit, validate, test or predict.
        words: the options.

    Raises:
        UsageError: if the options are wrong.
    """

    model: TrainingModule
    trainer: Trainer
    workspace: Workspace
    task: type[TrainingModule]
    """What is trained."""
    changed: str | None = None
    """The first key in which the recipe differs from that of the run that fit starts from."""

    def __init__(self, command: str, words: Words) -> None:
        self.command = command
        self.given = words
        self.task = find_task(words.task)
        try:
            super().__init__(
                self.task,
                ConditionDataModule,
                save_config_callback=None,
                trainer_defaults=TRAINER_DEFAULTS,
                subclass_mode_data=True,
                auto_configure_optimizers=False,
                load_from_checkpoint_support=False,
                args=words.words,
                run=False,
                parser_kwargs=_parser_settings(command),
            )
        except BaseException as error:
            if "workspace" in vars(self):
                self.workspace.discard()  # leave no folder behind
            if "config" in vars(self):
                raise_with_key(error, self.config)
            raise

    def init_parser(self, **kwargs: Any) -> RecipeParser:
        """The parser of recipes."""
        parser = RecipeParser(**kwargs)
        parser.add_argument("-c", "--config", action=ActionConfigFile)
        return parser

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the arguments outside model, data and trainer."""
        add = parser.add_argument
        add(
            "--seed_everything",
            type=NonNegativeInt,
            default=0,
            help="seed of all random numbers, including model.seed and data.seed.",
        )
        what = f"what to train: {', '.join(TASKS)}, or a TrainingModule."
        add("--task", type=str, default=self.given.task, help=what)
        add("--output", type=str, default=self.given.output, help="parent of the numbered run folders.")
        add("--checkpoint_every", type=PositiveInt, default=100, help="generator steps between checkpoints.")
        add(
            "--ckpt_path",
            type=str | None,
            default=None,
            help="checkpoint to start from: a file, a run folder, or `last`, the newest run under output. fit resumes "
            "in that run's folder; if model, data or seed differ from that run's, it uses a new one.",
        )
        add(
            "--start_from",
            type=str | None,
            default=None,
            help="for fit: the run, checkpoint or folder of runs from which to initialize the generator, a mesh from a "
            "radiance field for example. null: as in the recipe.",
        )
        if self.command == "predict":
            parser.add_argument("--separate", action="store_true", help="write separate pictures instead of a grid.")
        parser.add_argument("--debug", action="store_true", help="show the traceback of an error.")

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add model and data before the trainer, because help is read for them."""
        parser.add_lightning_class_args(self.task, "model")
        parser.add_lightning_class_args(ConditionDataModule, "data", subclass_mode=True)
        parser.set_defaults({"data": {"class_path": "scoredistill.training.ConditionDataModule"}})
        parser.add_lightning_class_args(Trainer, "trainer")
        parser.set_defaults({f"trainer.{key}": value for key, value in self.trainer_defaults.items()})

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Link all seeds to one."""
        assert isinstance(parser, RecipeParser)
        parser.keep_text()
        self.keys = parser.keys
        for target, source in LINKED.items():
            parser.link_arguments(source, target)
        tidy(parser)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the options, with readable errors."""
        if not self.given.asks_for_help:
            arguments = parameters(self.task)
            required = [f"model.{name}" for name, each in arguments.items() if each.required]
            check(self.given.sources, self.keys, required, LINKED)
        elif self.given.asks_for_all_options and (of_classes := class_help(self.given, self.keys, LINKED)):
            sys.stdout.write(f"{parser.format_help()}\n{of_classes}")
            parser.exit()
        try:
            self.config = parser.parse_args(args)
        except argparse.ArgumentError as error:
            raise UsageError(essence(error)) from error
        if self.config.trainer.default_root_dir is not None:
            raise UsageError("trainer.default_root_dir: results are written into run folders; set output instead")
        if self.command == "fit":
            check_trainer(self.config.trainer, issubclass(self.task, Distillation))

    def before_instantiate_classes(self) -> None:
        """Store the recipe as text, create the folder, and make relative paths of loggers relative to it."""
        self.recipe = self._as_recipe(self.config)
        with shared_run_folder() as opened:
            if self.command == "fit":
                train_what_is_missing(self.config.model)
            start = find_start(self.config.output, self.config.ckpt_path)
            if self.command == "fit" and start.run is not None and start.run.config.is_file():
                self.changed = difference(start.run.config, self.recipe, self._resolved)
            SIGNALS.watch()
            self.workspace = open_workspace(self.command, self.config.output, start, goes_on=self.changed is None)
            opened.append(self.workspace.folder)
        loggers = self.config.trainer.logger
        for logger in loggers if isinstance(loggers, list) else [loggers]:
            settings = logger.get("init_args") if isinstance(logger, Namespace) else None
            if settings is not None and settings.get("save_dir") is not None:
                settings["save_dir"] = str(self.workspace.folder / settings["save_dir"])

    def _as_recipe(self, config: Namespace) -> str:
        reusable = deepcopy(config)
        for key in NOT_IN_RECIPES:
            reusable.pop(key, None)
        # By position, because jsonargparse 4.49 renamed `skip_none`. Explicit nulls have to stay.
        text: str = self.parser.dump(reusable, "yaml", False)
        return text

    def _resolved(self, config: Path) -> str:
        return self._as_recipe(self.parser.parse_path(str(config)))

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer, which writes all files into the folder."""
        given = self.config_init.trainer
        checkpoints = self.command == "fit" and given.enable_checkpointing is not False
        return super().instantiate_trainer(
            default_root_dir=str(self.workspace.folder),
            logger=self._logger(given.logger),
            callbacks=self._callbacks(_as_list(given.callbacks), checkpoints, given.enable_progress_bar is not False),
            plugins=_with_atomic_checkpoints(_as_list(given.plugins)),
            enable_checkpointing=checkpoints,
            # Lightning's bar counts batches of an epoch, and the epoch has no end.
            enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in _as_list(given.callbacks)),
            **kwargs,
        )

    def _logger(self, given: Any) -> Logger | list[Logger] | bool:
        if given is False or isinstance(given, (Logger, list)):
            return given
        return CSVLogger(self.workspace.folder, name="logs") if self.command == "fit" else False

    def _callbacks(self, given: list[Callback], checkpoints: bool, progress: bool) -> list[Callback]:
        """The recipe's callbacks, and those of every run."""
        callbacks = [callback for callback in given if not isinstance(callback, (Cost, Summary))]
        callbacks.append(Cost())  # its state is in checkpoints, which every command reads
        if self.command == "predict":
            return callbacks
        if self.command != "fit":
            return [*callbacks, Summary()]
        if progress and not any(isinstance(callback, (ProgressBar, RunProgress)) for callback in callbacks):
            callbacks.insert(0, RunProgress())
        if checkpoints:
            callbacks.append(LastCheckpoint(self.config.checkpoint_every))
        return [*callbacks, Summary()]


def _parser_settings(command: str) -> dict[str, Any]:
    return {
        "prog": f"scoredistill {command}",
        "usage": f"scoredistill {command} --config RECIPE [--config RECIPE ...] [--OPTION VALUE ...]",
        "description": DESCRIPTIONS[command],
        "epilog": EPILOG,
        "formatter_class": HelpFormatter,
        "exit_on_error": False,
        "allow_abbrev": False,
        "dump_header": None,
    }


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, Sequence) else [value]


def _with_atomic_checkpoints(plugins: list[Any]) -> list[Any]:
    if any(isinstance(plugin, CheckpointIO) for plugin in plugins):
        return plugins
    return [*plugins, AtomicCheckpointIO()]
