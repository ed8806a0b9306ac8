"""A run says what is useful: no banners, tips or advertisements."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from lightning_fabric.utilities.warnings import PossibleUserWarning

LOGGERS = ("pytorch_lightning", "lightning", "lightning.pytorch", "lightning.fabric", "lightning_fabric")


def _one_line(message: Warning | str, category: type[Warning], *_: object, **__: object) -> str:
    return f"warning: {message}\n"


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Lightning's information and its advice about data loaders, which has nothing to do with this data."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    loggers += [logging.getLogger(name) for name in logging.root.manager.loggerDict if name.split(".")[0] in LOGGERS]
    levels = [logger.level for logger in loggers]
    form = warnings.formatwarning
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # they are about Lightning's use of it
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    warnings.formatwarning = _one_line
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PossibleUserWarning)
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated")  # Lightning's own
            yield
    finally:
        warnings.formatwarning = form
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
