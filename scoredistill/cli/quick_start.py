"""A quicker start: Lightning without all of torchmetrics.

`import pytorch_lightning` asks torchmetrics for two classes, Metric and MetricCollection. torchmetrics answers by
importing all its metrics and, for them, torchvision, transformers, scipy.signal and more: half of the start-up. Here
its own code is put off in the way of Python's `importlib.util.LazyLoader`: the two classes are imported at once, the
package as a whole when anything else is asked of it. Nothing is replaced and nothing is left out.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
from types import ModuleType
from typing import Any

NAME = "torchmetrics"
HOMES = {"Metric": "metric", "MetricCollection": "collections"}


class _LazyPackage(ModuleType):
    """A package whose own code has not run yet; its submodules can be imported all the same."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import system looks for these itself
            raise AttributeError(name)
        spec = self.__spec__
        assert spec is not None
        assert spec.loader is not None
        self.__class__ = ModuleType  # type: ignore[assignment]  # an ordinary package from here on
        spec.loader.exec_module(self)
        return getattr(self, name)


def install() -> None:
    """Put torchmetrics off, unless it is imported already, not installed, or not made as expected."""
    spec = None if NAME in sys.modules else importlib.util.find_spec(NAME)
    if spec is None:
        return
    package = importlib.util.module_from_spec(spec)
    package.__class__ = _LazyPackage
    sys.modules[NAME] = package
    try:
        vars(package)["_logger"] = logging.getLogger(NAME)  # the one name that its submodules take from it
        importlib.import_module(f"{NAME}.utilities")  # before its modules, with which it makes a circle
        for name, module in HOMES.items():
            vars(package)[name] = getattr(importlib.import_module(f"{NAME}.{module}"), name)
    except Exception:  # another version, made in another way: import it as everybody does
        for name in [name for name in sys.modules if name.split(".")[0] == NAME]:
            del sys.modules[name]
