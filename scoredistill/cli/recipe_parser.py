"""jsonargparse's parser with the YAML of recipes; fields that take text receive it unchanged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args, get_origin

import yaml  # type: ignore[import-untyped]
from jsonargparse import set_dumper, set_loader
from jsonargparse._typehints import ActionTypeHint
from pytorch_lightning.cli import LightningArgumentParser

from scoredistill import recipe_yaml
from scoredistill.cli.key_types import Word, file_of_word, members, of_word, takes_text

set_loader("yaml", recipe_yaml.load, (yaml.YAMLError,))
set_dumper("yaml", recipe_yaml.dump)


class RecipeAction(ActionTypeHint):
    """A typed argument. jsonargparse alone reads every string as YAML: "#1 mug" becomes null, "1e3" a number."""

    @property
    def hint(self) -> Any:
        """The argument's type."""
        return self._typehint

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Read an option: only `null` is null, and a nested field reads its own value."""
        if len(args) == 4 and isinstance(args[2], str):
            parser, config, value, option = args
            value = value if option.endswith(".init_args") else Word(value)  # init_args are YAML for every class
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
        """The value as YAML."""
        return value if self._is_given(value) else super().serialize(value, dump_kwargs)

    def instantiate_classes(self, value: Any) -> Any:
        """The value as the constructor receives it."""
        return value if self._is_given(value) else super().instantiate_classes(value)

    def _is_given(self, value: Any) -> bool:
        return (isinstance(value, str) and takes_text(self.hint)) or takes_plain_data(self.hint)


class RecipeParser(LightningArgumentParser):
    """The parser of recipes and of the classes in them, for which jsonargparse creates parsers of the same type."""

    def add_class_arguments(self, *args: Any, **kwargs: Any) -> list[str]:
        """Add a class's arguments, as jsonargparse does."""
        added: list[str] = super().add_class_arguments(*args, **kwargs)
        self.keep_text()
        return added

    def add_subclass_arguments(self, *args: Any, **kwargs: Any) -> None:
        """Add an argument that takes a subclass, as jsonargparse does."""
        super().add_subclass_arguments(*args, **kwargs)
        self.keep_text()

    def keep_text(self) -> None:
        """Let all arguments added so far keep text unchanged."""
        for action in self._actions:
            if type(action) is ActionTypeHint:
                action.__class__ = RecipeAction

    @property
    def keys(self) -> dict[str, Any]:
        """Every key, dotted, with its type."""
        flags = {action.dest: bool for action in self._actions if action.const is True}
        return flags | {action.dest: action.hint for action in self._actions if isinstance(action, RecipeAction)}


def takes_plain_data(hint: Any) -> bool:
    """Whether a type is a mapping to `Any`: settings for another library."""
    return get_origin(hint) is not None and any(
        isinstance(get_origin(kind), type) and issubclass(get_origin(kind), Mapping) and get_args(kind)[-1:] == (Any,)
        for kind in members(hint)
    )


def numbers_read(value: Any) -> Any:
    """Plain data in which 1e-6, which is text in the YAML of recipes, is a number."""
    if isinstance(value, Mapping):
        return {key: numbers_read(each) for key, each in value.items()}
    if isinstance(value, list):
        return [numbers_read(each) for each in value]
    if isinstance(value, str) and recipe_yaml.EXPONENT.match(value):
        return float(value)
    return value
