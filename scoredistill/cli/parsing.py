"""Reads classes by name and tensors, and formats the help."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import pkgutil
import re
import sys
import traceback
from argparse import SUPPRESS, Action, ArgumentParser
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from jsonargparse import DefaultHelpFormatter
from jsonargparse.typing import register_type

from scoredistill.cli.errors import UsageError
from scoredistill.recipe_library import SUFFIXES, did_you_mean

TRAINER = {
    "accelerator": "cpu, gpu, mps or auto.",
    "devices": "number of devices, or a list of their indices.",
    "precision": "32-true, bf16-mixed, 16-mixed, 64-true, ...",
    "max_steps": "generator steps.",
    "max_time": "stop after DD:HH:MM:SS.",
    "callbacks": "metrics and pictures: ParticleGrid, Turntable, ModeStatistics, GalleryFidelity, ...",
    "logger": "CSVLogger, TensorBoardLogger, ...; a relative save_dir is inside the run folder; false: none.",
    "log_every_n_steps": "generator steps between two log lines.",
    "val_check_interval": "training batches between two validations.",
    "detect_anomaly": "find the operation that produced a NaN.",
}
"""The help of the trainer's main arguments; all others are hidden, but work."""

EPILOG = """\
Every option can be in a recipe, a YAML file: `--model.loss SDS` is `model: {loss: SDS}`. A class is set by its name or
dotted path, its arguments by class_path and init_args in a recipe or by further options (--model.loss VSD
--model.loss.critic ParticleCritic), or class and arguments by the path of a YAML file. `--model.loss VSD --help` lists
the options of that class too, `--model.loss.help VSD` lists them alone. Options override recipes, and later recipes
override earlier ones. `--trainer.X` sets any argument of Lightning's Trainer.
"""


class HelpFormatter(DefaultHelpFormatter):
    """Shows class names without their modules, and short lists of choices."""

    def _expand_help(self, action: Action) -> str:
        text = super()._expand_help(action)
        if action.dest.startswith("trainer."):
            default = re.search(r"default: ([^,)]*)", text)
            text = (action.help or "") + (f" (default: {default[1]})" if default else "")
        text = text.replace("known subclasses: ", "one of: ")
        text = re.sub(r"<class '([\w.]+)'>", r"\1", text)
        return re.sub(r"\b(?:scoredistill|torch)(?:\.\w+)*\.([A-Z]\w+)", r"\1", text)


def tidy(parser: ArgumentParser) -> None:
    """Hide options that users do not need, and replace the help of the trainer's options."""
    for action in parser._actions:
        name = action.dest.removeprefix("trainer.")
        is_class_help = any(option.endswith(".help") for option in action.option_strings)
        if action.dest in ("trainer", "model"):
            action.help = SUPPRESS
        elif action.dest == "config":
            action.help = "a recipe: a YAML file, or the name of one that `scoredistill recipes` lists."
        elif action.dest == "data":
            action.help = "what to generate: a prompt and cameras, labels, or unconditional samples"
        elif name != action.dest:
            action.help = SUPPRESS if is_class_help else TRAINER.get(name, SUPPRESS)
        elif is_class_help:
            action.help = SUPPRESS
    groups = {group.title: group for group in parser._action_groups}
    for title, group in groups.items():
        if title == "Customize every aspect of training via flags":
            group.title = "Lightning's trainer"
        elif "--data" in (option for action in group._group_actions for option in action.option_strings):
            group.title = "Data: what to generate in each batch"
        elif title == "Linked arguments":
            parser._action_groups.remove(group)


NOT_FOR_RECIPES = {
    "__main__",
    "cli",
    "recipe_library",
    "recipe_yaml",
    "start_up",
    "studies",
    "testing",
    "version",
}
SHOWN = 8
"""Maximum number of classes in a message, and half the maximum number of keys."""


def import_public_modules() -> None:
    """Import the modules whose classes recipes may name: a short name works once its class is imported."""
    for module in pkgutil.iter_modules([str(Path(__file__).parent.parent)]):
        if module.name not in NOT_FOR_RECIPES:
            importlib.import_module(f"scoredistill.{module.name}")
    importlib.import_module("scoredistill.training.callbacks")


def find_class(name: object, bases: Sequence[type]) -> type:
    """The class that a recipe names.

    Nothing is called. The module of a dotted path is imported, and the name is refused unless it is a class of the
    right kind.

    Args:
        name: the name of an imported class, or the dotted path of any class.
        bases: the class must be one of these, or a subclass.

    Raises:
        UsageError: if there is no such class, it cannot be imported, or it is of another kind; without the key.
    """
    if not isinstance(name, str):
        raise UsageError(f"expected the name of a class ({one_of(bases)}), got {shown(name)}")
    found = _imported(name, bases) if "." in name else _known(name, bases)
    if not inspect.isclass(found):
        raise UsageError(f"{name} is {_kind(found)} and not a class: expected {one_of(bases)}")
    if not issubclass(found, tuple(bases)):
        raise UsageError(f"{name} is not {_a(bases)}: expected {one_of(bases)}")
    if inspect.isabstract(found):
        if found in bases:
            raise UsageError(f"{name} is an abstract class: name one of its subclasses, {one_of(bases)}")
        missing = sorted(vars(found)["__abstractmethods__"])
        owner = next(base for base in found.__mro__ if missing[0] in vars(base))
        raise UsageError(f"{name} lacks {', '.join(missing)}, which every {owner.__name__} defines")
    return found


def subclasses(base: type) -> Iterator[type]:
    """A class and all its subclasses, each once."""
    seen: dict[type, None] = {}
    todo = [base]
    while todo:
        each = todo.pop(0)
        if each not in seen:
            seen[each] = None
            todo += type.__subclasses__(each)
    return iter(seen)


def choices(bases: Sequence[type]) -> list[str]:
    """Short names of the classes that a recipe may use for one of these."""
    every = [each for base in bases for each in subclasses(base)]
    # The base class of another library is rarely useful.
    every = [each for each in every if each not in bases or each.__module__.startswith("scoredistill.")] or every
    usable = [each for each in every if not inspect.isabstract(each) and not each.__name__.startswith("_")]
    return list(dict.fromkeys(each.__name__ for each in usable if "<locals>" not in each.__qualname__))


def one_of(bases: Sequence[type]) -> str:
    """The classes that a recipe may use for one of these, for messages."""
    names = choices(bases)
    if len(names) == 1:
        return names[0]
    listed = names[:SHOWN] + (["..."] if len(names) > SHOWN else [])
    return f"one of {', '.join(listed)}" if names else f"a subclass of {_or(bases)}"


def there_are(names: Sequence[str]) -> str:
    """The possible names, for messages."""
    if not names:
        return "It has none."
    return f"There are {', '.join(names[: 2 * SHOWN])}{', ...' if len(names) > 2 * SHOWN else ''}."


def shown(value: object) -> str:
    """A value as a message shows it: on one line, shortened."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = " ".join(text.split()) if text.strip() else repr(text)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _known(name: str, bases: Sequence[type]) -> type:
    found = [each for base in bases for each in subclasses(base) if each.__name__ == name]
    if found:
        return found[0]
    ours = (each for each in subclasses(object) if str(each.__module__).startswith("scoredistill."))
    others = [each for each in ours if each.__name__ == name]
    if others:
        raise UsageError(f"{name} is {_a([_family(others[0])])} and not {_a(bases)}: expected {one_of(bases)}")
    hint = did_you_mean(name, choices(bases)) or f"Expected {one_of(bases)}, or the dotted path of your class."
    raise UsageError(f"there is no {_or(bases)} called {shown(name)!r}. {hint}")


def _imported(name: str, bases: Sequence[type]) -> object:
    parts = name.split(".")
    if not all(part.isidentifier() for part in parts):
        raise UsageError(f"{shown(name)!r} is not the dotted path of a class: expected {one_of(bases)}")
    module, rest = _module(parts, bases)
    found: object = module
    for number, part in enumerate(rest):
        if not hasattr(found, part):
            names = [key for key, value in vars(found).items() if inspect.isclass(value)] if number == 0 else []
            hint = did_you_mean(part, names) or did_you_mean(part, choices(bases))
            raise UsageError(f"{'.'.join(parts[: -len(rest)])} has no class {part!r}. {hint}".rstrip())
        found = getattr(found, part)
    return found


def _module(parts: Sequence[str], bases: Sequence[type]) -> tuple[object, Sequence[str]]:
    """The longest prefix that is a module, and the remaining names."""
    for end in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:end])
        try:
            return importlib.import_module(name), parts[end:]
        except ModuleNotFoundError as error:
            lost = error.name or ""
            if name != lost and not name.startswith(f"{lost}."):
                raise UsageError(f"{name} cannot be imported: it needs {lost}, which is not installed") from error
        except BaseException as error:  # the user's module may raise anything
            if isinstance(error, KeyboardInterrupt):
                raise
            raise UsageError(f"{name} cannot be imported: {_where(error)}") from error
    hint = did_you_mean(parts[-1], choices(bases))
    remedy = hint or _where_to_put_modules()
    raise UsageError(f"there is no module {parts[0]!r}. {remedy}")


def _where_to_put_modules() -> str:
    """Which folders this command searches: `export` and `view` leave out the working directory."""
    if os.getcwd() in sys.path:
        return "It must be in the working directory or installed."
    return "This command does not search the working directory: install it, or put its folder into PYTHONPATH."


def _where(error: BaseException) -> str:
    """An error inside a module, with the line that raised it."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, SyntaxError):
        return text
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{text} ({Path(frame.filename).name}, line {frame.lineno})"


def _kind(value: object) -> str:
    return "a module" if inspect.ismodule(value) else "a function" if callable(value) else _a([type(value)])


def _family(found: type) -> type:
    """The kind of one of the package's classes: the last of its bases in the package."""
    return [base for base in found.__mro__ if base.__module__.startswith("scoredistill.")][-1]


def _or(bases: Sequence[type]) -> str:
    return " or ".join(base.__name__ for base in bases)


def _a(bases: Sequence[type]) -> str:
    """The names with an article."""
    name = _or(bases)
    return f"an {name}" if name[0] in "AEIOUaeiou" else f"a {name}"


def is_file(name: str) -> bool:
    """Whether a string in place of a class is the path of a file."""
    return name.endswith((*SUFFIXES, ".json")) or "/" in name


def read_tensor(value: Any) -> torch.Tensor:
    """A tensor from (nested) lists of numbers; a single number is left to the other types of the field.

    Raises:
        ValueError: if it is something else.
    """
    if type(value) not in (list, tuple):  # excludes jsonargparse's tuple types
        raise ValueError("not a list")
    try:
        return torch.tensor(_numbers(value))
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"not a list of numbers, nor of such lists of equal length: {error}") from error


def _numbers(value: Any) -> Any:
    """Nested lists in which 1e-3, which is text in the YAML of recipes, is a number."""
    if isinstance(value, (list, tuple)):
        return [_numbers(each) for each in value]
    return float(value) if isinstance(value, str) else value


def _write(tensor: torch.Tensor) -> Any:
    """The shortest decimals that give the same tensor: .1, not .10000000149."""
    values = tensor.detach().cpu().numpy()
    return values.astype(str).astype(float).tolist() if tensor.is_floating_point() else values.tolist()


def register_tensors() -> None:
    """Let parameters of type Tensor accept nested lists."""
    register_type(torch.Tensor, _write, read_tensor, type_check=lambda value, kind: isinstance(value, kind))
