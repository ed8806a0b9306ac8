"""Every use of undocumented parts of Lightning: deferred imports, fewer messages, the folders of loggers."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

NAME = "torchmetrics"
HOMES = {"Metric": "metric", "MetricCollection": "collections"}


class _LazyPackage(ModuleType):
    """A package whose `__init__` has not run yet; its submodules can be imported."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import system sets these
            raise AttributeError(name)
        spec = self.__spec__
        assert spec is not None
        assert spec.loader is not None
        self.__class__ = ModuleType  # type: ignore[assignment]  # from here on an ordinary package
        spec.loader.exec_module(self)
        return getattr(self, name)


def defer_torchmetrics() -> None:
    """Defer the import of torchmetrics until one of its metrics is used.

    Lightning imports all of it, and with it torchvision, transformers and scipy.signal, which is half of a command's
    start-up time. This does nothing if torchmetrics is already imported, not installed, or has an unexpected layout.
    """
    spec = None if NAME in sys.modules else importlib.util.find_spec(NAME)
    if spec is None:
        return
    package = importlib.util.module_from_spec(spec)
    package.__class__ = _LazyPackage
    sys.modules[NAME] = package
    try:
        vars(package)["_logger"] = logging.getLogger(NAME)  # the only name that its submodules import from it
        importlib.import_module(f"{NAME}.utilities")  # first, because the other modules and it import each other
        for name, module in HOMES.items():
            vars(package)[name] = getattr(importlib.import_module(f"{NAME}.{module}"), name)
    except Exception:  # a version with another layout: import it as usual
        for name in [name for name in sys.modules if name.split(".")[0] == NAME]:
            del sys.modules[name]


LOGGERS = ("pytorch_lightning", "lightning", "lightning.pytorch", "lightning.fabric", "lightning_fabric")


def _one_line(message: Warning | str, category: type[Warning], *_: object, **__: object) -> str:
    return f"warning: {message}\n"


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Lightning's information and its advice about data loaders, which does not apply to generated batches."""
    from lightning_fabric.utilities.warnings import PossibleUserWarning

    loggers = [logging.getLogger(name) for name in LOGGERS]
    loggers += [logging.getLogger(name) for name in logging.root.manager.loggerDict if name.split(".")[0] in LOGGERS]
    levels = [logger.level for logger in loggers]
    form = warnings.formatwarning
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # Lightning's code causes them
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    warnings.formatwarning = _one_line
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PossibleUserWarning)
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated")  # in Lightning
            yield
    finally:
        warnings.formatwarning = form
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def give_loggers_folders() -> None:
    """Set the defaults of `save_dir` and `name` that the parser reads, a folder in the run folder. The classes do not
    change.
    """
    from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

    for logger, folder in {CSVLogger: "logs", TensorBoardLogger: "tensorboard"}.items():
        defaults = {"save_dir": ".", "name": folder}
        constructor: Any = vars(logger)["__init__"]
        signature = inspect.signature(constructor)
        parameters = [
            parameter.replace(default=defaults.get(name, parameter.default))
            for name, parameter in signature.parameters.items()
        ]
        constructor.__signature__ = signature.replace(parameters=parameters)
