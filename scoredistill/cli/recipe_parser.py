"""jsonargparse's parser with recipes' YAML, in which a field that takes text gets the text as it was given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args, get_origin

import yaml  # type: ignore[import-untyped]
from jsonargparse import set_dumper, set_loader
from jsonargparse._typehints import ActionTypeHint
from pytorch_lightning.cli import LightningArgumentParser

from scoredistill import recipe_yaml
from scoredistill.cli.kinds import Word, file_of_word, members, of_word, takes_text

set_loader("yaml", recipe_yaml.load, (yaml.YAMLError,))
set_dumper("yaml", recipe_yaml.dump)


class RecipeAction(ActionTypeHint):
    """An argument with a type. jsonargparse takes every string for YAML: "#1 mug" is null to it, "1e3" a number."""

    @property
    def hint(self) -> Any:
        """The argument's type."""
        return self._typehint

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Take an option: `null` alone is null, and a nested field reads its value itself."""
        if len(args) == 4 and isinstance(args[2], str):
            parser, config, value, option = args
            value = value if option.endswith(".init_args") else Word(value)  # those are YAML, whatever the class
            return super().__call__(parser, config, value, option, **kwargs)
        return super().__call__(*args, **kwargs)

    def _check_type(self, value: Any, append: bool = False, cfg: Any = None, mode: Any = None) -> Any:
        if isinstance(value, Word):
            value = of_word(value, members(self.hint)) if takes_text(self.hint) else file_of_word(str(value))
        if isinstance(value, str) and takes_text(self.hint) and not append:
            return value
        if isinstance(value, Mapping) and takes_plain_data(self.hint):
            return numbers_read(value)
        return super()._check_type(value, append, cfg, mode)

    def serialize(self, value: Any, dump_kwargs: Any = None) -> Any:
        """The value as YAML holds it."""
        return value if self._is_given(value) else super().serialize(value, dump_kwargs)

    def instantiate_classes(self, value: Any) -> Any:
        """The value as the constructor gets it."""
        return value if self._is_given(value) else super().instantiate_classes(value)

    def _is_given(self, value: Any) -> bool:
        return (isinstance(value, str) and takes_text(self.hint)) or takes_plain_data(self.hint)


class RecipeParser(LightningArgumentParser):
    """The parser of recipes, and of the classes in them: jsonargparse makes more of its own kind for those."""

    def add_class_arguments(self, *args: Any, **kwargs: Any) -> list[str]:
        """Add a class's arguments, as jsonargparse does."""
        added: list[str] = super().add_class_arguments(*args, **kwargs)
        self.keep_text()
        return added

    def add_subclass_arguments(self, *args: Any, **kwargs: Any) -> None:
        """Add an argument for a class of some kind, as jsonargparse does."""
        super().add_subclass_arguments(*args, **kwargs)
        self.keep_text()

    def keep_text(self) -> None:
        """Let every argument that was added so far take text as it is."""
        for action in self._actions:
            if type(action) is ActionTypeHint:
                action.__class__ = RecipeAction

    @property
    def keys(self) -> dict[str, Any]:
        """Every key, dotted, with its type."""
        flags = {action.dest: bool for action in self._actions if action.const is True}
        return flags | {action.dest: action.hint for action in self._actions if isinstance(action, RecipeAction)}


def takes_plain_data(hint: Any) -> bool:
    """Whether a type is a mapping of anything: settings that another library reads."""
    return get_origin(hint) is not None and any(
        isinstance(get_origin(kind), type) and issubclass(get_origin(kind), Mapping) and get_args(kind)[-1:] == (Any,)
        for kind in members(hint)
    )


def numbers_read(value: Any) -> Any:
    """Plain data in which 1e-6 is a number, as it is in Python; recipes' YAML has it as text."""
    if isinstance(value, Mapping):
        return {key: numbers_read(each) for key, each in value.items()}
    if isinstance(value, list):
        return [numbers_read(each) for each in value]
    if isinstance(value, str) and recipe_yaml.EXPONENT.match(value):
        return float(value)
    return value
