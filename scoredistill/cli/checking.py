"""Checks the values of a recipe against the types of its keys, before any of them is used.

jsonargparse, which builds the objects of a recipe, tries each type of a key and reports all mismatches as text. Here
the key, the type and the value are still available, so a mistake gives one sentence, and no name in a recipe leads to
a call unless it is the name of a class of the right kind.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_origin

from scoredistill import recipe_library
from scoredistill.cli import key_types
from scoredistill.cli.class_lookup import choices, find_class, shown, there_are
from scoredistill.cli.errors import UsageError
from scoredistill.cli.key_types import Word, bases_of, described, members
from scoredistill.recipe_library import SUFFIXES, did_you_mean

SPEC = ("class_path", "init_args", "dict_kwargs")
"""Keys of a class in a recipe."""


@dataclass(frozen=True)
class Source:
    """A recipe, or one option of the command line.

    Args:
        content: keys with values, nested as in a recipe.
        folder: to which paths of files are relative.
        name: of the file, for messages; None: the command line.
    """

    content: Mapping[str, Any]
    folder: Path = Path()
    name: str | None = None


@dataclass(frozen=True)
class Spec:
    """A class in a recipe, with its arguments so far."""

    kind: type
    given: Mapping[str, Any]
    passed: int


@dataclass(frozen=True)
class _Field:
    """The key and type of a value, the value of earlier sources, and the files that include it."""

    key: str
    hint: Any
    before: Any
    folder: Path
    files: tuple[Path, ...] = ()


class Checker:
    """Reads sources in order, like the parser: later ones override or complete earlier ones.

    Args:
        keys: every key of a command, dotted, with its type.
        linked: keys that take the value of another key.
    """

    def __init__(self, keys: Mapping[str, Any], linked: Mapping[str, str]) -> None:
        self.keys = keys
        self.linked = linked
        self.known: dict[str, Any] = {}

    def read(self, source: Source) -> None:
        """Read one more source.

        Raises:
            UsageError: if a key is unknown, or its value does not have the key's type.
        """
        try:
            self._group(source.content, "", source.folder)
        except UsageError as error:
            raise UsageError(f"{source.name}: {error}" if source.name else str(error)) from error

    def finish(self, required: Sequence[str]) -> None:
        """Check that nothing is missing.

        Args:
            required: keys without a default.

        Raises:
            UsageError: if one of them, or a required argument of a class, is missing.
        """
        missing = [key for key in required if self.known.get(key) is None]
        if missing:
            raise UsageError(f"{', '.join(missing)} missing: set it in a recipe (--config RECIPE) or as an option")
        for key, value in self.known.items():
            self._complete(value, key)

    def _group(self, content: Mapping[str, Any], prefix: str, folder: Path) -> None:
        for name, value in content.items():
            key = f"{prefix}{name}".removesuffix("+")
            if key in self.linked:
                raise _wrong(key, f"follows {self.linked[key]}: set that instead")
            if key in self.keys:
                field = _Field(key, self.keys[key], self.known.get(key), folder)
                self.known[key] = self._value(value, field, append=str(name).endswith("+"))
            elif any(other.startswith(f"{key}.") for other in self.keys):
                inner = key_types.of_word(value, ()) if isinstance(value, Word) else value
                if isinstance(inner, str) and _is_file(inner):
                    file = _file(inner, _Field(key, Any, None, folder))
                    inner = _content(file, key)
                    folder = file.parent
                if not isinstance(inner, Mapping):
                    raise _wrong(key, f"expected keys with values, got {shown(inner)}")
                self._group(inner, f"{key}.", folder)
            else:
                siblings = {other[len(prefix) :].split(".")[0] for other in self.keys if other.startswith(prefix)}
                hint = did_you_mean(str(name), siblings) or there_are(sorted(siblings))
                where = prefix.removesuffix(".") or "a recipe"
                raise _wrong(shown(key), f"{where} has no key {shown(name)!r}. {hint}")

    def _value(self, value: Any, field: _Field, append: bool = False) -> Any:
        """The value as the parser will read it. Types that are unknown here are left to the parser."""
        hint = field.hint
        options = members(field.hint)
        if isinstance(value, Word):
            value = key_types.of_word(value, options)
        sequence = next((kind for kind in options if get_origin(kind) in key_types.SEQUENCES), None)
        if append:
            if sequence is None:
                raise _wrong(field.key, "is not a list, so nothing can be appended to it")
            new = self._list(value if isinstance(value, list) else [value], replace(field, hint=sequence, before=None))
            return [*(field.before if isinstance(field.before, list) else []), *new]
        if any(key_types.accepts(value, kind) for kind in options):
            return value
        of_last = isinstance(value, Mapping) and isinstance(field.before, list) and "class_path" not in value
        if sequence is not None and (isinstance(value, list) or of_last):
            return self._list(value, replace(field, hint=sequence))
        bases, passed = bases_of(hint)
        if bases and isinstance(value, str) and _is_file(value):
            file = _file(value, field)
            inside = replace(field, folder=file.parent, files=(*field.files, file))
            return self._value(_content(file, field.key), inside)
        if bases and isinstance(value, (str, Mapping)):
            return self._class(value, bases, passed, field)
        mapping = next((kind for kind in options if key_types.is_mapping(kind)), None)
        if mapping is not None and isinstance(value, Mapping):
            of = (*get_args(mapping), Any, Any)[1]
            fields = {name: replace(field, key=f"{field.key}.{name}", hint=of, before=None) for name in value}
            return {name: self._value(each, fields[name]) for name, each in value.items()}
        if any(key_types.is_unknown(kind) for kind in options):
            _refuse_classes(value, field.key)
            return value
        raise _wrong(field.key, f"expected {described(hint)}, got {shown(value)}{key_types.remedy(value, options)}")

    def _list(self, value: Any, field: _Field) -> list[Any]:
        hint, before = field.hint, field.before
        if isinstance(value, Mapping):  # options of the last element
            last = replace(field, key=f"{field.key}[{len(before) - 1}]", hint=get_args(hint)[0], before=before[-1])
            return [*before[:-1], self._value(value, last)]
        hints = key_types.of_elements(hint, len(value))
        if hints is None:
            raise _wrong(field.key, f"expected {described(hint)}, got {shown(value)}")
        fields = [replace(field, key=f"{field.key}[{i}]", hint=each, before=None) for i, each in enumerate(hints)]
        return [self._value(each, inner) for each, inner in zip(value, fields, strict=True)]

    def _class(self, value: Any, bases: Sequence[type], passed: int, field: _Field) -> Spec:
        """A class with its arguments: by name, or as class_path and init_args."""
        if isinstance(value, str):
            value = {"class_path": value}
        earlier = field.before if isinstance(field.before, Spec) else None
        kind, given = _named(value, bases, field, earlier)
        known = key_types.parameters(kind, passed)
        kept = {name: each for name, each in earlier.given.items() if name in known} if earlier else {}
        for name, each in given.items():
            kept |= self._argument(Spec(kind, kept, passed), str(name), each, field)
        return Spec(kind, kept, passed)

    def _argument(self, spec: Spec, name: str, value: Any, field: _Field) -> dict[str, Any]:
        append, name = name.endswith("+"), name.removesuffix("+")
        name, _, rest = name.partition(".")
        key = f"{field.key}.{name}"
        known = key_types.parameters(spec.kind, spec.passed)
        source = self.linked.get(f"{field.key}.init_args.{name}")
        if source is not None:
            raise _wrong(key, f"follows {source}: set that instead")
        if name not in known:
            hint = did_you_mean(name, [*known, *SPEC[:2]]) or there_are(list(known))
            raise _wrong(field.key, f"{spec.kind.__name__} has no option {shown(name)!r}. {hint}")
        if not known[name].typed:
            raise _wrong(field.key, _untyped(spec.kind, name))
        inner = replace(field, key=key, hint=known[name].hint, before=spec.given.get(name))
        return {name: self._value(nested(rest, value) if rest else value, inner, append)}

    def _complete(self, value: Any, key: str) -> None:
        """Refuse a class that lacks an argument."""
        if isinstance(value, list):
            for i, each in enumerate(value):
                self._complete(each, f"{key}[{i}]")
        if not isinstance(value, Spec):
            return
        known = key_types.parameters(value.kind, value.passed)
        given = value.given.keys() | {name for name in known if f"{key}.init_args.{name}" in self.linked}
        lacking = [name for name, each in known.items() if each.required and name not in given]
        untyped = [name for name in lacking if not known[name].typed]
        if untyped:
            raise _wrong(key, _untyped(value.kind, untyped[0]))
        if lacking:
            raise _wrong(key, f"{value.kind.__name__} needs {', '.join(lacking)}")
        for name, each in value.given.items():
            self._complete(each, f"{key}.{name}")


def check(
    sources: Sequence[Source], keys: Mapping[str, Any], required: Iterable[str], linked: Mapping[str, str]
) -> None:
    """Read sources in order, and check that nothing is missing.

    Args:
        sources: the recipes and options of a command.
        keys: every key of the command, dotted, with its type.
        required: keys without a default.
        linked: keys that take the value of another key, with that key.

    Raises:
        UsageError: with the first wrong key, the expected type and the value.
    """
    checker = Checker(keys, linked)
    for source in sources:
        checker.read(source)
    checker.finish(list(required))


def nested(key: str, value: Any) -> dict[str, Any]:
    """`{"a": {"b": value}}` of the key "a.b"."""
    for part in reversed(key.split(".")):
        value = {part: value}
    return dict(value)


def _file(name: str, field: _Field) -> Path:
    """The path of a file that a recipe names, relative to the recipe."""
    path = field.folder / name
    if not path.is_file():
        raise _wrong(field.key, f"there is no file {shown(name)}, relative to the recipe or the working directory")
    if any(path.samefile(other) for other in field.files):
        raise _wrong(field.key, f"{path} includes itself")
    return path


def _content(path: Path, key: str) -> Any:
    try:
        content = recipe_library.read(path)
    except recipe_library.RecipeError as error:
        raise _wrong(key, str(error)) from error
    if not isinstance(content, (Mapping, list)):
        raise _wrong(key, f"{path}: expected class_path and init_args, got {shown(content)}")
    return content


def _wrong(key: str, message: str) -> UsageError:
    return UsageError(f"{key}: {message}")


def _named(
    value: Mapping[str, Any], bases: Sequence[type], field: _Field, earlier: Spec | None
) -> tuple[type, Mapping[str, Any]]:
    """The class that a mapping describes, and its arguments."""
    kind = earlier.kind if earlier else bases[0] if len(bases) == 1 and not inspect.isabstract(bases[0]) else None
    explicit = "class_path" in value or "init_args" in value
    if "class_path" in value:
        try:
            kind = find_class(value["class_path"], bases)
        except UsageError as error:
            name = str(value["class_path"])
            if (
                "." not in name
                and key_types.takes_more_than_classes(field.hint)
                and not did_you_mean(name, choices(bases))
            ):
                raise _wrong(field.key, f"expected {described(field.hint)}, got {shown(name)}") from error
            raise _wrong(field.key, str(error)) from error
    for name in value:
        if explicit and name not in SPEC:
            hint = did_you_mean(str(name), SPEC[:2]) or "Arguments of the class belong under init_args."
            raise _wrong(field.key, f"has no key {shown(name)!r} beside class_path and init_args. {hint}")
    if kind is None:
        name = shown(next(iter(value), ""))
        hint = did_you_mean(name, SPEC[:2]) or f"Name one, as in --{field.key} {key_types.with_option(name, bases)}"
        raise _wrong(field.key, f"it has no class yet, so it has no option {name!r}. {hint}")
    given = value.get("init_args", {}) if explicit else value
    given = key_types.of_word(given, ()) if isinstance(given, Word) else given
    if not isinstance(given, Mapping):
        raise _wrong(f"{field.key}.init_args", f"expected arguments with values, or no such key, got {shown(given)}")
    return kind, given


def _refuse_classes(value: Any, key: str) -> None:
    """Refuse classes where the type is `Any`, because it does not restrict them."""
    if isinstance(value, Mapping):
        if "class_path" in value:
            raise _wrong(key, "takes no class: its type does not restrict the kind of class")
        for name, each in value.items():
            _refuse_classes(each, f"{key}.{name}")
    elif isinstance(value, list):
        for i, each in enumerate(value):
            _refuse_classes(each, f"{key}[{i}]")


def _untyped(kind: type, name: str) -> str:
    return f"{kind.__name__} has no type for its argument {name!r}: annotate it, as in `{name}: float`"


def _is_file(name: str) -> bool:
    """Whether a string in place of a class is the path of a file."""
    return name.endswith((*SUFFIXES, ".json")) or "/" in name
