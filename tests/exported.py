"""The classes that recipes may name."""

import importlib
import inspect
import sys

from scoredistill.cli.class_lookup import import_public_modules


def exported_classes() -> dict[str, type]:
    """All classes in `__all__` of the public modules, by name; of studies, the launchers."""
    import_public_modules()
    importlib.import_module("scoredistill.studies.launchers")
    others = ("scoredistill.cli", "scoredistill.studies", "scoredistill.testing")
    names = [name for name in sys.modules if name.startswith("scoredistill.") and not name.startswith(others)]
    modules = [sys.modules[name] for name in (*names, "scoredistill.studies.launchers")]
    found = {name: getattr(module, name, None) for module in modules for name in getattr(module, "__all__", ())}
    return {name: value for name, value in found.items() if inspect.isclass(value)}
