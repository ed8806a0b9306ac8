"""The classes that the package exports."""

import inspect
import sys

from scoredistill.cli.names import import_public_modules


def exported_classes() -> dict[str, type]:
    """By name, everything in `__all__` of the public modules that is a class."""
    import_public_modules()
    modules = [module for name, module in sys.modules.items() if name.startswith("scoredistill.")]
    found = {name: getattr(module, name, None) for module in modules for name in getattr(module, "__all__", ())}
    return {name: value for name, value in found.items() if inspect.isclass(value)}
