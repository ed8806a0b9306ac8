"""Loggers by one option: every file lies in the run folder, so that no logger needs to be told where."""

from __future__ import annotations

import inspect
from typing import Any

from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

FOLDERS = {CSVLogger: "logs", TensorBoardLogger: "tensorboard"}
"""Loggers whose `save_dir` is required by Lightning, and the folders in the run folder that they write into."""


def give_loggers_folders() -> None:
    """Let the parser know defaults for `save_dir` and `name`. Lightning's classes behave as before."""
    for logger, folder in FOLDERS.items():
        defaults = {"save_dir": ".", "name": folder}
        constructor: Any = vars(logger)["__init__"]
        signature = inspect.signature(constructor)
        parameters = [
            parameter.replace(default=defaults.get(name, parameter.default))
            for name, parameter in signature.parameters.items()
        ]
        constructor.__signature__ = signature.replace(parameters=parameters)
